"""A model as its difference to the one before: small to send, rebuilt bit for bit.

Binary differences of retrained float32 weights save nothing: every mantissa has changed. So the
publisher rounds the *difference* of the weights to a few bits, applies it as a device does, and
publishes (scores, signs) the model that comes out of that. What a device rebuilds is therefore not
an approximation of the release, it is the release.

Format, little-endian::

    header    magic "RBFD", version (u8); lengths (u64) of base, result and parts;
              sha256 of base and result
    parts     zlib: length of the steps (u32), the steps (MessagePack), literal bytes, scales
    codes     zlib: one byte for each quantised value

The steps make the result from its first byte to its last: `Copy` bytes of the base, take `Literal`
bytes, or add `Scaled` codes to float32 values of the base.

Why every CPU gives the same bits: value = base + scale * code, element by element. A scale has 8
significant bits (bfloat16) and a code at most 8, so the product is exact in float32's 24, and one
addition rounds once, to nearest even, as IEEE 754 prescribes. Nothing is summed, so no order
matters, and as the product is exact a fused multiply-add would change nothing. Processes that flush
subnormals to zero could differ where a weight is below 1e-38; the digest would tell.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from edge_agent.contracts.errors import DeltaError
from edge_agent.contracts.model import sha256

MAGIC = b"RBFD"
VERSION = 1
HEADER = struct.Struct("<4sB3xQQQQ32s32s")

#: The byte that stands for a difference of nought; codes are this much above their value.
ZERO = 128
#: Largest model that is rebuilt unless the caller says otherwise, bytes.
MAX_MODEL_BYTES = 256 * 2**20
#: Most bytes of packed steps: a thousand tensors take thirty thousand.
MAX_STEPS_BYTES = 2**20
MAX_DIMENSIONS = 8

Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
Size = Annotated[int, msgspec.Meta(ge=1, le=2**40)]
Shape = Annotated[tuple[Size, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]


class Copy(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Take bytes of the base."""

    offset: Count
    """First byte in the base."""
    length: Count
    """Bytes."""


class Literal(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Take the next bytes of the delta."""

    length: Count
    """Bytes."""


class Scaled(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Add scaled codes to a float32 tensor of the base.

    Where the tensor has grown, what the base does not have counts as nought.
    """

    offset: Count
    """First byte of the tensor in the base."""
    base_shape: Shape
    """Its shape there: as many dimensions as `shape`; empty if the codes start from nought."""
    shape: Shape
    """Shape in the result, C order."""
    block: Size
    """Values, in C order, that share a scale."""

    @property
    def size(self) -> int:
        """Values in the result."""
        return math.prod(self.shape)

    @property
    def scales(self) -> int:
        """Number of scales."""
        return -(-self.size // self.block)


Step = Copy | Literal | Scaled


class Head(NamedTuple):
    """What a delta's first bytes say."""

    base_length: int
    """Bytes of the model that it starts from."""
    result_length: int
    """Bytes of the model that it makes."""
    parts_length: int
    """Bytes of the unpacked parts."""
    parts_packed: int
    """The same, packed."""
    base_sha256: str
    """Digest of the model that it starts from."""
    result_sha256: str
    """Digest of the model that it makes."""


def read_head(delta: bytes) -> Head:
    """Return what a delta's header says.

    Raises
    ------
    DeltaError
        If it is not a delta, or of another version.
    """
    if len(delta) < HEADER.size:
        msg = f"a delta of {len(delta)} bytes is cut short; take the full file"
        raise DeltaError(msg, reason="truncated")
    magic, version, of_base, of_result, of_parts, packed, base, result = HEADER.unpack_from(delta)
    if magic != MAGIC or version != VERSION:
        msg = "not a delta of this version; take the full file"
        raise DeltaError(msg, reason="format")
    return Head(of_base, of_result, of_parts, packed, base.hex(), result.hex())


def apply(base_model: bytes, delta: bytes, *, limit: int = MAX_MODEL_BYTES) -> bytes:
    """Return the model that `delta` makes of `base_model`.

    Pure, and safe on any bytes: what a header promises is checked before memory is taken for it,
    at most about ten times `limit`.

    Parameters
    ----------
    base_model : bytes
        The model that the delta starts from.
    delta : bytes
        In the format above.
    limit : int
        Bytes that the result may have; the length in the signed manifest, where there is one.

    Raises
    ------
    DeltaError
        If the delta is of another base, cut short, altered or too large; ``.reason`` is ``base``,
        ``truncated``, ``format``, ``limit`` or ``digest``. The full file is the way out of all.
    """
    head = read_head(delta)
    if head.result_length > limit:
        msg = f"the delta makes {head.result_length} bytes, {limit} are allowed; take the full file"
        raise DeltaError(msg, reason="limit")
    if head.base_length != len(base_model) or head.base_sha256 != sha256(base_model):
        msg = f"the delta starts from model {head.base_sha256}, not this one; take the full file"
        raise DeltaError(msg, reason="base")
    # A value has four bytes; of the delta it takes a code and, at most, one scale of two bytes.
    if head.parts_length > 2 * head.result_length + 2**16:
        raise _broken("its parts are larger than what they make")
    start = HEADER.size
    end = start + head.parts_packed
    if end > len(delta):
        msg = "the delta is cut short; take the full file"
        raise DeltaError(msg, reason="truncated")
    parts = _unpack(delta[start:end], head.parts_length)
    steps, rest = _steps(parts)
    plan = _check(steps, rest, head)
    codes = np.frombuffer(_unpack(delta[end:], plan.codes), np.uint8)
    result = _build(base_model, steps, parts[len(parts) - rest :], plan, codes, head)
    if sha256(result) != head.result_sha256:
        msg = "the delta does not make the model that it promises; take the full file"
        raise DeltaError(msg, reason="digest")
    return result


class _Plan(NamedTuple):
    literals: int
    scales: int
    codes: int


def _steps(parts: bytes) -> tuple[list[Step], int]:
    """Return the steps, and how many bytes follow them."""
    if len(parts) < 4:
        raise _broken("it has no steps")
    (length,) = struct.unpack_from("<I", parts)
    if length > min(len(parts) - 4, MAX_STEPS_BYTES):
        raise _broken("its steps do not fit")
    try:
        steps = msgspec.msgpack.decode(parts[4 : 4 + length], type=list[Step])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _broken("its steps cannot be read") from error
    return steps, len(parts) - 4 - length


def _check(steps: list[Step], rest: int, head: Head) -> _Plan:
    """Add up what the steps take and make; refuse what does not fit, before anything is made."""
    made = literals = scales = codes = 0
    for step in steps:
        if isinstance(step, Copy):
            taken, length = step.offset + step.length, step.length
        elif isinstance(step, Literal):
            taken, length = 0, step.length
            literals += length
        else:
            if len(step.base_shape) not in {0, len(step.shape)}:
                raise _broken("a tensor has changed its dimensions")
            of_base = 4 * math.prod(step.base_shape) if step.base_shape else 0
            taken, length = step.offset + of_base, 4 * step.size
            scales += step.scales
            codes += step.size
        made += length
        if taken > head.base_length or made > head.result_length:
            raise _broken("a step leaves its model")
    if made != head.result_length or literals + 2 * scales != rest:
        raise _broken("its steps do not add up")
    return _Plan(literals, scales, codes)


def _build(
    base: bytes, steps: list[Step], rest: bytes, plan: _Plan, codes: np.ndarray, head: Head
) -> bytes:
    scales = bfloat16_values(np.frombuffer(rest, "<u2", plan.scales, offset=plan.literals))
    result = np.empty(head.result_length, np.uint8)
    source = np.frombuffer(base, np.uint8)
    done = literal = scale = code = 0
    for step in steps:
        if isinstance(step, Copy):
            made = source[step.offset : step.offset + step.length]
        elif isinstance(step, Literal):
            made = np.frombuffer(rest, np.uint8, step.length, offset=literal)
            literal += step.length
        else:
            made = add_scaled(
                fitted(base, step.offset, step.base_shape, step.shape),
                codes[code : code + step.size],
                scales[scale : scale + step.scales],
                step.block,
            ).view(np.uint8)
            code += step.size
            scale += step.scales
        result[done : done + len(made)] = made
        done += len(made)
    return result.tobytes()


def fitted(
    base: bytes, offset: int, base_shape: tuple[int, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Return a tensor of the base cut, or filled up with noughts, to `shape`.

    Returns
    -------
    (n,) float32
        Flat, C order; all noughts if `base_shape` is empty.
    """
    if not base_shape:
        return np.zeros(math.prod(shape), "<f4")
    tensor = np.frombuffer(base, "<f4", math.prod(base_shape), offset=offset).reshape(base_shape)
    if base_shape == shape:
        return tensor.reshape(-1)
    out = np.zeros(shape, "<f4")
    common = tuple(slice(0, min(a, b)) for a, b in zip(base_shape, shape, strict=True))
    out[common] = tensor[common]
    return out.reshape(-1)


def add_scaled(base: np.ndarray, codes: np.ndarray, scales: np.ndarray, block: int) -> np.ndarray:
    """Return base + scale * (code - `ZERO`): the one piece of arithmetic that both sides share.

    Parameters
    ----------
    base : (n,) float32
    codes : (n,) uint8
    scales : (ceil(n / block),) float32
        Each with 8 significant bits.
    block : int
        Values that share a scale.

    Returns
    -------
    (n,) little-endian float32
    """
    step = np.repeat(scales, min(block, max(1, len(codes))))[: len(codes)]
    with np.errstate(all="ignore"):  # altered scales may overflow; the digest tells
        difference = np.multiply(codes.astype(np.float32) - np.float32(ZERO), step)
        return np.asarray(np.add(base, difference, dtype=np.float32), "<f4")


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 bit patterns (uint16) as float32."""
    wide = bits.astype(np.uint32) << np.uint32(16)
    return np.asarray(wide.view(np.float32))


def _unpack(data: bytes, length: int) -> bytes:
    """Return exactly `length` bytes, whatever the stream would go on to make."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise _broken("it cannot be unpacked") from error
    if len(out) < length or (len(out) == length and not stream.eof):
        msg = "the delta is cut short; take the full file"
        raise DeltaError(msg, reason="truncated")
    if len(out) > length or stream.unused_data:
        raise _broken("it is longer than it says")
    return out


def _broken(problem: str) -> DeltaError:
    return DeltaError(f"the delta is altered: {problem}; take the full file", reason="format")
