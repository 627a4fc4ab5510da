"""The study: strategies on start dates under schedulers, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from workflows.backfill.planner import BlockShape, Limits
from workflows.backfill.replay import validation
from workflows.backfill.replay.calendar import DAY, Always, Calendar
from workflows.backfill.replay.campaign import SimulatedCampaign
from workflows.backfill.replay.results import Outcome, Result, summarise
from workflows.backfill.replay.simulation import Machine, Snapshot
from workflows.backfill.replay.swf import Trace, TraceError
from workflows.backfill.replay.tasks import Strategy, Work

WEEK = 7 * DAY


@dataclass(frozen=True)
class Study:
    """What to simulate."""

    trace: Trace
    work: Work
    calendar: Calendar = field(default_factory=Always)
    policies: tuple[str, ...] = tuple(validation.SCHEDULERS)
    starts: int = 10
    """Start dates."""
    length: float = WEEK
    """Of a campaign, s."""
    limits: Limits = field(default_factory=lambda: Limits(max_nodes=4, max_cores=16))
    """For the planner; its cores cap every strategy alike."""
    poll_seconds: float = 60.0
    """Between looks at the queue, s."""

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """What is compared."""
        most = min(self.limits.max_nodes * self.limits.max_cores, self.trace.procs)
        widest = max((r.cores for r in self.work.run_times if r.cores <= most), default=0)
        if widest == 0:
            msg = f"{self.trace.name}: no measured run time fits {self.trace.procs} processors"
            raise TraceError(msg, file=self.trace.name, line=None)
        small = min(4, most)
        return (
            Strategy("planned blocks", knows_deadline=True),
            Strategy("planned, end unknown"),
            Strategy(f"fixed small ({small} x 60 min)", BlockShape(1, small, 60)),
            Strategy(f"one large ({most} x 12 h)", BlockShape(1, most, 720)),
            Strategy(
                f"{widest}-core jobs (30 min)",
                BlockShape(1, widest, 30, cores_per_task=widest),
                tasks_per_slot=1,
            ),
        )

    def begins(self) -> list[float]:
        """Return the start dates, s after the trace's start: middles of equal parts."""
        first, last = self.trace.jobs[0].submit, self.trace.jobs[-1].submit
        latest = max(first, last - self.length)
        parts = [first + (last - first) * (i + 0.5) / self.starts for i in range(self.starts)]
        return sorted({float(math.floor(min(at, latest) / 3600) * 3600) for at in parts})


@dataclass(frozen=True)
class _Baseline:
    starts: dict[int, float]
    snapshots: tuple[Snapshot, ...]


_study: Study


def run(study: Study, workers: int = 2, *, validate: bool = True) -> Result:
    """Run the study.

    Parameters
    ----------
    study : Study
    workers : int
        Processes.
    validate : bool
        Whether to compare with the log as well.

    Raises
    ------
    TraceError
        If the machine is too small for any measured run time.
    """
    names, begins = [s.name for s in study.strategies], study.begins()
    with ProcessPoolExecutor(workers, initializer=_prepare, initargs=(study,)) as pool:
        # The slowest first, so that the others fill in beside it.
        replays = {p: pool.submit(_baseline, p) for p in sorted(study.policies)}
        checks = _checks(pool, study) if validate else {}
        outcomes: list[Future[Outcome]] = []
        for policy in study.policies:
            base = replays[policy].result()
            for snapshot in base.snapshots:
                starts = {n: s for n, s in base.starts.items() if s >= snapshot.now}
                outcomes += [
                    pool.submit(_campaign, policy, i, snapshot, starts) for i in range(len(names))
                ]
        done = [outcome.result() for outcome in outcomes]
        found = {name: check.result() for name, check in checks.items()}
        if validate:
            for policy in study.policies:
                key = f"{policy}, {_rule(study.calendar)}, whole trace"
                free = validation.free_running(study.trace, replays[policy].result().starts)
                found = {key: free} | found
    rows = tuple(
        summarise([o for o in done if (o.policy, o.strategy) == (policy, name)], study.length)
        for policy in study.policies
        for name in names
    )
    return Result(found, rows, tuple(begins))


def _prepare(study: Study) -> None:
    global _study  # noqa: PLW0603 - a process's own: the trace travels once, not with every task
    _study = study


def _checks(pool: ProcessPoolExecutor, study: Study) -> dict[str, Future[validation.Agreement]]:
    rules = [study.calendar, *([] if isinstance(study.calendar, Always) else [Always()])]
    checks = {
        f"easy, {_rule(calendar)}, anew each day": pool.submit(_restarted, calendar)
        for calendar in rules
    }
    for calendar in rules[1:]:
        checks[f"easy, {_rule(calendar)}, whole trace"] = pool.submit(_free_running, calendar)
    return checks


def _rule(calendar: Calendar) -> str:
    return "any hour" if isinstance(calendar, Always) else "day and night"


def _restarted(calendar: Calendar) -> validation.Agreement:
    return validation.restarted(_study.trace, "easy", calendar)


def _free_running(calendar: Calendar) -> validation.Agreement:
    study = replace(_study, calendar=calendar)
    return validation.free_running(study.trace, _replay(study, "easy", []).starts)


def _baseline(policy: str) -> _Baseline:
    return _replay(_study, policy, _study.begins())


def _replay(study: Study, policy: str, begins: Sequence[float]) -> _Baseline:
    trace = study.trace
    scheduler = validation.make_scheduler(policy, trace.procs, study.calendar)
    machine = Machine(scheduler, trace.jobs)
    snapshots = []
    for begin in begins:
        machine.run(begin)
        snapshots.append(machine.snapshot())
    numbers = {job.number for job in trace.jobs}
    while not numbers <= machine.starts.keys():
        machine.run(machine.now + WEEK)
    return _Baseline(machine.starts, tuple(snapshots))


def _campaign(policy: str, strategy: int, snapshot: Snapshot, without: dict[int, float]) -> Outcome:
    study = _study
    chosen = study.strategies[strategy]
    machine = Machine(None, study.trace.jobs, snapshot)
    campaign = SimulatedCampaign(machine, chosen, study.work, study.limits, study.poll_seconds)
    end = snapshot.now + study.length
    machine.run(end)
    account = campaign.stop()
    others = set(snapshot.waiting) | {
        job.number for job in study.trace.jobs if snapshot.now <= job.submit < end
    }
    starts = validation.run_until_started(machine, others)
    delays = tuple(starts[n] - without[n] for n in sorted(others))
    return Outcome(policy, chosen.name, snapshot.now, account, delays)
