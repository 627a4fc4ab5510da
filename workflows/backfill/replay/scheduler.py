"""EASY and conservative backfill, as state and decisions without a clock."""

from __future__ import annotations

import bisect
import math
from typing import Protocol

import numpy as np

from workflows.backfill.replay.calendar import Always, Calendar, earliest
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.swf import Job


class Scheduler(Protocol):
    """Decides which job starts when; told of every event in order of time."""

    @property
    def idle(self) -> int:
        """Free processors."""

    def submit(self, job: Job, now: float) -> None:
        """Take a job into the queue."""

    def adopt(self, job: Job, end: float, now: float) -> None:
        """Take over a job that runs already and is planned to end then."""

    def finish(self, job: Job, now: float) -> None:
        """Take back the processors of a running job."""

    def cancel(self, job: Job, now: float) -> None:
        """Drop a waiting job."""

    def start(self, now: float) -> list[Job]:
        """Start what may start now; called once after all events of an instant."""

    def wake(self, now: float) -> float:
        """Return when something may start although nothing happens before, s."""

    def plan(self, now: float) -> Profile:
        """Return the processors that nobody is promised."""


class Easy:
    """First come first served; whoever does not delay the first in the queue may go before.

    Parameters
    ----------
    procs : int
        Processors of the machine.
    calendar : Calendar
    """

    def __init__(self, procs: int, calendar: Calendar | None = None) -> None:
        self.idle = procs
        self.promise: tuple[int, float] | None = None
        """Number of the first in the queue and the start that it is promised, s."""
        self._calendar = calendar or Always()
        self._queue: list[Job] = []
        self._procs = np.empty(0, dtype=np.int64)
        self._request = np.empty(0)
        self._running: list[tuple[float, int]] = []
        self._running_procs: list[int] = []

    def submit(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        self._queue.append(job)
        self._procs = np.append(self._procs, job.procs)
        self._request = np.append(self._request, job.request)

    def adopt(self, job: Job, end: float, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        self.idle -= job.procs
        place = bisect.bisect(self._running, (end, job.number))
        self._running.insert(place, (end, job.number))
        self._running_procs.insert(place, job.procs)

    def finish(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        at = next(i for i, (_, number) in enumerate(self._running) if number == job.number)
        del self._running[at], self._running_procs[at]
        self.idle += job.procs

    def cancel(self, job: Job, now: float) -> None:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        self._drop(self._queue.index(job))

    def start(self, now: float) -> list[Job]:
        """See `Scheduler`."""
        started = []
        longest = self._calendar.longest(now)
        while self._queue and self._procs[0] <= self.idle and self._request[0] <= longest:
            started.append(self._run(0, now))
        self.promise = None
        if not self._queue:
            return started
        shadow, spare = self._reserve(now)
        self.promise = (self._queue[0].number, shadow)
        while self.idle > 0:
            ends_before = now + self._request <= shadow
            fits = (self._procs <= self.idle) & (self._request <= longest)
            fits &= ends_before | (self._procs <= spare)
            # The first in the queue waits for its processors or for the calendar.
            fits[0] = False
            at = int(np.argmax(fits))
            if not fits[at]:
                return started
            if not ends_before[at]:
                spare -= int(self._procs[at])
            started.append(self._run(at, now))
        return started

    def wake(self, now: float) -> float:
        """See `Scheduler`."""
        return self._calendar.next_change(now) if self._queue else math.inf

    def plan(self, now: float) -> Profile:
        """See `Scheduler`."""
        ends = np.array([end for end, _ in self._running])
        profile = Profile.of_running(now, self.idle, ends, np.array(self._running_procs, int))
        if self._queue:
            shadow, _ = self._reserve(now)
            head = self._queue[0]
            profile.take(shadow, shadow + head.request, head.procs)
        return profile

    def _reserve(self, now: float) -> tuple[float, int]:
        """Return the start promised to the first in the queue, and what stays free then."""
        head = self._queue[0]
        ends = np.array([now, *(end for end, _ in self._running)])
        free = self.idle + np.concatenate(([0], np.cumsum(self._running_procs, dtype=np.int64)))
        at = ends[np.searchsorted(free, head.procs)]
        shadow = earliest(self._calendar, max(float(at), now), head.request)
        return shadow, int(free[np.searchsorted(ends, shadow, side="right") - 1]) - head.procs

    def _run(self, at: int, now: float) -> Job:
        job = self._drop(at)
        self.adopt(job, now + job.request, now)
        return job

    def _drop(self, at: int) -> Job:
        self._procs = np.delete(self._procs, at)
        self._request = np.delete(self._request, at)
        return self._queue.pop(at)


class Conservative:
    """Every job is planned when it comes, and never moves to a later start.

    Slurm plans anew every few seconds and may move a job back; this is the classic rule, the
    strictest towards whoever comes last.

    Parameters
    ----------
    procs : int
        Processors of the machine.
    calendar : Calendar
    """

    def __init__(self, procs: int, calendar: Calendar | None = None) -> None:
        self.idle = procs
        self.planned: dict[int, float] = {}
        """Planned start of every waiting job, s, in order of arrival."""
        self._calendar = calendar or Always()
        self._waiting: dict[int, Job] = {}
        self._ends: dict[int, float] = {}
        self._profile = Profile(0.0, procs)
        self._holes = False

    def submit(self, job: Job, now: float) -> None:
        """See `Scheduler`."""
        self._profile.advance(now)
        self._waiting[job.number] = job
        self._place(job, now)

    def adopt(self, job: Job, end: float, now: float) -> None:
        """See `Scheduler`."""
        self._profile.advance(now)
        self._profile.take(now, end, job.procs)
        self._ends[job.number] = end
        self.idle -= job.procs

    def finish(self, job: Job, now: float) -> None:
        """See `Scheduler`."""
        self._profile.advance(now)
        self.idle += job.procs
        end = self._ends.pop(job.number)
        if end > now:
            self._profile.take(now, end, -job.procs)
            self._holes = True

    def cancel(self, job: Job, now: float) -> None:
        """See `Scheduler`."""
        self._profile.advance(now)
        del self._waiting[job.number]
        self._unplace(job)
        del self.planned[job.number]
        self._holes = True

    def start(self, now: float) -> list[Job]:
        """See `Scheduler`."""
        self._profile.advance(now)
        if self._holes:
            self._holes = False
            # In order of arrival; each one's old place is still free, so none moves back.
            for job in self._waiting.values():
                if self.planned[job.number] > now:
                    self._unplace(job)
                    self._place(job, now)
        started = [j for n, j in self._waiting.items() if self.planned[n] <= now]
        for job in started:
            del self._waiting[job.number]
            self._ends[job.number] = self.planned.pop(job.number) + job.request
            self.idle -= job.procs
        return started

    def wake(self, now: float) -> float:  # noqa: ARG002 - the interface
        """See `Scheduler`."""
        return min(self.planned.values(), default=math.inf)

    def plan(self, now: float) -> Profile:
        """See `Scheduler`."""
        self._profile.advance(now)
        return self._profile

    def _place(self, job: Job, now: float) -> None:
        at = now
        while True:
            at = self._profile.earliest(job.procs, job.request, at)
            allowed = earliest(self._calendar, at, job.request)
            if allowed == at:
                break
            at = allowed
        self._profile.take(at, at + job.request, job.procs)
        self.planned[job.number] = at

    def _unplace(self, job: Job) -> None:
        at = self.planned[job.number]
        self._profile.take(at, at + job.request, -job.procs)
