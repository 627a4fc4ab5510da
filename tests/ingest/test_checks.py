from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.errors import InvalidReading
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.ingest import checks
from edge_agent.ingest.checks import Quality
from edge_agent.settings import IngestSettings

SECOND = 1_000_000
MINUTE = 60 * SECOND


def reading(value=5.0, quantity="wind_speed", sensor="mast"):
    unit = {"wind_speed": "m s-1", "wind_from_direction": "degree"}[quantity]
    return Reading("2016-06-01T00:00:00", sensor, quantity, value, unit)


def flags(values, times, quality=None, **kwargs):
    quality = quality or Quality(IngestSettings())
    return [set(quality.flags(reading(v, **kwargs), t)) for v, t in zip(values, times, strict=True)]


def test_an_ordinary_series_has_no_flags():
    assert flags([1, 2, 3], [0, 10 * MINUTE, 20 * MINUTE]) == [set()] * 3


def test_a_repeat_says_nothing_new_and_does_not_look_stuck():
    found = flags([5.0] * 10, [0] * 10)
    assert found == [set()] + [{"repeat"}] * 9


def test_late_readings_are_out_of_order():
    assert flags([1, 2, 3], [0, 2 * MINUTE, MINUTE])[2] == {"out_of_order"}


def test_a_silence_is_a_gap():
    assert flags([1, 2, 3], [0, 25 * MINUTE, 50 * MINUTE + SECOND])[1:] == [set(), {"gap"}]


def test_equal_values_are_stuck_from_the_sixth_on_until_they_move():
    times = [n * MINUTE for n in range(8)]
    found = flags([170.6] * 7 + [170.7], times, quantity="wind_from_direction")
    assert found == [set()] * 5 + [{"stuck"}] * 2 + [set()]


def test_calm_is_not_stuck():
    assert flags([0.228] * 9, [n * MINUTE for n in range(9)]) == [set()] * 9


def test_what_is_stuck_is_named_and_counted():
    quality = Quality(IngestSettings())
    flags([5.0] * 6, [n * MINUTE for n in range(6)], quality)
    assert quality.stuck() == ["mast/wind_speed"]
    assert quality.counts == {"repeat": 0, "out_of_order": 0, "gap": 0, "stuck": 1}


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(checks, "MAX_SERIES", 3)
    quality = Quality(IngestSettings())
    for sensor in "abcad":
        quality.flags(reading(sensor=sensor), 0)
    assert quality.flags(reading(sensor="a"), 0) == {"repeat"}
    assert quality.flags(reading(sensor="b"), 0) == frozenset()


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1.0, 2.0]))))
def test_a_reading_is_new_exactly_when_it_is_newer_than_all_before(items):
    quality = Quality(IngestSettings())
    newest = -1
    for at, value in items:
        found = quality.flags(reading(value), at * MINUTE)
        assert (at > newest) == (not found & {"repeat", "out_of_order"})
        assert ("repeat" in found) == (at == newest)
        newest = max(newest, at)


def test_a_time_ahead_of_our_clock_is_clock_skew():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ahead = reading()._replace(time=(now + timedelta(seconds=121)).isoformat())
    with pytest.raises(InvalidReading) as caught:
        check_reading(ahead, now.timestamp() + 120)
    assert caught.value.reason == "clock_skew"
    assert check_reading(ahead, now.timestamp() + 121) == now + timedelta(seconds=121)


@pytest.mark.parametrize(
    ("quantity", "unit", "value"),
    [
        ("wind_speed", "m s-1", -0.1),
        ("wind_speed", "m s-1", 100.1),
        ("wind_from_direction", "degree", 361.0),
        ("air_temperature", "degC", 71.0),
        ("relative_humidity", "percent", -1.0),
    ],
)
def test_what_no_sensor_can_measure_is_out_of_range(quantity, unit, value):
    bad = Reading("2016-06-01T00:00:00", "mast", quantity, value, unit)
    with pytest.raises(InvalidReading) as caught:
        check_reading(bad)
    assert caught.value.reason == "range"


def test_the_mast_record_has_one_stuck_vane_and_nothing_else():
    """The run of ten equal directions on file; the next longest is four."""
    from pathlib import Path

    from edge_agent.contracts.observation import instant_us
    from edge_agent.replay import read_record

    quality = Quality(IngestSettings())
    record = Path(__file__).parents[2] / "data/weather/mast_10min.csv"
    for item in read_record(record, "mast"):
        for one in item.readings:
            quality.flags(one, instant_us(datetime.fromisoformat(one.time)))
    assert quality.counts == {"repeat": 0, "out_of_order": 0, "gap": 0, "stuck": 5}
