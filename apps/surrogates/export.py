"""From a trained surrogate to the bytes that serve: canonical, checked against the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.errors import TrainingError
from apps.surrogates.base import INPUT, WIND, WIND_STD, Surrogate

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


def run_onnx(model: bytes, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return wind and standard deviation of an exported model.

    Parameters
    ----------
    model : bytes
    inputs : (n, 2) float32
        Wind speed (m/s) and direction it comes from (degrees).

    Returns
    -------
    wind, wind_std : (n, 3, nz, ny, nx) float32, m/s
    """
    running = session(model)
    batches = np.array_split(np.asarray(inputs, np.float32), max(1, len(inputs) // 64))
    parts = [running.run([WIND, WIND_STD], {INPUT: b}) for b in batches]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def check_parity(surrogate: Surrogate, model: bytes, low: float, high: float) -> float:
    """Compare the exported model with the trained one at several batch sizes.

    Parameters
    ----------
    surrogate : Surrogate
    model : bytes
        Of its export.
    low, high : float, m/s
        Range of wind speeds to try, a little beyond it included.

    Returns
    -------
    float
        Largest difference, as a share of the largest value.

    Raises
    ------
    TrainingError
        If it exceeds `PARITY_TOLERANCE` or a value is not finite.
    """
    running, worst = session(model), 0.0
    for size in PARITY_BATCHES:
        # Golden-ratio steps: spread out, and the same every time.
        share = (np.arange(size) * 0.6180339887 + 0.25) % 1.0
        speed = low * 0.9 + share * (high * 1.1 - low * 0.9)
        direction = (np.arange(size) * 222.4922359 + 11.0) % 360.0
        inputs = np.stack([speed, direction], axis=1).astype(np.float32)
        got = running.run([WIND, WIND_STD], {INPUT: inputs})
        for name, a, b in zip((WIND, WIND_STD), surrogate.predict(inputs), got, strict=True):
            error = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6))
            if a.shape != b.shape or not error <= PARITY_TOLERANCE:
                msg = f"exported {name} differs from the trained model by {error:.1e} at {size}"
                raise TrainingError(msg, output=name, batch=size, error=error)
            worst = max(worst, error)
    return worst
