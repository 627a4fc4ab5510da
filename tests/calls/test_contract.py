import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.calls.contract import (
    Call,
    Outcome,
    decode_call,
    error_from,
    failure_of,
    issued_at,
    joined,
    new_request_id,
    pack,
    part_id,
    prediction_from,
    prediction_json,
    unpack,
)
from edge_agent.contracts.errors import (
    InvalidInput,
    NoSuchRelease,
    PayloadTooLarge,
    ProtocolError,
    RbfError,
)
from edge_agent.prediction import Prediction

FIELDS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.just(3), *[st.integers(1, 4)] * 3),
    elements=st.floats(width=32, allow_nan=False),
)


def prediction(wind, version=1):
    return Prediction(
        version=version,
        wind=wind,
        wind_std=np.abs(wind),
        out_of_range=np.arange(len(wind)) % 2 == 0,
        staleness_seconds=None,
        interval_factor=1.5,
        data_time="2016-06-01T00:00:00",
        wall_time=1e9,
        inputs=np.full((len(wind), 2), 0.1, np.float32),
        diagnostics={"distance": np.float32([np.nan, 0.1, 3e38])[: len(wind)]},
    )


@given(FIELDS)
def test_a_prediction_comes_through_json_bit_for_bit(wind):
    made = prediction(wind)
    through = msgspec.json.decode(msgspec.json.encode(prediction_json(made)))
    found = prediction_from(through, made.inputs[:, :1])
    for name in ("wind", "wind_std", "out_of_range", "inputs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert found.diagnostics.keys() == {"distance"}
    np.testing.assert_array_equal(found.diagnostics["distance"], made.diagnostics["distance"])
    assert (found.version, found.data_time, found.staleness_seconds) == (1, made.data_time, None)


@given(FIELDS, st.data())
def test_a_damaged_prediction_is_a_protocol_error(wind, data):
    whole = prediction_json(prediction(wind))
    name = data.draw(st.sampled_from(sorted(whole)))
    damaged = data.draw(st.sampled_from([None, "x", {}, {"shape": [7], "data": "eJw="}, [[]]]))
    changed = whole | {name: damaged}
    with contextlib.suppress(ProtocolError):
        prediction_from(changed, np.zeros((len(wind), 2), np.float32))


def test_an_agent_that_says_neither_inputs_nor_diagnostics_is_understood():
    made = prediction(np.ones((1, 3, 1, 1, 1), np.float32))
    whole = prediction_json(made)
    del whole["inputs"], whole["diagnostics"]
    found = prediction_from(whole, made.inputs)
    assert (found.inputs is made.inputs, found.diagnostics) == (True, {})


def test_parts_of_two_releases_are_no_field():
    wind = np.ones((2, 3, 1, 1, 1), np.float32)
    both = joined([prediction(wind), prediction(wind[:1])])
    assert both.wind.shape[0] == both.inputs.shape[0] == both.diagnostics["distance"].shape[0] == 3
    with pytest.raises(ProtocolError, match="ask again"):
        joined([prediction(wind, 1), prediction(wind, 2)])


@given(st.floats(0, 2**47 / 1000), st.integers(1, 9))
def test_identifiers_hold_their_time(now, parts):
    made = new_request_id(now)
    assert issued_at(made) == pytest.approx(now, abs=1e-3)
    ids = [part_id(made, i, parts) for i in range(parts)]
    assert ids == [part_id(made, i, parts) for i in range(parts)]
    assert len({made, *ids}) == parts + 1
    assert {issued_at(i) for i in ids} == {issued_at(made)}


@pytest.mark.parametrize(
    "text",
    ["", "x", "11111111-1111-4111-8111-111111111111", new_request_id(1e9).upper(), 5, None],
    ids=["empty", "short", "version 4", "upper case", "number", "none"],  # equal in every process
)
def test_other_identifiers_are_refused(text):
    with pytest.raises(InvalidInput, match="version 7"):
        issued_at(text)


def test_errors_come_back_as_they_were():
    for error in (
        NoSuchRelease("none", version=3, sizes=[1]),
        PayloadTooLarge("large", size=9, limit=3),
    ):
        data = msgspec.json.decode(
            msgspec.json.encode(failure_of(error)), type=type(failure_of(error))
        )
        found = error_from(data)
        assert type(found) is type(error)
        assert str(found) == str(error)
        assert found.data == {k: v for k, v in error.data.items() if k != "sizes"}
    strange = failure_of(ZeroDivisionError("secret"))
    assert "secret" not in strange.message
    assert type(error_from(msgspec.structs.replace(strange, kind="SystemExit"))) is RbfError
    with pytest.raises(NoSuchRelease):
        Outcome(failure=failure_of(NoSuchRelease("none"))).unwrap()
    with pytest.raises(ProtocolError):
        Outcome().unwrap()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"command": 3}',
        b'{"command": "rm"}',
        b'{"command": "pull", "x": 1}',
        b"\xff",
    ],
)
def test_what_is_no_call_is_refused(body):
    with pytest.raises(InvalidInput):
        decode_call(body)


def test_a_digest_tells_calls_apart():
    calls = [
        Call(command="predict", arguments={"inputs": [[1, 2]]}),
        Call(command="predict", arguments={"inputs": [[1, 3]]}),
        Call(command="rollback"),
    ]
    assert len({c.digest() for c in calls}) == 3
    swapped = [Call(command="pull", arguments=a) for a in ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    assert swapped[0].digest() == swapped[1].digest()


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4)))
def test_packing_keeps_every_bit(array):
    np.testing.assert_array_equal(unpack(pack(array)).view(np.uint32), array.view(np.uint32))
