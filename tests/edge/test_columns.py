"""What callers may leave out, and what they get to hear if they leave out too much."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.client.tensors import _completed
from edge_agent.columns import Columns, as_given, as_rows
from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.features import SILENT, InputVariable

WIND = ("wind_speed", "wind_from_direction")
COLUMNS = Columns((*WIND, "loss", "width", "sensor"), {"loss": 1.5, "width": 0.0, "sensor": -1.0})
ALL = [4.0, 270.0, 2.0, 3.0, 0.5]
rows = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=5), min_size=1, max_size=4
).map(lambda found: np.array(found, np.float32))
left_out = st.sets(st.sampled_from(COLUMNS.names[2:]))


def test_a_manifest_gives_the_columns_and_their_defaults_as_singles():
    found = Columns.of(
        [
            InputVariable(name="wind_speed", unit="m s-1", minimum=0, maximum=9),
            InputVariable(name="loss", unit="1", minimum=0, maximum=9, default=0.1),
            InputVariable(name="sensor", unit="m s-1", minimum=-1, maximum=9, default=SILENT),
        ]
    )
    assert found == (
        ("wind_speed", "loss", "sensor"),
        {"loss": float(np.float32(0.1)), "sensor": -1.0},
    )
    assert found.required == ("wind_speed",)


def test_singles_of_all_columns_are_taken_as_they_are():
    whole = np.array([ALL], np.float32)
    assert as_rows(whole, COLUMNS, 8) is whole
    assert as_rows(whole[0], COLUMNS, 8).base is whole


@given(rows, left_out)
def test_what_is_left_out_is_the_same_by_name_by_array_and_over_the_wire(whole, missing):
    names = [n for n in COLUMNS.names if n not in missing]
    expected = whole.copy()
    for name in missing:
        expected[:, COLUMNS.names.index(name)] = COLUMNS.defaults[name]
    part = np.ascontiguousarray(whole[:, [COLUMNS.names.index(n) for n in names]])
    by_name = dict(zip(names, part.T, strict=True))
    sent, said = as_given(by_name, COLUMNS, 8)
    assert list(said) == names
    for found in (
        as_rows(by_name, COLUMNS, 8),
        as_rows(dict(reversed(by_name.items())), COLUMNS, 8),
        as_rows(part, COLUMNS, 8, names),
        as_rows(part.tolist(), COLUMNS, 8, names),
        as_rows(sent, COLUMNS, 8, said),
        _completed(sent, COLUMNS.told(said)),
    ):
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found, expected)


@given(rows)
def test_an_array_holds_all_columns_or_those_without_a_default(whole):
    np.testing.assert_array_equal(as_rows(whole.tolist(), COLUMNS, 8), whole)
    required = as_rows(whole[:, :2], COLUMNS, 8)
    np.testing.assert_array_equal(required[:, :2], whole[:, :2])
    assert np.all(required[:, 2:] == [1.5, 0.0, -1.0])
    sent, said = as_given(whole[:, :2], COLUMNS, 8)
    assert (sent.shape[1], said) == (2, WIND)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"wind_speed": 4.0, "loss": 2.0}, "'wind_from_direction' is missing; the release takes"),
        ({"speed": 4.0}, r"unknown input 'speed'.*left out: loss \(1.5\), width \(0\), sensor"),
        ([4.0, 270.0, 2.0], r"expected \(batch, 5\): wind_speed.*; or \(batch, 2\): wind_speed"),
        ([np.nan, 270.0], "'wind_speed' of row 0"),
        ([[*ALL], [4.0, 270.0, 2.0, np.inf, 0.5]], "'width' of row 1"),
        ({"wind_speed": 4.0, "wind_from_direction": 270.0, "sensor": 1e300}, "'sensor' of row 0"),
        (np.ones((9, 2)), "batch of 9; at most 8"),
    ],
)
def test_errors_say_what_may_be_given(inputs, match):
    for take in (as_rows, as_given):
        with pytest.raises(InvalidInput, match=match):
            take(inputs, COLUMNS, 8)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["wind_from_direction", "wind_speed"], "not in order"),
        (["wind_speed", "wind_speed", "wind_from_direction"], "not in order"),
        (["wind_speed", "loss"], "'wind_from_direction' is missing"),
        ([*WIND, "hole"], "unknown input 'hole'"),
        ([*WIND, None], "unknown input None"),
        ([*WIND, "loss"], r"expected \(batch, 3\): wind_speed, wind_from_direction, loss"),
        (["wind_speed", [], {}], "unknown input"),
    ],
)
def test_names_must_be_the_releases_in_order_and_fit_the_array(names, match):
    with pytest.raises(InvalidInput, match=match):
        as_rows([[4.0, 270.0]], COLUMNS, 8, names)
