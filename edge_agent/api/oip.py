"""Open Inference Protocol v2: the infer request and response, JSON and binary; pure.

The specification is KServe's; the binary tensor data extension is Triton's: tensors follow the
JSON header as little-endian bytes, in the order of the header, and
``Inference-Header-Content-Length`` says where the header ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contracts.errors import InvalidInput, ProtocolError

HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
INPUT = "inputs"
#: Longest head that is remembered, bytes.
CACHED_HEAD = 2048
_F4 = DTYPES["FP32"]

Parameters = dict[str, Any]


class _TensorIn(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _TensorOut(msgspec.Struct):
    name: str
    parameters: Parameters = {}


class _Infer(msgspec.Struct):
    inputs: list[_TensorIn]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[_TensorOut] | None = None


class Wanted(NamedTuple):
    """A requested output."""

    name: str
    """Tensor name."""
    binary: bool
    """As bytes after the header, or as JSON."""


class InferRequest(NamedTuple):
    """A decoded infer request."""

    id: str
    """To be echoed; may be empty."""
    inputs: np.ndarray
    """As sent, float32; not yet checked against the model."""
    outputs: tuple[Wanted, ...]
    """What to send back, in order."""
    columns: tuple[str, ...] | None
    """What the client says the columns are (our parameter ``columns``, comma-separated)."""


_decode_head = msgspec.json.Decoder(_Infer).decode
_decode_flat = msgspec.json.Decoder(list[float]).decode
_decode_rows = msgspec.json.Decoder(list[list[float]]).decode
_encode = msgspec.json.Encoder().encode


def decode_infer(body: bytes, header_length: str | None, outputs: Sequence[str]) -> InferRequest:
    """Decode a request.

    Parameters
    ----------
    body : bytes
    header_length : str or None
        Value of the ``Inference-Header-Content-Length`` header; none for a body of JSON alone.
    outputs : sequence of str
        Output tensors that the model has.

    Raises
    ------
    ProtocolError
        If the bytes are not the protocol.
    InvalidInput
        If they ask for a tensor that does not exist or send one that cannot be.
    """
    if header_length is not None and len(header_length) <= 4 and header_length.isdecimal():
        # Clients repeat themselves: the same short head before other bytes is read once.
        split = int(header_length)
        if 0 < split <= CACHED_HEAD and split < len(body):
            plan = _plan(body[:split], len(body) - split, tuple(outputs))
            values = np.frombuffer(body, plan.dtype, offset=split).reshape(plan.shape)
            return InferRequest(plan.id, _single(values), plan.outputs, plan.columns)
    split = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 15:
            raise _bad(f"{HEADER_LENGTH} {header_length!r} is not a number of bytes")
        split = int(header_length)
        if split > len(body):
            raise _bad(f"{HEADER_LENGTH} is {split}, the body has {len(body)} bytes")
    head = _head(memoryview(body)[:split])
    inputs = _tensor(head.inputs[0], memoryview(body)[split:])
    return InferRequest(head.id, inputs, _wanted(head, outputs), _columns(head))


class _Plan(NamedTuple):
    """What a head says of the bytes that follow it."""

    id: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    outputs: tuple[Wanted, ...]
    columns: tuple[str, ...] | None


@lru_cache(maxsize=256)
def _plan(head_bytes: bytes, follow: int, outputs: tuple[str, ...]) -> _Plan:
    head = _head(head_bytes)
    tensor = head.inputs[0]
    dtype = _checked_dtype(tensor)
    values = _tensor(tensor, memoryview(bytes(follow)))  # its checks; the zeros do not matter
    return _Plan(head.id, dtype, values.shape, _wanted(head, outputs), _columns(head))


def _head(data: bytes | memoryview) -> _Infer:
    try:
        head = _decode_head(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"the request is not an infer request: {error}") from error
    if [t.name for t in head.inputs] != [INPUT]:
        found = ", ".join(repr(t.name) for t in head.inputs) or "none"
        msg = f"inputs given: {found}; the model takes one tensor, {INPUT!r}"
        raise InvalidInput(msg, name=found)
    return head


def _columns(head: _Infer) -> tuple[str, ...] | None:
    columns = head.parameters.get("columns")
    return tuple(columns.split(",")) if isinstance(columns, str) else None


def encode_infer(
    model: str,
    version: int,
    request: InferRequest,
    tensors: Mapping[str, np.ndarray],
    parameters: Parameters,
) -> tuple[list[bytes | memoryview], int | None]:
    """Encode an answer.

    Parameters
    ----------
    model, version : str, int
        What answered.
    request : InferRequest
        Says which outputs, and how.
    tensors : mapping from name to float32 array
    parameters : dict
        Of the response.

    Returns
    -------
    body : list of buffers
    header_length : int or None
        For the header; none if the body is JSON alone.
    """
    arrays = [(w, _flat(tensors[w.name])) for w in request.outputs]
    if all(wanted.binary for wanted, _ in arrays):
        shapes = tuple(tensors[w.name].shape for w in request.outputs)
        start = _binary_head(model, version, request.id, request.outputs, shapes)
        encoded = b"%b%b}" % (start, _encode(parameters))
        return [encoded, *(array.data.cast("B") for _, array in arrays)], len(encoded)
    outputs: list[Parameters] = []
    pieces: list[bytes | memoryview] = []
    for wanted, array in arrays:
        output: Parameters = {"name": wanted.name, "datatype": "FP32"}
        output["shape"] = tensors[wanted.name].shape
        if wanted.binary:
            output["parameters"] = {"binary_data_size": array.nbytes}
            pieces.append(array.data.cast("B"))
        else:
            output["data"] = array.tolist()
        outputs.append(output)
    head: Parameters = {"model_name": model, "model_version": str(version)}
    if request.id:
        head["id"] = request.id
    head["parameters"] = parameters
    head["outputs"] = outputs
    encoded = _encode(head)
    return [encoded, *pieces], len(encoded) if pieces else None


@lru_cache(maxsize=256)
def _binary_head(
    model: str,
    version: int,
    id_: str,
    outputs: tuple[Wanted, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> bytes:
    """Return the JSON of an answer up to the value of its parameters."""
    head: Parameters = {"model_name": model, "model_version": str(version)}
    if id_:
        head["id"] = id_
    head["outputs"] = [
        {
            "name": wanted.name,
            "datatype": "FP32",
            "shape": shape,
            "parameters": {"binary_data_size": 4 * math.prod(shape)},
        }
        for wanted, shape in zip(outputs, shapes, strict=True)
    ]
    return _encode(head)[:-1] + b',"parameters":'


def _flat(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=_F4).reshape(-1)


def _checked_dtype(tensor: _TensorIn) -> np.dtype[Any]:
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        msg = f"datatype {tensor.datatype!r}; {', '.join(DTYPES)} are accepted"
        raise InvalidInput(msg, name=tensor.name)
    return dtype


def _tensor(tensor: _TensorIn, binary: memoryview) -> np.ndarray:
    dtype = _checked_dtype(tensor)
    if not 1 <= len(tensor.shape) <= 2 or not all(0 <= n < 2**31 for n in tensor.shape):
        msg = f"shape {tensor.shape} of {tensor.name!r}; expected [batch, columns]"
        raise InvalidInput(msg, name=tensor.name)
    count = math.prod(tensor.shape)
    size = tensor.parameters.get("binary_data_size")
    if size is not None:
        if size != len(binary) or isinstance(size, bool):
            raise _bad(f"binary_data_size is {size!r}, {len(binary)} bytes follow the header")
        if tensor.data is not msgspec.UNSET:
            raise _bad(f"tensor {tensor.name!r} has both data and binary_data_size")
        if size != count * dtype.itemsize:
            msg = f"{size} bytes do not fill shape {tensor.shape} of {tensor.datatype}"
            raise InvalidInput(msg, name=tensor.name)
        values = np.frombuffer(binary, dtype=dtype)
    else:
        if len(binary):
            raise _bad(f"{len(binary)} bytes follow the header, no tensor claims them")
        values = _json_values(tensor)
        if values.size != count:
            msg = f"{values.size} values do not fill shape {tensor.shape}"
            raise InvalidInput(msg, name=tensor.name)
    return _single(values.reshape(tensor.shape))


def _single(values: np.ndarray) -> np.ndarray:
    if values.dtype == _F4:
        return values
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as not finite
        return values.astype(np.float32)


def _json_values(tensor: _TensorIn) -> np.ndarray:
    if isinstance(tensor.data, msgspec.UnsetType):
        raise _bad(f"tensor {tensor.name!r} has neither data nor binary_data_size")
    try:
        return np.array(_decode_flat(tensor.data), dtype=float)
    except msgspec.MsgspecError:
        pass
    try:
        rows = _decode_rows(tensor.data)
    except msgspec.MsgspecError as error:
        msg = f"data of {tensor.name!r} is not a list of numbers, flat or by rows: {error}"
        raise InvalidInput(msg, name=tensor.name) from error
    if len({len(row) for row in rows}) > 1:
        msg = f"rows of {tensor.name!r} have unequal lengths"
        raise InvalidInput(msg, name=tensor.name)
    return np.array(rows, dtype=float).reshape(-1)


def _wanted(head: _Infer, outputs: Sequence[str]) -> tuple[Wanted, ...]:
    binary = head.parameters.get("binary_data_output") is True
    if not head.outputs:
        return tuple(Wanted(name, binary) for name in outputs)
    if len({output.name for output in head.outputs}) < len(head.outputs):
        msg = "an output is requested twice"
        raise InvalidInput(msg, name=head.outputs[0].name)
    for output in head.outputs:
        if output.name not in outputs:
            msg = f"unknown output {output.name!r}; the model gives {', '.join(outputs)}"
            raise InvalidInput(msg, name=output.name)
    return tuple(
        Wanted(o.name, o.parameters.get("binary_data", binary) is True) for o in head.outputs
    )


def _bad(message: str) -> ProtocolError:
    return ProtocolError(message, status=400)
