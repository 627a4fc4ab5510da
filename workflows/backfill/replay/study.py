"""The study: strategies on start dates under schedulers, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from workflows.backfill.planner import BlockShape, Limits
from workflows.backfill.replay import validation
from workflows.backfill.replay.calendar import DAY, Always, Calendar
from workflows.backfill.replay.campaign import Account, SimulatedCampaign, Strategy, Work
from workflows.backfill.replay.simulation import Machine, Snapshot
from workflows.backfill.replay.swf import Trace, TraceError

WEEK = 7 * DAY


@dataclass(frozen=True)
class Study:
    """What to simulate."""

    trace: Trace
    work: Work
    calendar: Calendar = field(default_factory=Always)
    policies: tuple[str, ...] = ("easy", "conservative")
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
class Outcome:
    """One campaign."""

    policy: str
    strategy: str
    begin: float
    """s after the trace's start."""
    account: Account
    delays: tuple[float, ...]
    """Start with us - start without us, of every other job that waited or came meanwhile, s."""


@dataclass(frozen=True)
class Row:
    """One strategy under one scheduler, over all start dates."""

    policy: str
    strategy: str
    campaigns: int
    reached_model: int
    """Campaigns that published a model at all."""
    first_model_hours: float
    """Median over campaigns, h; inf where fewer than half had one."""
    first_model_worst_hours: float
    simulations_per_day: float
    core_hours_per_simulation: float
    lost_core_hours: float
    """Per campaign."""
    idle_share: float
    """Of the allocated core time."""
    blocks: int
    """Per campaign."""
    block_wait_p90_minutes: float
    """Of blocks that started."""
    others: int
    """Other people's jobs, over all campaigns."""
    delay_mean: float
    """s, as the next three; a job that started sooner counts as negative."""
    delay_median: float
    delay_p90: float
    delay_max: float
    delayed_share: float
    """Others that started more than a minute later."""


@dataclass(frozen=True)
class Result:
    """What the study found."""

    agreement: dict[str, validation.Agreement]
    """By scheduler, calendar and way of replay."""
    rows: tuple[Row, ...]
    begins: tuple[float, ...]


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


def summarise(outcomes: Sequence[Outcome], length: float) -> Row:
    """Sum up campaigns of one strategy under one scheduler."""
    accounts = [o.account for o in outcomes]
    first = [math.inf if a.first_model is None else a.first_model / 3600 for a in accounts]
    delays = np.concatenate([np.asarray(o.delays) for o in outcomes])
    waits = np.concatenate([np.asarray(a.waited) for a in accounts])
    finished = sum(a.finished for a in accounts)
    allocated = sum(a.allocated for a in accounts)
    some = delays.size > 0
    return Row(
        policy=outcomes[0].policy,
        strategy=outcomes[0].strategy,
        campaigns=len(outcomes),
        reached_model=sum(math.isfinite(f) for f in first),
        first_model_hours=_middle(first),
        first_model_worst_hours=max(first),
        simulations_per_day=finished / len(outcomes) / (length / DAY),
        core_hours_per_simulation=allocated / 3600 / finished if finished else math.inf,
        lost_core_hours=sum(a.lost for a in accounts) / 3600 / len(outcomes),
        idle_share=sum(a.idle for a in accounts) / allocated if allocated else 0.0,
        blocks=round(sum(a.blocks for a in accounts) / len(outcomes)),
        block_wait_p90_minutes=float(np.percentile(waits, 90)) / 60 if waits.size else math.inf,
        others=int(delays.size),
        delay_mean=float(np.mean(delays)) if some else 0.0,
        delay_median=float(np.median(delays)) if some else 0.0,
        delay_p90=float(np.percentile(delays, 90)) if some else 0.0,
        delay_max=float(np.max(delays)) if some else 0.0,
        delayed_share=float(np.mean(delays > 60)) if some else 0.0,
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return the result for a JSON file; what never came is null, as JSON knows no infinity."""
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()}
        for r in map(asdict, result.rows)
    ]
    return {
        "agreement": {name: asdict(found) for name, found in result.agreement.items()},
        "begins_s": list(result.begins),
        "rows": rows,
    }


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


def _middle(values: list[float]) -> float:
    """Return the median; of an even number the upper one, so that inf means what it says."""
    return sorted(values)[len(values) // 2]
