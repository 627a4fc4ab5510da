"""Where the float32 tensors lie in the bytes of an ONNX file.

Only the outermost levels of the file are read, as protobuf's wire format defines them (field
numbers from onnx.proto: graph 7, initializer 5; of a tensor dims 1, data_type 2, name 8,
raw_data 9).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from apps.errors import PublishError

_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Tensor(NamedTuple):
    """A float32 initializer."""

    name: str
    """Its name in the graph."""
    shape: tuple[int, ...]
    """Dimensions, C order; none for a scalar."""
    start: int
    """First byte of its values in the file."""
    stop: int
    """One past the last."""


def float_tensors(model: bytes) -> list[Tensor]:
    """Return the float32 initializers whose values lie in the file as they lie in memory.

    Raises
    ------
    PublishError
        If the bytes are not protobuf.
    """
    found = []
    try:
        for number, start, stop in _fields(model, 0, len(model)):
            if number != _GRAPH:
                continue
            for inner, first, last in _fields(model, start, stop):
                if inner == _INITIALIZER:
                    tensor = _tensor(model, first, last)
                    found += [] if tensor is None else [tensor]
    except (IndexError, ValueError) as error:
        msg = "the model is not an ONNX file; train it again"
        raise PublishError(msg) from error
    return found


def tensor_values(model: bytes) -> dict[str, np.ndarray]:
    """Return the float32 initializers by name; raises as `float_tensors`."""
    return {
        t.name: np.frombuffer(model[t.start : t.stop], "<f4").reshape(t.shape)
        for t in float_tensors(model)
    }


def _tensor(data: bytes, start: int, stop: int) -> Tensor | None:
    name, shape, kind, values = "", [], 0, None
    for number, first, last in _fields(data, start, stop):
        if number == _DIMS:  # packed, or one at a time
            at = first
            while at < last:
                size, at = _varint(data, at)
                shape.append(size)
        elif number == _DATA_TYPE:
            kind = _varint(data, first)[0]
        elif number == _NAME:
            name = data[first:last].decode()
        elif number == _RAW_DATA:
            values = (first, last)
    if kind != _FLOAT or values is None:
        return None
    return Tensor(name, tuple(shape), *values)


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and stop of each field of a message."""
    while at < stop:
        key, at = _varint(data, at)
        kind, start = key & 7, at
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _BYTES:
            length, start = _varint(data, at)
            at = start + length
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
        else:
            msg = f"wire type {kind}"
            raise ValueError(msg)
        if at > stop:
            msg = "a field leaves its message"
            raise ValueError(msg)
        yield key >> 3, start, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length integer and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
