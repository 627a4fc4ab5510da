import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.observation import Reading
from workflows.steering import cover, from_weather, next_scenarios, recent_winds, training_due

SPEEDS = (0.5, 14.0)
NO_WINDS = np.empty((0, 2))
MAP = MastLogLaw(
    sensor="mast", measurement_height=40.0, reference_height=10.0, roughness_length=0.05
)


@given(st.integers(0, 200), st.integers(0, 20), st.integers(0, 5))
def test_a_stream_goes_on_where_it_stopped(start, count, seed):
    whole = cover("training", 0, start + count, seed, SPEEDS)
    assert cover("training", start, count, seed, SPEEDS) == whole[start:]


def test_streams_are_disjoint():
    streams = [
        {s.content_digest() for s in cover(name, 0, 64, 1, SPEEDS)}
        for name in ("selection", "calibration", "evaluation", "training")
    ]
    assert len(set.union(*streams)) == 4 * 64


def test_the_cover_covers():
    scenarios = cover("training", 0, 64, 1, SPEEDS)
    directions = np.histogram([s.wind_from_direction for s in scenarios], 8, (0, 360))[0]
    assert directions.min() >= 4
    speeds = np.array([s.wind_speed for s in scenarios])
    assert (speeds < 2).any()
    assert (speeds > 12).any()


@given(st.floats(0, 40), st.floats(0, 360), st.integers(0, 1000))
def test_weather_scenarios_stay_in_range(speed, direction, sequence):
    scenario = from_weather(np.array([[speed, direction]]), sequence, 3, SPEEDS)
    assert SPEEDS[0] <= scenario.wind_speed <= SPEEDS[1]
    assert 0 <= scenario.wind_from_direction < 360


@given(st.floats(0, 1), st.integers(0, 50), st.integers(1, 40))
def test_the_share_of_the_cover_holds(explore, start, count):
    winds = np.array([[2.0, 200.0]])
    chosen = next_scenarios(start, count, 1, SPEEDS, winds, explore)
    from_cover = sum(
        s == cover("training", start + i, 1, 1, SPEEDS)[0] for i, s in enumerate(chosen)
    )
    assert abs(from_cover - count * explore) <= 1


def test_without_weather_all_come_from_the_cover():
    assert next_scenarios(5, 8, 1, SPEEDS, NO_WINDS, 0.0) == cover("training", 5, 8, 1, SPEEDS)


def test_recent_winds_are_complete_instants_of_the_last_hours():
    def instant(time, speed, direction):
        return [
            Reading(time, "mast", "wind_from_direction", direction, "degree"),
            Reading(time, "mast", "wind_speed", speed, "m s-1"),
        ]

    readings = [
        *instant("2016-06-01T00:00:00", 9.0, 10.0),
        *instant("2016-06-01T05:00:00", 5.0, 20.0),
        *instant("2016-06-01T06:00:00", 6.0, 30.0)[:1],
    ]
    winds, ages, newest = recent_winds(readings, MAP, hours=2.0)
    assert newest == "2016-06-01T06:00:00"
    assert winds.shape == (1, 2)
    assert winds[0, 1] == np.float32(20.0)
    assert ages == [1.0]
    assert recent_winds([], MAP, 2.0).newest is None


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 50), st.floats(1.01, 3))
def test_training_is_due_only_with_something_new(done, last, first, growth):
    for final in (False, True):
        if training_due(done, last, first, growth, final=final):
            assert done >= first
            assert done > last
    if last > 0 and done > last and done >= first:
        assert training_due(done, last, first, growth, final=True)
