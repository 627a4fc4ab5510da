"""From a trained surrogate to the bytes that serve: canonical, checked against the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.errors import TrainingError
from apps.space import TEAR_PANEL
from apps.surrogates.base import INPUT, WIND, WIND_STD
from edge_agent.contracts.features import InputVariable

if TYPE_CHECKING:
    import onnx

#: Largest ONNX operator set and file format that the agents' runtimes are sure to read.
MAX_OPSET, MAX_IR_VERSION = 21, 10
#: Largest difference to the trained model, as a share of the largest value: float32 round-off of a
#: hundred-term sum of order-one terms is 1e-5.
PARITY_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 3, 64)

#: Carry source paths, tool versions and prose; nothing that computes.
_STRIPPED = frozenset(
    {"metadata_props", "doc_string", "producer_name", "producer_version", "domain", "model_version"}
)


def canonical_bytes(model: onnx.ModelProto) -> bytes:
    """Return the model as bytes that depend on what it computes only.

    Exporters write stack traces with absolute paths into ``metadata_props`` and ``doc_string``
    (torch.onnx does, into every node). All of it goes, at every level, functions and subgraphs
    included; the rest is serialised deterministically.

    Raises
    ------
    TrainingError
        If the operator set or the file format is newer than the agents read.
    """
    opset = max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=0)
    if opset > MAX_OPSET or model.ir_version > MAX_IR_VERSION:
        msg = (
            f"model of opset {opset}, IR {model.ir_version}; agents read up to opset {MAX_OPSET}, "
            f"IR {MAX_IR_VERSION}: export it lower"
        )
        raise TrainingError(msg, opset=opset, ir_version=model.ir_version)
    copy = type(model)()
    copy.CopyFrom(model)
    _strip(copy)
    return bytes(copy.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:  # noqa: ANN401 - any protobuf message
    top = message.DESCRIPTOR.name == "ModelProto"
    for field, value in message.ListFields():
        # An operator's domain is meaning; the model's own is prose.
        if field.name in _STRIPPED and (field.name != "domain" or top):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                _strip(item)


def session(model: bytes) -> Any:  # noqa: ANN401 - onnxruntime is not typed
    """Return an ONNX Runtime session on one CPU thread: the same numbers on every machine size."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_model(model: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return every output of an exported model by name; the batch comes first in each.

    Parameters
    ----------
    model : bytes
    inputs : (n, columns) float32
    """
    running = session(model)
    names = [output.name for output in running.get_outputs()]
    batches = np.array_split(np.asarray(inputs, np.float32), max(1, len(inputs) // 64))
    parts = [running.run(names, {INPUT: b}) for b in batches]
    return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(names)}


def run_onnx(model: bytes, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return wind and standard deviation of an exported model.

    Parameters
    ----------
    model : bytes
    inputs : (n, columns) float32

    Returns
    -------
    wind, wind_std : (n, 3, nz, ny, nx) float32, m/s
    """
    found = run_model(model, inputs)
    return found[WIND], found[WIND_STD]


def trial_inputs(variables: Sequence[InputVariable], size: int) -> np.ndarray:
    """Return inputs that are spread over the trained range, and the same every time.

    Parameters
    ----------
    variables : sequence of InputVariable
        Wind speed first.
    size : int

    Returns
    -------
    (size, columns) float32
    """
    # The square roots of primes go round the interval at rates that have nothing in common.
    rates = np.sqrt(np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0, 31.0, 37.0]))
    places = np.arange(len(variables))
    steps = np.arange(1, size + 1)[:, None] * rates[places % len(rates)] + 0.1 * places
    low = np.array([v.minimum for v in variables])
    high = np.array([v.maximum for v in variables])
    # A little beyond, too: speeds are held at the ends.
    low[0], high[0] = 0.9 * low[0], 1.1 * high[0]
    inputs = low + (steps % 1.0) * (high - low)
    for j, variable in enumerate(variables):
        if variable.name == TEAR_PANEL:
            inputs[:, j] = np.rint(inputs[:, j])
    return np.asarray(inputs, np.float32)


def check_parity(
    predict: Callable[[np.ndarray], dict[str, np.ndarray]],
    model: bytes,
    variables: Sequence[InputVariable],
) -> float:
    """Compare an exported model with what was trained, at several batch sizes.

    Parameters
    ----------
    predict : callable
        What was trained: inputs to outputs by name.
    model : bytes
        Of its export.
    variables : sequence of InputVariable
        Its inputs, with the range to try.

    Returns
    -------
    float
        Largest difference, as a share of the output's largest value.

    Raises
    ------
    TrainingError
        If it exceeds `PARITY_TOLERANCE` or a value is not finite.
    """
    running, worst = session(model), 0.0
    for size in PARITY_BATCHES:
        inputs = trial_inputs(variables, size)
        for name, wanted in predict(inputs).items():
            got = running.run([name], {INPUT: inputs})[0]
            error = float(np.abs(wanted - got).max() / max(np.abs(wanted).max(), 1e-6))
            if wanted.shape != got.shape or not error <= PARITY_TOLERANCE:
                msg = f"exported {name} differs from the trained model by {error:.1e} at {size}"
                raise TrainingError(msg, output=name, batch=size, error=error)
            worst = max(worst, error)
    return worst
