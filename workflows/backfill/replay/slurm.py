"""Slurm's two schedulers, as state and decisions without a clock: they promise named nodes.

Written after the source of Slurm 22.05.8 and checked against its starts
(``benchmarks/slurm_agreement.py``): ``sched/backfill/backfill.c`` (`Slurm._cycle`, `Slurm._place`),
``select/cons_common/job_test.c`` (`Slurm._room`), ``slurmctld/job_scheduler.c`` (`Slurm._main`).
One partition, first come first served, nodes that are all alike and never shared.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from workflows.backfill.replay.calendar import Always, Calendar, earliest
from workflows.backfill.replay.nodes import choose
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.swf import Job
from workflows.backfill.replay.timetable import Timetable

#: A job that still runs at its limit is expected to end so much later: KillWait, s.
KILL_WAIT = 5.0
#: Running jobs that end in one window are taken to end together; width of the first one, s.
FIRST_WINDOW = 30.0


@dataclass(frozen=True)
class SlurmParameters:
    """``SchedulerParameters``; the defaults are those of ``benchmarks/slurm_fast.sh``."""

    interval: float = 30.0
    """Between two backfill cycles, s (``bf_interval``)."""
    resolution: float = 1.0
    """What begins and ends of promises are rounded down to, s (``bf_resolution``)."""
    window: float = 5 * 86400.0
    """How far promises reach, s (``bf_window``)."""
    depth: int = 1000
    """Jobs that a cycle looks at (``bf_max_job_test``)."""


class Slurm:
    """Starts jobs in order until one does not fit; now and then plans all anew and fills holes.

    A cycle of the backfill gives every waiting job, in order, named nodes and a time, and starts
    those whose time is now. It keeps nothing of the cycle before: a promise may move. Cycles in
    which nothing could have changed are left out; the others come at the times they would have
    had.

    Parameters
    ----------
    procs : int
        Processors of the machine; each is a node.
    calendar : Calendar
        Acts as advance reservations would: who may not start yet is passed over.
    parameters : SlurmParameters
    """

    def __init__(
        self,
        procs: int,
        calendar: Calendar | None = None,
        parameters: SlurmParameters | None = None,
    ) -> None:
        self.nodes: dict[int, int] = {}
        """Of every running job by its number, as bits."""
        self.promises: dict[int, tuple[float, int]] = {}
        """Start (s) and nodes that the last cycle promised to waiting jobs, by number."""
        self._parameters = parameters or SlurmParameters()
        self._calendar = calendar or Always()
        self._machine = self._free = (1 << procs) - 1
        self._queue: dict[int, Job] = {}
        self._ends: dict[int, float] = {}
        self._table = Timetable(-math.inf, math.inf, self._machine)
        self._next_cycle = -math.inf
        # Whether anything happened since the last cycle; else when the next may do something.
        self._news, self._due = False, math.inf
        # Whether somebody has waited since the last cycle: then cycles follow each other.
        self._waited = False

    @property
    def idle(self) -> int:
        """See `Scheduler`."""
        return self._free.bit_count()

    def submit(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        self._queue[job.number] = job
        self._news = True

    def adopt(self, job: Job, end: float, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`; on nodes that it might have been given now."""
        self._occupy(job, end, choose(self._free, job.procs))

    def finish(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        self._free |= self.nodes.pop(job.number)
        del self._ends[job.number]
        self._news = True

    def cancel(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        del self._queue[job.number]
        self.promises.pop(job.number, None)
        self._news = True

    def start(self, now: float) -> list[Job]:
        """See `Scheduler`."""
        started = self._main(now)
        if self._waited or self._queue:
            self._next_cycle = self._cycle_after(now)
        changed = self._news or now >= self._due
        if self._queue and changed and self._next_cycle <= now:
            started += self._cycle(now)
            self._next_cycle = now + self._parameters.interval
        self._waited = bool(self._queue)
        return started

    def wake(self, now: float) -> float:
        """See `Scheduler`."""
        if not self._queue:
            return math.inf
        return self._cycle_after(now if self._news else self._due)

    def plan(self, now: float) -> Profile:
        """Return how many of the nodes that are idle now nobody is promised, until when.

        Others that come free later are no use to who wants the same nodes all the time.
        """
        kept = self._table.kept(self._free, now)
        profile = Profile(now, 0)
        profile.times = np.array([now, *(end for end, _ in kept[:-1])])
        profile.free = np.array([number for _, number in kept], dtype=np.int64)
        return profile

    def _cycle_after(self, at: float) -> float:
        """Return when the first cycle is not before a time."""
        if at <= self._next_cycle or at == math.inf:
            return max(at, self._next_cycle)
        if not self._waited:
            # The backfill has found nothing to do, and looks again every second.
            return at
        interval = self._parameters.interval
        return self._next_cycle + interval * math.ceil((at - self._next_cycle) / interval)

    def _main(self, now: float) -> list[Job]:
        """Start jobs in order, on any idle nodes, until one does not fit."""
        longest = self._calendar.longest(now)
        started: list[Job] = []
        for job in self._queue.values():
            if job.request > longest:
                continue
            if job.procs > self.idle:
                break
            self._occupy(job, now + job.request, choose(self._free, job.procs))
            started.append(job)
        for job in started:
            del self._queue[job.number]
        return started

    def _cycle(self, now: float) -> list[Job]:
        """Plan every waiting job anew, and start those whose time is now."""
        end = self._rounded(now + self._parameters.window)
        self._table = Timetable(self._rounded(now), end, self._machine)
        self.promises = {}
        # A job that starts below was not yet running for those planned before it: news again.
        self._news = False
        started: list[Job] = []
        ends = self._planned_ends()
        for job in itertools.islice(self._queue.values(), self._parameters.depth):
            found = self._place(job, now, ends)
            if found is None:
                continue
            at, nodes = found
            if at <= now:
                self._occupy(job, now + job.request, nodes)
                started.append(job)
                ends = self._planned_ends()
            else:
                self.promises[job.number] = found
                begin, end = self._rounded(at), self._rounded(at + job.request)
                self._table.promise(nodes, begin, max(end, begin + self._parameters.resolution))
        for job in started:
            del self._queue[job.number]
        due = min((at for at, _ in self.promises.values()), default=math.inf)
        self._due = min(due, self._calendar.next_change(now))
        return started

    def _place(
        self, job: Job, now: float, ends: list[tuple[float, int]]
    ) -> tuple[float, int] | None:
        """Return when and on which nodes a job starts; None: not within the planned time."""
        later = now
        while later < math.inf:
            begin = earliest(self._calendar, later, job.request)
            allowed, later = self._table.free(self._machine, begin, begin + job.request)
            room = self._room(job.procs, allowed, now, ends)
            if room is None:
                continue
            at, free = max(room[0], begin), room[1]
            if at > later:
                # Nodes that are promised to others until then may do better.
                continue
            if at > now + self._parameters.window:
                return None
            allowed_at = earliest(self._calendar, at, job.request)
            if allowed_at > at:
                later = allowed_at
                continue
            nodes = choose(free, job.procs)
            end = self._rounded(at + job.request)
            if at > now and self._table.promised(nodes, self._rounded(at), end):
                later = at
                continue
            return at, nodes
        return None

    def _room(
        self, count: int, allowed: int, now: float, ends: list[tuple[float, int]]
    ) -> tuple[float, int] | None:
        """Return when running jobs leave enough of some nodes, and which are free then.

        Slurm lets jobs end in windows that grow: 30 s after the first, then twice as wide each
        time, and looks at the end of each. So a promise may be for later than needed.
        """
        free = allowed & self._free
        if free.bit_count() >= count:
            return now, free
        at, width, first = 0, FIRST_WINDOW, math.nan
        while at < len(ends):
            last = -math.inf
            while at < len(ends):
                end, nodes = ends[at]
                at += 1
                if not nodes & allowed:
                    continue
                if first != first:
                    first = end + FIRST_WINDOW - end % FIRST_WINDOW
                last = end
                free |= nodes & allowed
                if at < len(ends) and ends[at][0] > first + width:
                    break
            width *= 2
            while at < len(ends) and ends[at][0] > first + width:
                width *= 2
            if free.bit_count() >= count and last > -math.inf:
                return (last if last > now else max(last + KILL_WAIT, now + 1)), free
        return None

    def _planned_ends(self) -> list[tuple[float, int]]:
        return sorted((end, self.nodes[number]) for number, end in self._ends.items())

    def _occupy(self, job: Job, end: float, nodes: int) -> None:
        self._free &= ~nodes
        self.nodes[job.number] = nodes
        self._ends[job.number] = end
        self._news = True

    def _rounded(self, at: float) -> float:
        return at // self._parameters.resolution * self._parameters.resolution
