import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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


HOUSE = Sources(MAST, frozenset({("a", "wind_speed"), ("b", "wind_speed")}))


def mast(instant):
    return [speed(instant), direction(instant)]


def inside(sensor, instant, value=1.0, **kwargs):
    return speed(instant, value, sensor=sensor, **kwargs)


def sensors(found):
    return [r.sensor for r in found.readings if r.sensor != "mast"]


class TestInteriorSensors:
    def test_a_set_with_all_of_them_is_used_at_once_in_whatever_order(self):
        items = [*mast(0), inside("a", 0), inside("b", 500_000)]
        for order in itertools.permutations(items):
            a = assembler()
            *first, last = order
            assert all(a.add([item], HOUSE, 0.0) is None for item in first)
            found = a.add([last], HOUSE, 0.0)
            assert (sensors(found), found.degraded) == (["a", "b"], ())

    def test_one_push_is_one_look(self):
        """However the readings of a push are ordered, none of them comes too late."""
        for sources in (HOUSE, Sources(MAST, HOUSE.optional | {("c", "wind_speed")})):
            a = assembler()
            a._silent_since = dict.fromkeys(sources.optional, -(10**12))  # given up
            found = a.add([*mast(0), inside("a", 0), inside("b", 0)], sources, 0.0)
            assert sensors(found) == ["a", "b"]

    def test_are_waited_for_and_then_done_without(self):
        a = assembler(wait_seconds=5)
        assert a.add([*mast(0), inside("a", 0)], HOUSE, 0.0) is None
        assert a.due(HOUSE, 4.9) is None
        found = a.due(HOUSE, 5.0)
        assert (sensors(found), found.degraded) == (["a"], ())
        assert (a.missing, a.superseded) == (0, 0)

    def test_nothing_stands_in_for_one(self):
        a = assembler()
        a.add([*mast(0), inside("a", 0), inside("b", 0)], HOUSE, 0.0)
        a.add([speed(10 * MINUTE), inside("a", 10 * MINUTE)], HOUSE, 10.0)
        found = a.due(HOUSE, 20.0)
        assert sensors(found) == ["a"]
        assert found.degraded == ("mast/wind_from_direction",)

    def test_a_stuck_one_counts_as_missing(self):
        a = assembler()
        a.add([*mast(0), inside("a", 0), inside("b", 0, usable=False)], HOUSE, 0.0)
        assert sensors(a.due(HOUSE, 5.0)) == ["a"]

    def test_alone_they_ask_for_nothing_and_wait_for_the_mast(self):
        a = assembler(wait_seconds=5)
        a.add(mast(0), HOUSE, 0.0)
        a.due(HOUSE, 5.0)
        for minute in range(1, 10):
            a.add([inside("a", minute * MINUTE), inside("b", minute * MINUTE)], HOUSE, 60 * minute)
            assert a.due(HOUSE, 60.0 * minute + 50) is None
        # A logger that is slow with its means finds what came before them.
        a.add([inside("a", 10 * MINUTE), inside("b", 10 * MINUTE)], HOUSE, 600.0)
        found = a.add(mast(10 * MINUTE), HOUSE, 640.0)
        assert sensors(found) == ["a", "b"]
        assert (a.missing, a.superseded, len(a._pending)) == (0, 0, 0)

    def test_the_wait_begins_with_the_mast(self):
        a = assembler(wait_seconds=5)
        a.add([inside("a", 0)], HOUSE, 0.0)
        a.add(mast(0), HOUSE, 100.0)
        assert a.due(HOUSE, 104.0) is None
        assert sensors(a.due(HOUSE, 105.0)) == ["a"]

    def test_one_that_stays_away_is_given_up_until_it_is_heard_again(self):
        a = assembler(wait_seconds=5, hold_seconds=1800)
        waited = []
        for step in range(6):
            at, now = 10 * MINUTE * step, 100.0 * step
            found = a.add([*mast(at), inside("a", at)], HOUSE, now)
            waited.append(found is None)
            if found is None:
                assert a.due(HOUSE, now + 5.0).instant == at
        assert waited == [True, True, True, True, False, False]
        # Too late for this set, and waited for again.
        assert a.add([inside("b", 50 * MINUTE - 400_000)], HOUSE, 501.0) is None
        assert a.add([*mast(60 * MINUTE), inside("a", 60 * MINUTE)], HOUSE, 600.0) is None
        assert sensors(a.add([inside("b", 60 * MINUTE)], HOUSE, 601.0)) == ["a", "b"]

    def test_who_has_spoken_for_a_later_set_is_not_given_up_for_an_earlier_one(self):
        a = assembler(hold_seconds=1)
        later = [speed(10 * MINUTE), inside("b", 10 * MINUTE)]
        a.add([*mast(0), inside("a", 0), *later], HOUSE, 0.0)
        a.due(HOUSE, 5.0)
        assert a._silent_since == {}

    def test_one_whose_clock_is_wrong_is_given_up_too(self):
        a = assembler(wait_seconds=5, hold_seconds=60)
        for minute in range(0, 40, 10):
            at = minute * MINUTE
            skewed = inside("b", at + 30_000_000)
            found = a.add([*mast(at), inside("a", at), skewed], HOUSE, 60.0 * minute)
            assert (found is None) == (minute == 0)
            a.due(HOUSE, 60.0 * minute + 5)

    def test_a_fast_replay_does_not_stand_still_for_a_dead_one(self):
        """More sets come within the wait than may wait."""
        a = assembler()
        used = [
            found.instant
            for n in range(200)
            if (found := a.add([*mast(n * MINUTE), inside("a", n * MINUTE)], HOUSE, 0.001 * n))
        ]
        assert used == [n * MINUTE for n in range(assemble.MAX_PENDING, 200)]

    def test_many_of_their_readings_push_out_no_set_of_the_mast(self):
        a = assembler()
        a.add(mast(0), HOUSE, 0.0)
        for second in range(2, 500):
            a.add([inside("a", second * 1_000_000 + 1)], HOUSE, 1.0)
        assert len(a._pending) <= assemble.MAX_PENDING
        assert a.due(HOUSE, 5.0).instant == 0
        assert a.superseded == 0

    def test_a_release_that_takes_others_finds_what_waits(self):
        a = assembler()
        a.add([*mast(0), inside("a", 0)], HOUSE, 0.0)
        assert a.add([inside("z", 0)], SOURCES, 1.0).instant == 0


class Assembly(RuleBasedStateMachine):
    """Readings in any order, on time, late, stuck or never; looks at any time."""

    @initialize(hold=st.sampled_from([60, 1800, 10**6]))
    def begin(self, hold):
        self.assembler = assembler(wait_seconds=5, hold_seconds=hold)
        self.hold = hold * 1_000_000
        self.now = 0.0
        self.used: list[int] = []
        self.came: dict[int, dict] = {}
        """Usable readings of each instant that were not too late for it."""
        self.since: dict[int, float] = {}

    @rule(
        items=st.lists(
            st.tuples(st.sampled_from(sorted(MAST | HOUSE.optional)), st.integers(0, 9),
                      st.sampled_from([True, True, True, False])),
            min_size=1, max_size=4,
        )
    )  # fmt: skip
    def readings_come(self, items):
        given_ = []
        for (sensor, quantity), step, usable in items:
            at = 10 * MINUTE * step
            given_.append(one(quantity, 1.0, at, usable, sensor))
            source = (sensor, quantity)
            if self.used and at <= self.used[-1]:
                continue
            if source in MAST:
                self.since.setdefault(at, self.now)
            if usable:
                self.came.setdefault(at, {}).setdefault(source, given_[-1][0])
        found = self.assembler.add(given_, HOUSE, self.now)
        if found is not None:
            assert found.degraded == (), "what is complete needs no stand-in"
            self.take(found)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 6.0]))
    def time_passes(self, seconds):
        self.now += seconds
        while (found := self.assembler.due(HOUSE, self.now)) is not None:
            assert self.now - self.since[found.instant] >= 5.0
            self.take(found)
        late = {at for at, since in self.since.items() if self.now - since >= 5.0}
        assert not late & {p.instant for p in self.assembler._pending}, "nothing waits longer"
        for at in late:  # given up; what still comes begins anew
            self.came.pop(at, None)
            del self.since[at]

    @rule(step=st.integers(0, 9))
    def somebody_else_predicts(self, step):
        self.assembler.predicted(10 * MINUTE * step)
        self.used.append(max([10 * MINUTE * step, *self.used]))

    def take(self, found):
        assert not self.used or found.instant > self.used[-1], "sets only grow newer"
        self.used.append(found.instant)
        came = self.came.get(found.instant, {})
        assert any(s in MAST for s in came) or found.degraded, "interior sensors ask for nothing"
        stood_in = set()
        for reading in found.readings:
            source = (reading.sensor, reading.quantity)
            if came.get(source) == reading:
                continue
            assert source in MAST, "nothing stands in for an interior sensor"
            assert 0 <= found.instant - int(reading.time[1:]) <= self.hold
            stood_in.add("/".join(source))
        assert set(found.degraded) == stood_in
        sources = {(r.sensor, r.quantity) for r in found.readings}
        assert len(sources) == len(found.readings)
        assert sources >= MAST
        assert sources & HOUSE.optional == came.keys() & HOUSE.optional, "no reading is lost"

    @invariant()
    def what_waits_is_ahead_of_what_was_used(self):
        pending = [p.instant for p in self.assembler._pending]
        assert len(set(pending)) == len(pending)
        assert not self.used or all(at > self.used[-1] for at in pending)


TestAssembly = Assembly.TestCase
TestAssembly.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
