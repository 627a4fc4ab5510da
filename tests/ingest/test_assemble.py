from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.observation import Reading
from edge_agent.ingest import assemble
from edge_agent.ingest.assemble import Assembler
from edge_agent.sensing import Sources
from edge_agent.settings import IngestSettings

MAST = frozenset({("mast", "wind_speed"), ("mast", "wind_from_direction")})
SOURCES = Sources(MAST)
MINUTE = 60_000_000


def one(quantity, value, instant, usable=True, sensor="mast"):
    return (Reading(f"t{instant}", sensor, quantity, value, "?"), instant, usable)


def speed(instant, value=5.0, **kwargs):
    return one("wind_speed", value, instant, **kwargs)


def direction(instant, value=270.0, **kwargs):
    return one("wind_from_direction", value, instant, **kwargs)


def assembler(**kwargs):
    return Assembler(IngestSettings(**kwargs))


def test_a_set_is_used_once_it_is_complete():
    a = assembler()
    assert a.add([speed(0)], SOURCES, 0.0) is None
    found = a.add([direction(500_000)], SOURCES, 0.0)
    assert [r.quantity for r in found.readings] == ["wind_from_direction", "wind_speed"]
    assert found.degraded == ()
    assert a.add([speed(0), direction(0)], SOURCES, 0.0) is None


def test_the_newest_of_several_is_used_and_older_ones_never():
    a = assembler()
    found = a.add(
        [speed(0), direction(0), speed(10 * MINUTE), direction(10 * MINUTE)], SOURCES, 0.0
    )
    assert found.instant == 10 * MINUTE
    assert a.add([speed(5 * MINUTE), direction(5 * MINUTE)], SOURCES, 0.0) is None


def test_other_sensors_and_no_release_give_no_set():
    a = assembler()
    assert a.add([speed(0, sensor="wu30"), direction(0)], SOURCES, 0.0) is None
    assert a.add([speed(0), direction(0)], Sources(), 0.0) is None


def test_the_last_value_stands_in_for_a_missing_sensor_for_a_while():
    a = assembler(wait_seconds=5, hold_seconds=1800)
    a.add([speed(0), direction(0, 200.0)], SOURCES, 0.0)
    for step, at in enumerate((10 * MINUTE, 20 * MINUTE, 30 * MINUTE), 1):
        now = 100.0 * step
        assert a.add([speed(at, 6.0)], SOURCES, now) is None
        assert a.due(SOURCES, now + 4.9) is None
        found = a.due(SOURCES, now + 5.0)
        assert [r.value for r in found.readings] == [200.0, 6.0]
        assert found.degraded == ("mast/wind_from_direction",)
    a.add([speed(40 * MINUTE)], SOURCES, 400.0)
    assert a.due(SOURCES, 405.0) is None
    assert a.missing == 1


def test_a_stuck_sensor_counts_as_missing():
    a = assembler()
    a.add([speed(0), direction(0, 200.0)], SOURCES, 0.0)
    a.add([speed(10 * MINUTE), direction(10 * MINUTE, 170.6, usable=False)], SOURCES, 1.0)
    found = a.due(SOURCES, 10.0)
    assert found.readings[0].value == 200.0
    assert found.degraded == ("mast/wind_from_direction",)


def test_a_complete_set_overtakes_an_incomplete_one():
    a = assembler()
    a.add([speed(0)], SOURCES, 0.0)
    assert a.add([speed(10 * MINUTE), direction(10 * MINUTE)], SOURCES, 0.0)
    assert a.superseded == 1
    assert a.due(SOURCES, 100.0) is None


def test_what_somebody_else_predicted_from_is_not_used_again():
    a = assembler()
    a.predicted(0)
    assert a.add([speed(0), direction(0)], SOURCES, 0.0) is None


def test_incomplete_sets_are_bounded(monkeypatch):
    monkeypatch.setattr(assemble, "MAX_PENDING", 3)
    a = assembler()
    for n in range(10):
        a.add([speed(n * MINUTE)], SOURCES, 0.0)
    assert (len(a._pending), a.superseded) == (3, 7)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=40))
def test_used_sets_only_grow_newer(items):
    a = assembler()
    used = []
    for at, is_speed in items:
        item = speed(at * MINUTE) if is_speed else direction(at * MINUTE)
        found = a.add([item], SOURCES, 0.0)
        if found:
            used.append(found.instant)
    assert used == sorted(set(used))
