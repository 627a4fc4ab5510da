import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.backfill.replay.calendar import Always, DayAndNight, earliest
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.scheduler import Conservative, Easy
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.swf import Job

PROCS = 8
BOTH = pytest.mark.parametrize("kind", [Easy, Conservative])


def job(number, submit, procs, request, run=None):
    return Job(number, float(submit), procs, float(request), float(run or request))


def starts(kind, *jobs, procs=PROCS, calendar=None):
    machine = Machine(kind(procs, calendar), jobs)
    machine.run(1e7)
    return [machine.starts[j.number] for j in sorted(jobs, key=lambda j: j.number)]


@BOTH
def test_a_short_job_goes_before_a_wide_one_that_waits(kind):
    jobs = job(1, 0, 6, 100), job(2, 1, 8, 50), job(3, 2, 2, 90)
    assert starts(kind, *jobs) == [0, 100, 2]


@BOTH
def test_a_job_that_would_delay_the_first_waits(kind):
    jobs = job(1, 0, 6, 100), job(2, 1, 8, 50), job(3, 2, 2, 99)
    assert starts(kind, *jobs) == [0, 100, 150]


@BOTH
def test_spare_processors_may_be_held_beyond_the_reservation(kind):
    jobs = job(1, 0, 6, 100), job(2, 1, 7, 50), job(3, 2, 1, 500), job(4, 3, 1, 500)
    assert starts(kind, *jobs) == [0, 100, 2, 150]


@BOTH
def test_an_early_end_lets_the_next_start(kind):
    jobs = job(1, 0, 8, 100, run=10), job(2, 1, 8, 50)
    assert starts(kind, *jobs) == [0, 10]


def test_only_conservative_keeps_the_second_in_the_queue_its_place():
    # At 2, job 4 fits beside job 1 and beside the first in the queue, but not beside the second.
    jobs = job(1, 0, 4, 100), job(2, 1, 6, 100), job(3, 1, 8, 100), job(4, 2, 2, 250)
    assert starts(Easy, *jobs) == [0, 100, 252, 2]
    assert starts(Conservative, *jobs) == [0, 100, 200, 300]


def test_day_and_night():
    monday = 4 * 86400  # 5 January 1970
    rule = DayAndNight(unix_start=monday)
    hour = 3600.0
    assert rule.longest(8 * hour) == 4 * hour
    assert rule.longest(15 * hour) == hour
    assert rule.longest(16 * hour) == 15 * hour
    assert rule.longest((4 * 24 + 17) * hour) == 62 * hour
    assert earliest(rule, 8 * hour, 5 * hour) == 16 * hour
    assert earliest(rule, 8 * hour, 20 * hour) == (4 * 24 + 16) * hour
    assert earliest(rule, 8 * hour, 1e6) == (4 * 24 + 16) * hour
    assert starts(Easy, job(1, 8 * hour, 1, 5 * hour), calendar=rule) == [16 * hour]
    assert starts(Conservative, job(1, 8 * hour, 1, 5 * hour), calendar=rule) == [16 * hour]


def test_profile():
    profile = Profile(0, 10)
    profile.take(5, 9, 7)
    profile.take(7, 20, 3)
    assert profile.free.tolist() == [10, 3, 0, 7, 10]
    assert profile.earliest(4, 5) == 0
    assert profile.earliest(4, 6) == 9
    assert profile.earliest(8, 6) == 20
    assert profile.earliest(3, 7, after=1) == 9
    ends, procs = profile.least()
    assert (ends.tolist(), procs.tolist()) == ([5, 7, math.inf], [10, 3, 0])
    profile.take(5, 9, -7)
    profile.advance(8)
    assert (profile.times.tolist(), profile.free.tolist()) == ([8, 20], [7, 10])


def test_least_of_an_empty_machine_never_ends():
    ends, procs = Profile(3, 10).least()
    assert (ends.tolist(), procs.tolist()) == ([math.inf], [10])


@st.composite
def traces(draw):
    jobs, submit = [], 0
    for number in range(1, draw(st.integers(1, 25)) + 1):
        submit += draw(st.integers(0, 40))
        run = draw(st.integers(1, 60))
        request = run + draw(st.integers(0, 60))
        jobs.append(job(number, submit, draw(st.integers(1, PROCS)), request, run))
    return tuple(jobs)


class Watched:
    """Records every promise of a scheduler's passes."""

    def __init__(self, scheduler):
        self.scheduler, self.promises = scheduler, []

    def __getattr__(self, name):
        if name in ("scheduler", "promises"):
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def start(self, now):
        started = self.scheduler.start(now)
        if isinstance(self.scheduler, Easy):
            self.promises.append([self.scheduler.promise] if self.scheduler.promise else [])
        else:
            self.promises.append(list(self.scheduler.planned.items()))
        return started


CALENDARS = st.sampled_from([Always(), DayAndNight(0, 20, 60, 50)])


@BOTH
@settings(max_examples=40)
@given(jobs=traces(), calendar=CALENDARS)
def test_schedules_are_sound(kind, jobs, calendar):
    machine = Machine(Watched(kind(PROCS, calendar)), jobs)
    machine.run(1e7)
    by_number = {j.number: j for j in jobs}
    assert machine.starts.keys() == machine.ends.keys() == by_number.keys()
    for at in machine.starts.values():
        used = sum(j.procs for n, j in by_number.items() if machine.starts[n] <= at
                   < machine.ends[n])  # fmt: skip
        assert used <= PROCS
    for number, j in by_number.items():
        assert machine.starts[number] >= j.submit
        assert machine.ends[number] - machine.starts[number] == j.run
        assert j.request <= calendar.longest(machine.starts[number])
    # A promise is never broken: to the first in the queue (EASY), to everybody (conservative).
    promised = {}
    for pass_ in machine.scheduler.promises:
        for number, at in pass_:
            assert at <= promised.get(number, math.inf)
            promised[number] = at
    for number, at in promised.items():
        assert machine.starts[number] <= at


@BOTH
@settings(max_examples=40)
@given(jobs=traces())
def test_first_come_first_served_where_nothing_can_be_filled_in(kind, jobs):
    # Of one length as well: early ends leave holes that a shorter job may fill.
    wide = tuple(job(j.number, j.submit, PROCS, 120, j.run) for j in jobs)
    found = starts(kind, *wide)
    assert found == sorted(found)


@BOTH
@settings(max_examples=40)
@given(jobs=traces(), cut=st.integers(0, 1000))
def test_goes_on_from_a_snapshot_as_if_nothing_had_been(kind, jobs, cut):
    whole = Machine(kind(PROCS), jobs)
    whole.run(1e7)
    first = Machine(kind(PROCS), jobs)
    first.run(cut)
    second = Machine(None, jobs, first.snapshot())
    second.run(1e7)
    assert first.starts | second.starts == whole.starts
    assert not first.starts.keys() & second.starts.keys()


@settings(max_examples=40)
@given(jobs=traces())
def test_the_plan_leaves_what_is_promised(jobs):
    machine = Machine(Conservative(PROCS), jobs)
    machine.run(jobs[-1].submit + 0.5)  # between the events
    plan = machine.scheduler.plan(machine.now)
    assert plan.free.min() >= 0
    assert plan.free[0] <= machine.scheduler.idle
    assert np.all(np.diff(plan.times) > 0)
    assert plan.free[-1] == PROCS


@BOTH
def test_a_cancelled_job_leaves_nothing_behind(kind):
    machine = Machine(kind(PROCS), (job(1, 0, 8, 100),))
    machine.run(1)
    waiting, behind = job(2, 1, 8, 50), job(3, 1, 8, 50)
    machine.submit(waiting)
    machine.submit(behind)
    machine.run(10)
    machine.cancel(waiting)
    machine.run(1000)
    assert machine.starts == {1: 0, 3: 100}
    assert machine.scheduler.idle == PROCS
