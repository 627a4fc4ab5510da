"""The inference engine behind a small interface, with two bindings of ONNX Runtime.

`BoundModel` speaks the C interface: loading and freeing a model never stop the interpreter, and
inputs and outputs are bound once. `WheelModel` is what the wheel offers, where the C interface
cannot be had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import c_char_p, c_void_p
from typing import Protocol

import numpy as np
import structlog

from edge_agent.contracts.errors import ReleaseError
from edge_agent.ort import Library, OrtError, library

log = structlog.get_logger(__name__)

INPUT = "inputs"
#: Bindings kept for reuse, per batch size and in sizes; more are made and thrown away.
KEPT_EACH, KEPT_SIZES = 4, 8

Shapes = Mapping[str, tuple[int, ...]]


class Model(Protocol):
    """A loaded model; `run` may be called from several threads at once."""

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the model.

        Parameters
        ----------
        inputs : (batch, n) float32, C-contiguous

        Returns
        -------
        outputs : name -> float32 array with the batch first, the caller's own

        Raises
        ------
        ReleaseError
            If the engine fails.
        """
        ...

    def hold_lock(self, hold: bool) -> None:
        """Keep the interpreter lock while running: right for models faster than a hand-over."""
        ...


def load_model(data: bytes, columns: int, outputs: Shapes) -> Model:
    """Load a model.

    Parameters
    ----------
    data : bytes
        The ONNX file; bytes, so that what was verified is what is loaded.
    columns : int
        Width of the input tensor ``inputs`` (batch, columns) float32.
    outputs : mapping from name to shape
        What it gives, float32, without the batch.

    Raises
    ------
    ReleaseError
        If ONNX Runtime cannot load it.
    """
    try:
        engine = library()
    except OSError as error:
        log.warning("ONNX Runtime's C interface cannot be bound", reason=str(error))
        return WheelModel(data, outputs)
    return BoundModel(engine, data, columns, outputs)


class _Binding:
    """Buffers of one batch size, and the tensors over them."""

    __slots__ = ("arguments", "batch", "flat", "inputs", "parts", "values")

    def __init__(self, engine: Library, batch: int, columns: int, outputs: Shapes) -> None:
        sizes = [batch * math.prod(shape) for shape in outputs.values()]
        self.batch = batch
        self.inputs = np.zeros((batch, columns), np.float32)
        # One buffer for all outputs: one copy hands them over.
        self.flat = np.zeros(sum(sizes), np.float32)
        self.parts: list[tuple[str, slice, tuple[int, ...]]] = []
        at = 0
        for (name, shape), size in zip(outputs.items(), sizes, strict=True):
            self.parts.append((name, slice(at, at + size), (batch, *shape)))
            at += size
        self.values = [engine.tensor(self.inputs)]
        self.values += [engine.tensor(self.flat[s].reshape(shape)) for _, s, shape in self.parts]
        fed = (c_void_p * 1)(self.values[0])
        given = (c_void_p * len(self.parts))(*self.values[1:])
        self.arguments = (fed, given)


class BoundModel:
    """A model through the C interface.

    Parameters
    ----------
    engine : Library
    data : bytes
    columns : int
    outputs : mapping from name to shape without the batch

    Raises
    ------
    ReleaseError
        If ONNX Runtime cannot load it.
    """

    def __init__(self, engine: Library, data: bytes, columns: int, outputs: Shapes) -> None:
        self._engine = engine
        self._columns = columns
        self._outputs = dict(outputs)
        self._fed = (c_char_p * 1)(INPUT.encode())
        self._given = (c_char_p * len(outputs))(*(name.encode() for name in outputs))
        self._free: dict[int, list[_Binding]] = {}
        self._run = engine.call["run"]
        self._session: c_void_p | None = None
        try:
            self._session = engine.session(data)
        except OrtError as error:
            raise _refused(error) from error

    def hold_lock(self, hold: bool) -> None:
        """See `Model.hold_lock`."""
        self._run = self._engine.run_holding if hold else self._engine.call["run"]

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the model; see `Model.run`."""
        batch = len(inputs)
        # A list's pop and append are one step each under the interpreter lock: no lock of ours.
        free = self._free.get(batch)
        try:
            binding = free.pop()  # type: ignore[union-attr]
        except (AttributeError, IndexError):
            free = self._kept(batch)
            binding = _Binding(self._engine, batch, self._columns, self._outputs)
        binding.inputs[...] = inputs
        fed, given = binding.arguments
        status = self._run(self._session, None, self._fed, fed, 1, self._given, len(given), given)
        if status:
            self._fail(status, binding)
        flat = binding.flat.copy()
        found = {name: flat[part].reshape(shape) for name, part, shape in binding.parts}
        if free is not None and len(free) < KEPT_EACH:
            free.append(binding)
        else:
            self._drop(binding)
        return found

    def _kept(self, batch: int) -> list[_Binding] | None:
        if batch not in self._free and len(self._free) >= KEPT_SIZES:
            return None
        return self._free.setdefault(batch, [])

    def _fail(self, status: int, binding: _Binding) -> None:
        self._drop(binding)
        try:
            self._engine.check(status)
        except OrtError as error:
            raise _refused(error) from error

    def _drop(self, binding: _Binding) -> None:
        for value in binding.values:
            self._engine.release("value", value)

    def __del__(self) -> None:
        # The tensors before the session, and both before the buffers.
        for bindings in self._free.values():
            for binding in bindings:
                self._drop(binding)
        if self._session is not None:
            self._engine.release("session", self._session)


class WheelModel:
    """A model through the wheel's own Python interface.

    Parameters
    ----------
    data : bytes
    outputs : mapping from name to shape without the batch

    Raises
    ------
    ReleaseError
        If ONNX Runtime cannot load it.
    """

    def __init__(self, data: bytes, outputs: Shapes) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                data, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            raise _refused(error) from error
        self._names = list(outputs)

    def hold_lock(self, hold: bool) -> None:
        """Do nothing: the wheel always gives the lock up."""

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Evaluate the model; see `Model.run`."""
        try:
            values = self._session.run(self._names, {INPUT: inputs})
        except Exception as error:  # as above
            raise _refused(error) from error
        return dict(zip(self._names, values, strict=True))


def _refused(error: BaseException) -> ReleaseError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ReleaseError(f"ONNX Runtime cannot load or run the model: {first}", reason="model")
