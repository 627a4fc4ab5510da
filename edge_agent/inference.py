"""The inference engine behind a small interface, so that another binding can take its place."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnxruntime as ort

from edge_agent.contracts.errors import ReleaseError

INPUT = "inputs"


class Model(Protocol):
    """A loaded model; `run` may be called from several threads at once."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output tensors, in order."""
        ...

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the model.

        Parameters
        ----------
        inputs : (batch, n) float32, C-contiguous

        Returns
        -------
        outputs : name -> float32 array with the batch first
        """
        ...


class OnnxModel:
    """A model in ONNX Runtime on the CPU.

    One thread within and between operators: with more, the tail on a busy device is several times
    worse, and requests are small.

    Parameters
    ----------
    data : bytes
        The ONNX file; bytes, so that what was verified is what is loaded.

    Raises
    ------
    ReleaseError
        If ONNX Runtime cannot load it or its input is not ``inputs`` (batch, n) float32.
    """

    def __init__(self, data: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                data, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            msg = f"ONNX Runtime cannot load the model: {_first_line(error)}"
            raise ReleaseError(msg, reason="model") from error
        tensors = self._session.get_inputs()
        if [t.name for t in tensors] != [INPUT] or tensors[0].type != "tensor(float)":
            found = ", ".join(f"{t.name}: {t.type}" for t in tensors)
            msg = f"the model takes ({found}); expected one float32 tensor named {INPUT!r}"
            raise ReleaseError(msg, reason="model")
        self._outputs = tuple(t.name for t in self._session.get_outputs())
        self._names = list(self._outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output tensors, in order."""
        return self._outputs

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the model; see `Model.run`."""
        values = self._session.run(self._names, {INPUT: inputs})
        return dict(zip(self._outputs, values, strict=True))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
