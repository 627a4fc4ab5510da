"""Make a release's delta: what devices that have the previous release download instead of it.

The loop is closed: differences are taken to the model that devices *have*, so what one rounding
leaves is in the next difference, and nothing drifts.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import msgspec
import numpy as np

from apps.tensors import Tensor, float_tensors
from edge_agent.contracts.delta import (
    HEADER,
    MAGIC,
    VERSION,
    ZERO,
    Copy,
    Literal,
    Scaled,
    Step,
    add_scaled,
    apply,
    bfloat16_values,
    fitted,
)
from edge_agent.contracts.model import sha256

#: Smaller tensors are sent as they are.
MIN_VALUES = 16
#: Values that share a scale.
BLOCK = 256
#: Tensors up to this share of a model's bytes get the most bits: they cost little, and among them
#: are those that everything hangs on, such as biases and deviations.
SMALL_SHARE = 0.03
MOST_BITS = 8


class Made(NamedTuple):
    """A delta, and what it makes."""

    delta: bytes
    """In the format of `edge_agent.contracts.delta`."""
    model: bytes
    """What a device rebuilds: near the trained model, and the one to validate and publish."""


def make_delta(base: bytes, model: bytes, bits: int) -> Made:
    """Return the delta that turns `base` into nearly `model`, and what it really makes.

    Bytes between the tensors and values that are not finite go as they are; a tensor that the base
    does not have, or that is nearer to nought than to what it was, is rounded as it is. So there is
    a delta for any two models; whether it is small and near enough is the caller's to judge.

    Parameters
    ----------
    base : bytes
        ONNX file that devices have.
    model : bytes
        ONNX file that was trained.
    bits : int
        Of each weight's rounded difference, 2 to 8, in all but small tensors; packing takes off
        about a fifth.

    Raises
    ------
    PublishError
        If one of them is not an ONNX file.
    """
    parts = _Parts()
    result = bytearray(model)
    known = {tensor.name: tensor for tensor in float_tensors(base)}
    done = done_base = 0
    for tensor in float_tensors(model):
        if tensor.stop - tensor.start < 4 * MIN_VALUES:
            continue
        before = known.get(tensor.name)
        if before is not None and before.start < done_base:
            before = None  # the order has changed
        until = done_base if before is None else before.start
        parts.bytes_between(base, done_base, until, model[done : tensor.start])
        small = tensor.stop - tensor.start <= SMALL_SHARE * len(model)
        result[tensor.start : tensor.stop] = parts.tensor(
            base, before, model, tensor, MOST_BITS if small else bits
        )
        done, done_base = tensor.stop, until if before is None else before.stop
    parts.bytes_between(base, done_base, len(base), model[done:])
    rebuilt = bytes(result)
    delta = parts.pack(base, rebuilt)
    if apply(base, delta, limit=len(rebuilt)) != rebuilt:
        msg = "unreachable: apply checks the digest of what it makes"
        raise AssertionError(msg)
    return Made(delta, rebuilt)


def quantise(difference: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Round differences to codes, a scale for each block.

    Parameters
    ----------
    difference : (n,) float64, finite
    bits : int

    Returns
    -------
    codes : (n,) uint8
        `ZERO` plus a value of at most 2^(bits - 1) - 1 on either side.
    scales : (ceil(n / BLOCK),) uint16
        bfloat16 bit patterns, rounded up so that no code leaves its range.
    """
    largest = 2 ** (bits - 1) - 1
    blocks = np.zeros((-(-len(difference) // BLOCK), BLOCK))
    blocks.reshape(-1)[: len(difference)] = difference
    wanted = (np.abs(blocks).max(axis=1) / largest).astype(np.float32)
    wanted[wanted < np.finfo(np.float32).tiny] = 0.0  # some processes flush what is smaller
    scales = ((wanted.view(np.uint32) + 0xFFFF) >> 16).astype(np.uint16)
    step = bfloat16_values(scales).astype(float)[:, None]
    values = np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0)
    codes = np.clip(np.rint(values), -largest, largest) + ZERO
    return codes.astype(np.uint8).reshape(-1)[: len(difference)], scales


class _Parts:
    """Collects what a delta consists of."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.literals: list[bytes] = []
        self.scales: list[np.ndarray] = []
        self.codes: list[np.ndarray] = []

    def copy(self, offset: int, length: int) -> None:
        if length:
            self.steps.append(Copy(offset, length))

    def literal(self, data: bytes) -> None:
        if data:
            self.steps.append(Literal(len(data)))
            self.literals.append(data)

    def bytes_between(self, base: bytes, start: int, stop: int, wanted: bytes) -> None:
        """Make `wanted` of base[start:stop]: their common beginning, what differs, their end."""
        old = base[start:stop]
        head = _common(old, wanted)
        tail = _common(old[head:][::-1], wanted[head:][::-1])
        self.copy(start, head)
        self.literal(wanted[head : len(wanted) - tail])
        self.copy(stop - tail, tail)

    def tensor(
        self, base: bytes, before: Tensor | None, model: bytes, tensor: Tensor, bits: int
    ) -> bytes:
        """Make a tensor nearly what it is in `model`; return the bytes that it really becomes."""
        wanted = model[tensor.start : tensor.stop]
        if before is not None and base[before.start : before.stop] == wanted:
            self.copy(before.start, len(wanted))
            return wanted
        step = Scaled(0, (), tensor.shape, BLOCK)
        start = fitted(base, 0, (), tensor.shape)
        end = np.frombuffer(wanted, "<f4")
        difference = end.astype(float)
        if before is not None and _alike(before, tensor):
            old = fitted(base, before.start, before.shape, tensor.shape)
            # Retrained from scratch, weights may be nearer to nought than to what they were.
            if not np.linalg.norm(end - old.astype(float)) > np.linalg.norm(difference):
                start, difference = old, end - old.astype(float)
                step = Scaled(before.start, before.shape, tensor.shape, BLOCK)
        # What packs well, such as signs, loses nothing; nor may what is not finite.
        packs = 8 * len(zlib.compress(wanted, 1)) <= bits * len(end)
        if packs or not np.isfinite(difference).all():
            self.literal(wanted)
            return wanted
        codes, scales = quantise(difference, bits)
        self.steps.append(step)
        self.codes.append(codes)
        self.scales.append(scales)
        return add_scaled(start, codes, bfloat16_values(scales), BLOCK).tobytes()

    def pack(self, base: bytes, result: bytes) -> bytes:
        steps = msgspec.msgpack.encode(self.steps)
        scales = [s.astype("<u2").tobytes() for s in self.scales]
        parts = b"".join([struct.pack("<I", len(steps)), steps, *self.literals, *scales])
        codes = b"".join(c.tobytes() for c in self.codes)
        packed = _smallest(parts)
        digests = (bytes.fromhex(sha256(data)) for data in (base, result))
        lengths = (len(base), len(result), len(parts), len(packed))
        return HEADER.pack(MAGIC, VERSION, *lengths, *digests) + packed + _smallest(codes)


def _alike(before: Tensor, tensor: Tensor) -> bool:
    """Tell whether a difference makes sense."""
    return before.stop > before.start and len(before.shape) == len(tensor.shape)


def _common(a: bytes, b: bytes) -> int:
    """Return the length of the common beginning."""
    n = min(len(a), len(b))
    differs = np.frombuffer(a, np.uint8, n) != np.frombuffer(b, np.uint8, n)
    return int(differs.argmax()) if differs.any() else n


def _smallest(data: bytes) -> bytes:
    """Pack by the best of zlib's strategies.

    Codes hold no repeated words: Huffman's code alone comes within 2 % of their entropy, where
    searching for repeats (zlib's default, LZMA, bzip2) costs 7 to 16 % more bytes.
    """
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
    found = []
    for strategy in strategies:
        stream = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        found.append(stream.compress(data) + stream.flush())
    return min(found, key=len)
