import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backfill_replay.test_scheduler import PROCS, job, traces
from workflows.backfill.replay.calendar import Always, DayAndNight
from workflows.backfill.replay.nodes import choose, runs
from workflows.backfill.replay.recorded import read_replays, rows_of, write_replays
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.slurm import Slurm, SlurmParameters
from workflows.backfill.replay.swf import TraceError
from workflows.backfill.replay.timetable import Timetable
from workflows.backfill.replay.validation import SCHEDULERS

RECORDED = Path(__file__).resolve().parents[2] / "data" / "reference" / "slurm_starts.json.gz"
OFTEN = SlurmParameters(interval=7)


def starts(*jobs, calendar=None, parameters=None):
    machine = Machine(Slurm(PROCS, calendar, parameters), jobs)
    machine.run(1e7)
    return [machine.starts[j.number] for j in sorted(jobs, key=lambda j: j.number)]


def bits(text):
    return int(text.replace(" ", "")[::-1], 2)


def test_runs_of_nodes():
    assert list(runs(0)) == []
    assert list(runs(bits("0110 1"))) == [bits("0110 0"), bits("0000 1")]


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        ("1111 0011 0111", 2, "0000 0011 0000"),  # the tightest
        ("1110 0011 0111", 3, "1110 0000 0000"),  # the lowest of equals
        ("1111 0000 0000", 2, "1100 0000 0000"),  # from the low end
        ("1100 1110 1011", 4, "0000 1110 1000"),  # the longest first, then the tightest
        ("1010 1010 1011", 3, "1000 0000 0011"),
    ],
)
def test_slurm_fits_runs_of_nodes_best(free, count, chosen):
    assert choose(bits(free), count) == bits(chosen)


@given(free=st.integers(0, 2**40 - 1), count=st.integers(1, 40))
def test_chosen_nodes_are_free_and_in_one_piece_if_they_can_be(free, count):
    if count > free.bit_count():
        with pytest.raises(ValueError, match="nodes"):
            choose(free, count)
        return
    chosen = choose(free, count)
    assert chosen & ~free == 0
    assert chosen.bit_count() == count
    if any(run.bit_count() >= count for run in runs(free)):
        assert len(list(runs(chosen))) == 1


TIMES = st.integers(0, 60)


@given(
    promises=st.lists(st.tuples(TIMES, st.integers(1, 20), st.integers(1, 255)), max_size=6),
    start=TIMES,
    length=st.integers(1, 30),
)
def test_a_timetable_knows_whom_it_promised_what(promises, start, length):
    table, end = Timetable(0, 100, 255), start + length
    kept = []
    for begin, lasts, nodes in promises:
        if not table.promised(nodes, begin, begin + lasts):
            table.promise(nodes, begin, begin + lasts)
            kept.append((begin, begin + lasts, nodes))
    assert [s.end for s in table.steps[:-1]] == [s.begin for s in table.steps[1:]]
    free, later = table.free(255, start, end)
    taken = 0
    for begin, until, nodes in kept:
        if until > start and begin <= end:
            taken |= nodes
    assert free == 255 & ~taken

    def gained(at):
        return table.free(255, at, at)[0] & ~table.free(255, start, at)[0]

    # Until `later`, or the end, no node becomes free that was not from the start on; then one does.
    assert not any(gained(at) for at in range(start, int(min(later, end + 1))))
    assert later == math.inf or gained(later)
    for until, number in table.kept(255, start):
        assert number == table.free(255, start, until - 0.5)[0].bit_count()


def test_backfill_comes_with_the_next_cycle_and_not_before():
    # The first in the queue cannot start, so the main scheduler passes nobody else.
    jobs = job(1, 0, 6, 100), job(2, 1, 8, 50), job(3, 2, 2, 60)
    assert starts(*jobs) == [0, 100, 31]
    # At 2 it would fit, at the cycle of 31 no longer.
    assert starts(job(1, 0, 6, 100), job(2, 1, 8, 50), job(3, 2, 2, 97)) == [0, 100, 150]


def test_what_is_promised_are_nodes_and_not_a_number_of_them():
    # Eight nodes, two of them idle beside job 1; job 2 is promised one of the two. The other may
    # be held beyond.
    jobs = job(1, 0, 6, 100), job(2, 1, 7, 50), job(3, 2, 1, 500), job(4, 3, 1, 500)
    machine = Machine(Slurm(PROCS), jobs)
    machine.run(60)
    assert machine.starts == {1: 0, 3: 31}
    scheduler = machine.scheduler
    assert scheduler.promises[2] == (100, bits("1111 1110"))
    assert scheduler.nodes[3] == bits("0000 0001")
    plan = scheduler.plan(60)
    assert (plan.times.tolist(), plan.free.tolist()) == ([60, 100], [1, 0])


def test_ends_of_running_jobs_are_taken_together_in_windows():
    # The ends at 100 and 145 lie in one window, which closes 30 s after 120: what needs the first
    # of them only is promised for the second.
    jobs = job(1, 0, 4, 100), job(2, 0, 3, 145), job(3, 1, 5, 50), job(4, 2, 8, 10)
    machine = Machine(Slurm(PROCS), jobs)
    machine.run(31)
    assert machine.scheduler.promises[3][0] == 145
    machine.run(1e6)
    assert machine.starts[3] == 100  # The main scheduler does not wait for it.


def test_who_may_not_start_yet_is_passed_over():
    rule = DayAndNight(0, 20, 60, 50)
    assert starts(job(1, 25, 4, 60), job(2, 26, 4, 10), calendar=rule) == [85, 26]


class Watched(Slurm):
    """Checks every cycle's promises, and whom it starts."""

    def _cycle(self, now):
        waited = list(self._queue)
        started = super()._cycle(now)
        # Promises are rounded down: of one second they are exact.
        rounding = self._parameters.resolution - 1
        rank = {number: at for at, number in enumerate(waited)}
        held = {j.number: (now, now + j.request, self.nodes[j.number]) for j in started}
        requests = {number: self._queue[number].request for number in self.promises}
        held |= {n: (at, at + requests[n], nodes) for n, (at, nodes) in self.promises.items()}
        for first in held:
            for second in held:
                if rank[first] < rank[second]:
                    (a, b, nodes), (c, d, others) = held[first], held[second]
                    apart = b <= c + rounding or d <= a + rounding
                    assert apart or nodes & others == 0
        # Nobody is promised what is held for longer, and nobody later than when all have ended.
        last = max(self._ends.values(), default=now)
        for number, (at, nodes) in self.promises.items():
            for runs_, end in self._ends.items():
                assert nodes & self.nodes[runs_] == 0 or end <= at
            if isinstance(self._calendar, Always) and number == waited[0]:
                assert at <= last
        return started


@settings(max_examples=60)
@given(
    jobs=traces(),
    calendar=st.sampled_from([Always(), DayAndNight(0, 20, 60, 50)]),
    parameters=st.sampled_from([OFTEN, SlurmParameters(), SlurmParameters(resolution=60)]),
)
def test_schedules_are_sound(jobs, calendar, parameters):
    machine = Machine(Watched(PROCS, calendar, parameters), jobs)
    held = {}

    def on_start(j):
        nodes = machine.scheduler.nodes[j.number]
        assert nodes.bit_count() == j.procs
        held[j.number] = nodes

    machine.on_start = on_start
    machine.run(1e7)
    by_number = {j.number: j for j in jobs}
    assert machine.starts.keys() == machine.ends.keys() == by_number.keys()
    for number, j in by_number.items():
        assert machine.starts[number] >= j.submit
        assert machine.ends[number] - machine.starts[number] == j.run
        assert j.request <= calendar.longest(machine.starts[number])
        for other in by_number:
            if (
                other != number
                and machine.starts[other] <= machine.starts[number] < (machine.ends[other])
            ):
                assert held[number] & held[other] == 0


@given(jobs=traces())
def test_a_promise_to_the_first_in_the_queue_holds_until_it_is_planned_anew(jobs):
    jobs = tuple(replace(j, submit=0.0) for j in jobs)
    # One cycle only, at once.
    machine = Machine(Slurm(PROCS, None, SlurmParameters(interval=1e9)), jobs)
    machine.run(0.5)
    waiting = [j.number for j in jobs if j.number in machine.waiting]
    if waiting:
        at, _ = machine.scheduler.promises[waiting[0]]
        machine.run(at + 1)
        assert machine.starts[waiting[0]] <= at


@settings(max_examples=40)
@given(jobs=traces(), cut=st.integers(0, 1000))
def test_goes_on_from_a_snapshot_as_if_nothing_had_been(jobs, cut):
    whole = Machine(Slurm(PROCS, None, OFTEN), jobs)
    whole.run(1e7)
    first = Machine(Slurm(PROCS, None, OFTEN), jobs)
    first.run(cut)
    second = Machine(None, jobs, first.snapshot())
    second.run(1e7)
    assert first.starts | second.starts == whole.starts


class Restless(Slurm):
    """Leaves no cycle out."""

    def start(self, now):
        self._news = True
        return super().start(now)

    def wake(self, now):
        self._news = True
        return super().wake(now)


@settings(max_examples=60)
@given(jobs=traces())
def test_cycles_that_are_left_out_would_have_changed_nothing(jobs):
    found = []
    for kind in (Slurm, Restless):
        machine = Machine(kind(PROCS, None, OFTEN), jobs)
        machine.run(1e5)
        found.append(machine.starts)
    assert found[0] == found[1]


def test_a_cancelled_job_leaves_nothing_behind():
    machine = Machine(Slurm(PROCS), (job(1, 0, 8, 100),))
    machine.run(1)
    waiting, behind = job(2, 1, 8, 50), job(3, 1, 8, 50)
    machine.submit(waiting)
    machine.submit(behind)
    machine.run(40)
    machine.cancel(waiting)
    machine.run(1000)
    assert machine.starts == {1: 0, 3: 100}
    assert machine.scheduler.idle == PROCS


def test_agrees_with_the_recorded_starts_of_a_real_slurm():
    replays = read_replays(RECORDED)
    assert all(replay.late < 10 for replay in replays)
    rows = {
        r["scheduler"]: r
        for r in rows_of(replays, SCHEDULERS)
        if r["day"] == "together" and not r["waited"]
    }
    ours, again = rows["slurm"], rows["Slurm again"]
    assert ours["jobs"] > 250
    assert ours["median"] < again["median"]
    assert ours["p90"] < min(60, again["p90"])
    assert ours["within_minute"] > 0.95
    # Not any schedule would.
    assert rows["easy"]["p90"] > 100 * ours["p90"]


def test_recorded_replays_survive_the_file(tmp_path):
    replays = read_replays(RECORDED)
    for name in ("a.json", "a.json.gz"):
        write_replays(tmp_path / name, replays, [{"median": math.nan}])
        again = read_replays(tmp_path / name)
        assert repr(again) == repr(replays)
    (tmp_path / "b.json").write_text("[]")
    for name in ("b.json", "none.json"):
        with pytest.raises(TraceError, match=name):
            read_replays(tmp_path / name)
