"""How well the simulated machine agrees with the log of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflows.backfill.replay.calendar import DAY, Calendar
from workflows.backfill.replay.scheduler import Conservative, Easy, Scheduler
from workflows.backfill.replay.simulation import Machine, Snapshot
from workflows.backfill.replay.slurm import Slurm
from workflows.backfill.replay.swf import Job, Trace

#: Beyond this a job that has not started is given up on, s.
PATIENCE = 30 * DAY
SCHEDULERS: dict[str, type[Slurm | Easy | Conservative]] = {
    "slurm": Slurm,
    "easy": Easy,
    "conservative": Conservative,
}


@dataclass(frozen=True)
class Agreement:
    """Simulated against logged starts; differences are absolute, s."""

    jobs: int
    median: float
    p90: float
    within_minute: float
    """Share of jobs whose starts differ by no more than 60 s."""
    bias: float
    """Mean of simulated - logged, s."""


def agreement(differences: Sequence[float]) -> Agreement:
    """Sum up simulated - logged starts, s."""
    signed = np.asarray(differences, dtype=np.float64)
    if signed.size == 0:
        return Agreement(0, np.nan, np.nan, np.nan, np.nan)
    size = np.abs(signed)
    return Agreement(
        jobs=int(signed.size),
        median=float(np.median(size)),
        p90=float(np.percentile(size, 90)),
        within_minute=float(np.mean(size <= 60)),
        bias=float(np.mean(signed)),
    )


def make_scheduler(policy: str, procs: int, calendar: Calendar) -> Scheduler:
    """Return a scheduler by name: slurm, easy or conservative."""
    return SCHEDULERS[policy](procs, calendar)


def free_running(trace: Trace, starts: dict[int, float]) -> Agreement:
    """Compare a replay of the whole trace, in which every difference has its consequences.

    Parameters
    ----------
    trace : Trace
    starts : dict
        Simulated start of every job, s.
    """
    return agreement(
        [starts[j.number] - j.logged_start for j in trace.jobs if j.logged_start == j.logged_start]
    )


def restarted(
    trace: Trace, policy: str, calendar: Calendar, hours: float = 24.0, at_most: int = 400
) -> Agreement:
    """Compare replays that begin anew from the log's state, of the jobs submitted in each.

    Parameters
    ----------
    trace : Trace
    policy : str
    calendar : Calendar
    hours : float
        Length of each.
    at_most : int
        Replays, spread over the trace.
    """
    logged = [job for job in trace.jobs if job.logged_start == job.logged_start]
    submits = np.array([job.submit for job in logged])
    begins = np.arange(submits[0], submits[-1], hours * 3600)
    begins = begins[:: max(1, -(-len(begins) // at_most))]
    differences: list[float] = []
    for begin in begins:
        first, last = np.searchsorted(submits, [begin, begin + hours * 3600])
        counted = logged[first:last]
        machine = _from_log(trace, logged, int(first), policy, calendar, float(begin))
        starts = run_until_started(machine, {job.number for job in counted})
        differences += [starts[j.number] - j.logged_start for j in counted if j.number in starts]
    return agreement(differences)


def run_until_started(machine: Machine, numbers: set[int]) -> dict[int, float]:
    """Let a machine run until so many jobs have started, and return its starts."""
    deadline = machine.now + PATIENCE
    while machine.now < deadline and not numbers <= machine.starts.keys():
        machine.run(machine.now + DAY / 4)
    return machine.starts


def _from_log(
    trace: Trace, logged: list[Job], arrived: int, policy: str, calendar: Calendar, now: float
) -> Machine:
    scheduler = make_scheduler(policy, trace.procs, calendar)
    running, waiting = [], []
    for job in logged[:arrived]:
        end = job.logged_start + job.run
        if end <= now:
            continue
        if job.logged_start >= now:
            waiting.append(job)
        # The log holds a few processors more than there are, where its clocks are coarse.
        elif job.procs <= scheduler.idle:
            scheduler.adopt(job, max(job.logged_start + job.request, end), now)
            running.append((job, end))
    for job in waiting:
        scheduler.submit(job, now)
    numbers = frozenset(job.number for job in waiting)
    return Machine(None, logged, Snapshot(now, scheduler, tuple(running), numbers, arrived))
