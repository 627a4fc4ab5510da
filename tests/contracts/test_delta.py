"""A delta makes exactly what was published, or says why not; never anything else."""

import hashlib
import struct
import tracemalloc
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contracts import delta as contract
from edge_agent.contracts.delta import (
    HEADER,
    MAGIC,
    VERSION,
    ZERO,
    Copy,
    Literal,
    Scaled,
    apply,
    bfloat16_values,
    read_head,
)
from edge_agent.contracts.errors import DeltaError

WEIGHTS = np.linspace(-1, 1, 24, dtype="<f4").reshape(4, 6)
BASE = b"head" + WEIGHTS.tobytes() + b"tail"
SCALE = np.array([0x3C00, 0x3B80], "<u2")  # 2^-7, 2^-8
CODES = np.arange(ZERO - 12, ZERO + 12, dtype=np.uint8)


def packed(steps, literals=b"", scales=b"", codes=b"", base=BASE, result=b"", **lies) -> bytes:
    text = msgspec.msgpack.encode(steps)
    parts = struct.pack("<I", len(text)) + text + literals + scales
    head = {
        "base_length": len(base),
        "result_length": len(result),
        "parts": len(parts),
        "packed": len(zlib.compress(parts)),
        "base": hashlib.sha256(base).digest(),
        "result": hashlib.sha256(result).digest(),
    } | lies
    return HEADER.pack(MAGIC, VERSION, *head.values()) + zlib.compress(parts) + zlib.compress(codes)


def good() -> tuple[bytes, bytes]:
    steps = [Literal(5), Scaled(4, (4, 6), (4, 6), 12), Copy(4 + 96, 4)]
    change = (CODES.astype(float) - ZERO) * np.repeat([2**-7, 2**-8], 12)
    result = b"HEAD2" + (WEIGHTS + change.reshape(4, 6)).astype("<f4").tobytes() + b"tail"
    return packed(steps, b"HEAD2", SCALE.tobytes(), CODES.tobytes(), result=result), result


def test_the_format_is_what_the_first_agents_read():
    delta, result = good()
    assert apply(BASE, delta) == result
    assert read_head(delta).base_sha256 == hashlib.sha256(BASE).hexdigest()
    # Bytes written by version 1: a change of format must change the version.
    assert delta[:5] == b"RBFD\x01"
    assert hashlib.sha256(result).hexdigest()[:16] == "5ad659ba83047fb6"


def test_a_tensor_that_grew_counts_what_the_base_lacks_as_nought():
    codes = np.full(15, ZERO, np.uint8)
    codes[[0, 14]] = ZERO + 1, ZERO - 2
    expected = np.zeros((5, 3), "<f4")
    expected[:4] = WEIGHTS[:, :3]
    expected[0, 0] += np.float32(2**-7)
    expected[4, 2] = -(2**-6)
    result = expected.tobytes()
    steps = [Scaled(4, (4, 6), (5, 3), 100)]
    assert apply(BASE, packed(steps, b"", SCALE[:1].tobytes(), codes.tobytes(), result=result)) == (
        result
    )


def test_codes_may_start_from_nought():
    codes = np.full(24, ZERO + 3, np.uint8)
    result = np.full(24, 3 * 2**-7, "<f4").tobytes()
    steps = [Scaled(0, (), (2, 12), 24)]
    delta = packed(steps, b"", SCALE[:1].tobytes(), codes.tobytes(), result=result)
    assert apply(BASE, delta) == result


@settings(max_examples=300, deadline=None)
@given(
    base=st.floats(width=32, allow_nan=False, allow_infinity=False),
    code=st.integers(-127, 127),
    scale=st.integers(0x0100, 0x7EFF),
)
def test_the_product_is_exact_so_that_one_rounding_is_all(base, code, scale):
    value = float(bfloat16_values(np.array([scale], np.uint16))[0])
    with np.errstate(over="ignore"):
        exact = np.float32(code) * np.float32(value)
        # A fused multiply-add rounds the exact sum once; so does this, for the product is exact.
        assert not np.isfinite(exact) or float(exact) == code * value
        codes, scales = np.array([code + ZERO], np.uint8), np.array([value], np.float32)
        got = contract.add_scaled(np.array([base], np.float32), codes, scales, 1)[0]
        want = np.float32(base) + np.float32(code * value)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[:20], "truncated"),
        (lambda d: d[: HEADER.size + 10], "truncated"),
        (lambda d: d[:-6], "truncated"),
        (lambda d: b"PK" + d[2:], "format"),
        (lambda d: d[:4] + b"\x02" + d[5:], "format"),
        (lambda d: d + b"more", "format"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "format"),
        (lambda d: d[:12] + b"\xff" * 6 + d[18:], "base"),
        (lambda d: d[:16] + struct.pack("<Q", 2**60) + d[24:], "limit"),
        (lambda d: d[:24] + struct.pack("<Q", 2**60) + d[32:], "format"),
        (lambda d: d[:32] + struct.pack("<Q", 2**60) + d[40:], "truncated"),
        (
            lambda d: d[: HEADER.size - 1] + bytes([d[HEADER.size - 1] ^ 1]) + d[HEADER.size :],
            "digest",
        ),
    ],
)
def test_what_is_cut_or_altered_is_refused_with_its_reason(change, reason):
    delta, _ = good()
    with pytest.raises(DeltaError, match="full file") as caught:
        apply(BASE, change(delta))
    assert caught.value.reason == reason


def test_another_base_is_refused():
    delta, _ = good()
    with pytest.raises(DeltaError, match="starts from") as caught:
        apply(BASE[:-1] + b"L", delta)
    assert caught.value.reason == "base"


def test_no_more_is_made_than_the_manifest_says():
    delta, result = good()
    assert apply(BASE, delta, limit=len(result)) == result
    with pytest.raises(DeltaError) as caught:
        apply(BASE, delta, limit=len(result) - 1)
    assert caught.value.reason == "limit"


HUGE = 2**40


@pytest.mark.parametrize(
    "steps",
    [
        [Copy(HUGE, 1)],
        [Copy(0, HUGE)],
        [Literal(HUGE)],
        [Copy(0, 104)] * 3,
        [Scaled(4, (4, 6), (HUGE,) * 2, 1)],
        [Scaled(4, (4, 6), (HUGE,), 1)],
        [Scaled(4, (HUGE,) * 2, (4, 6), 1)],
        [Scaled(100, (4, 6), (4, 6), 24)],
        [Copy(0, 0)] * 600_000,
        "copy",
        [[9, 1]],
        [[0, -1, 5]],
        [[2, 4, [0], [1], 1]],
        [[2, 4, [1] * 9, [1] * 9, 1]],
        [[2, 4, [1], [1], 0]],
        [[1, 2**63]],
    ],
)
def test_steps_that_lie_take_no_memory(steps):
    delta = packed(steps, result=bytes(2**19), result_length=2**19)
    tracemalloc.start()
    try:
        with pytest.raises(DeltaError) as caught:
            apply(BASE, delta)
        assert caught.value.reason == "format"
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_a_stream_that_unpacks_to_much_more_than_it_says_is_stopped():
    parts = zlib.compress(bytes(64 * 2**20))
    lies = {"parts": 100, "packed": len(parts), "result_length": 100}
    delta = packed([], result=b"x", **lies)[: HEADER.size] + parts + zlib.compress(b"")
    tracemalloc.start()
    try:
        with pytest.raises(DeltaError) as caught:
            apply(BASE, delta)
        assert caught.value.reason == "format"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_it_makes_the_promised_model_or_a_typed_error(data):
    delta, result = good()
    kind = data.draw(st.sampled_from(["flip", "cut", "splice", "anything"]))
    if kind == "flip":
        at = data.draw(st.integers(0, len(delta) - 1))
        value = data.draw(st.integers(1, 255))
        delta = delta[:at] + bytes([delta[at] ^ value]) + delta[at + 1 :]
    elif kind == "cut":
        delta = delta[: data.draw(st.integers(0, len(delta) - 1))]
    elif kind == "splice":
        at, noise = data.draw(st.integers(0, len(delta))), data.draw(st.binary(max_size=64))
        delta = delta[:at] + noise + delta[at + data.draw(st.integers(0, 64)) :]
    else:
        delta = data.draw(st.binary(max_size=400))
    try:
        made = apply(BASE, delta)
    except DeltaError:
        return
    assert made == result


step = st.one_of(
    st.builds(Copy, st.integers(0, 120), st.integers(0, 120)),
    st.builds(Literal, st.integers(0, 120)),
    st.builds(
        Scaled,
        st.integers(0, 60),
        st.lists(st.integers(1, 6), max_size=3).map(tuple),
        st.lists(st.integers(1, 6), max_size=3).map(tuple),
        st.integers(1, 50),
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    steps=st.lists(step, max_size=5),
    literals=st.binary(max_size=200),
    codes=st.binary(max_size=200),
    length=st.integers(0, 600),
)
def test_well_formed_nonsense_is_a_typed_error_too(steps, literals, codes, length):
    made = sum(4 * s.size if isinstance(s, Scaled) else s.length for s in steps)
    scales = sum(s.scales for s in steps if isinstance(s, Scaled))
    wanted = sum(s.length for s in steps if isinstance(s, Literal))
    literals = (literals * 4)[:wanted] if wanted <= 4 * len(literals) else literals
    size = sum(s.size for s in steps if isinstance(s, Scaled))
    codes = (codes + bytes(size))[:size]
    lies = {"result_length": made if length % 3 else length, "result": bytes(32)}
    delta = packed(steps, literals, b"\x7f\x7f" * scales, codes, **lies)
    with pytest.raises(DeltaError):
        apply(BASE, delta)
