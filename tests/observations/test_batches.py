import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.errors import InvalidBatch
from edge_agent.contracts.observation import (
    Batch,
    PackedBatch,
    SpooledReading,
    as_series,
    batch_name,
    digest_of_name,
    pack,
    unpack,
)

READINGS = st.lists(
    st.builds(
        SpooledReading,
        st.integers(1, 10**9),
        st.text(max_size=20),
        st.sampled_from(["mast", "wu30", "ß"]),
        st.sampled_from(["wind_speed", "air_temperature"]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.just("m s-1"),
        st.floats(0, 2e9),
    ),
    unique_by=lambda r: r.sequence,
    max_size=30,
)


def batch(readings=(), number=1):
    return Batch(site="house", spool="ab" * 16, number=number, series=as_series(readings))


@given(READINGS)
def test_a_batch_comes_back_as_it_was(readings):
    readings = sorted(readings)
    assert unpack(pack(batch(readings))).readings() == readings


def test_equal_batches_have_equal_digests_and_others_have_others():
    rows = [SpooledReading(1, "2016-06-01T00:00:00", "mast", "wind_speed", 5.0, "m s-1", 1.0)]
    assert pack(batch(rows)).digest == pack(batch(rows)).digest
    assert pack(batch(rows)).digest != pack(batch(rows, number=2)).digest


def packed(document, digest=None):
    from edge_agent.contracts.model import sha256

    return PackedBatch(digest or sha256(document), zlib.compress(document))


def ragged():
    one = msgspec.to_builtins(batch([SpooledReading(1, "t", "s", "q", 1.0, "u", 1.0)]))
    one["series"][0]["value"] = []
    return msgspec.json.encode(one)


@pytest.mark.parametrize(
    "bad",
    [
        PackedBatch("0" * 64, b"not zlib"),
        packed(b"{}"),
        packed(b"[" * 100_000),
        packed(b"x", digest="0" * 64),
        packed(ragged()),
        packed(b"0" * (65 * 2**20)),
        PackedBatch(*pack(batch())[:1], pack(batch()).data + b"more"),
        PackedBatch(*pack(batch())[:1], pack(batch()).data[:-3]),
        packed(msgspec.json.encode({**msgspec.to_builtins(batch()), "format": "rbf/9"})),
    ],
)
def test_what_is_no_batch_is_refused(bad):
    with pytest.raises(InvalidBatch):
        unpack(bad)


def test_names_sort_by_number_and_carry_the_digest():
    assert batch_name("ab", 9) < batch_name("aa", 10)
    assert digest_of_name(batch_name("ab", 9)) == "ab"
