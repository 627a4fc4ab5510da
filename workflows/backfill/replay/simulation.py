"""The clock: a machine that jobs come to, run on and leave."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy
from simpy.events import EventPriority

from workflows.backfill.replay.scheduler import Scheduler
from workflows.backfill.replay.swf import Job

#: After everything else that happens at an instant: a pass sees all of it.
LAST = EventPriority(2)


@dataclass(frozen=True)
class Snapshot:
    """A machine before the events of an instant."""

    now: float
    """s after the trace's start."""
    scheduler: Scheduler
    running: tuple[tuple[Job, float], ...]
    """Jobs with their real ends, s."""
    waiting: frozenset[int]
    """Numbers of the jobs in the queue."""
    arrived: int
    """Jobs of the trace that have been submitted."""


class Machine:
    """A machine under a scheduler, on a simpy clock.

    Parameters
    ----------
    scheduler : Scheduler
    jobs : sequence of Job
        In order of submission.
    snapshot : Snapshot, optional
        Where to go on from; its scheduler is copied and `scheduler` ignored.

    Attributes
    ----------
    starts : dict
        Start of each job by its number, s.
    ends : dict
        End of each job that has ended, s.
    waiting : set
        Numbers of the jobs in the queue.
    on_start : callable
        Told of every job that starts.
    pass_due : bool
        Whether the scheduler will look at the end of this instant.
    """

    def __init__(
        self,
        scheduler: Scheduler | None,
        jobs: Sequence[Job],
        snapshot: Snapshot | None = None,
    ) -> None:
        if snapshot is None:
            if scheduler is None:
                msg = "a machine needs a scheduler or a snapshot"
                raise ValueError(msg)
            begin = jobs[0].submit if jobs else 0.0
            snapshot = Snapshot(begin, scheduler, (), frozenset(), 0)
        self.env = simpy.Environment(initial_time=snapshot.now)
        self.scheduler = copy.deepcopy(snapshot.scheduler)
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.waiting: set[int] = set(snapshot.waiting)
        self.on_start: Callable[[Job], None] = lambda _job: None
        self._jobs = jobs
        self._arrived = snapshot.arrived
        self._running: dict[int, tuple[Job, float]] = {}
        self.pass_due = False
        self._wake = math.inf
        for job, end in snapshot.running:
            self._running[job.number] = (job, end)
            self.later(end, self._ended, job)
        self.env.process(self._arrivals())
        self.request_pass()

    @property
    def now(self) -> float:
        """Time after the trace's start, s."""
        return float(self.env.now)

    def run(self, until: float) -> None:
        """Go on until just before the events of an instant."""
        if until > self.now:
            self.env.run(until=until)

    def snapshot(self) -> Snapshot:
        """Return a copy of the state; call between runs."""
        return Snapshot(
            self.now,
            copy.deepcopy(self.scheduler),
            tuple(self._running.values()),
            frozenset(self.waiting),
            self._arrived,
        )

    def submit(self, job: Job) -> None:
        """Put a job into the queue."""
        self.scheduler.submit(job, self.now)
        self.waiting.add(job.number)
        self.request_pass()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or end it; nothing if it has ended."""
        if job.number in self.waiting:
            self.waiting.discard(job.number)
            self.scheduler.cancel(job, self.now)
            self.request_pass()
        else:
            self._ended(job)

    def request_pass(self) -> None:
        """Let the scheduler look at the end of this instant."""
        if not self.pass_due:
            self.pass_due = True
            self.later(self.now, self._pass, priority=LAST)

    def _arrivals(self) -> Generator[simpy.Event, Any, None]:
        while self._arrived < len(self._jobs):
            job = self._jobs[self._arrived]
            if job.submit > self.now:
                yield self.env.timeout(job.submit - self.now)
            self._arrived += 1
            self.submit(job)

    def _ended(self, job: Job) -> None:
        # A job that was cancelled leaves the event of its natural end behind.
        if self._running.pop(job.number, None) is not None:
            self.ends[job.number] = self.now
            self.scheduler.finish(job, self.now)
            self.request_pass()

    def _pass(self) -> None:
        self.pass_due = False
        for job in self.scheduler.start(self.now):
            self.waiting.discard(job.number)
            self.starts[job.number] = self.now
            self._running[job.number] = (job, self.now + job.run)
            self.later(self.now + job.run, self._ended, job)
            self.on_start(job)
        wake = self.scheduler.wake(self.now)
        if self._wake <= self.now or wake < self._wake:
            self._wake = wake
            if wake < math.inf:
                self.later(wake, self.request_pass)

    def later(
        self,
        at: float,
        call: Callable[..., None],
        *args: Any,  # noqa: ANN401 - the call's own
        priority: EventPriority = simpy.events.NORMAL,
    ) -> None:
        """Call something at a time, s."""
        event = simpy.Event(self.env)
        # How simpy's own events mark themselves as triggered.
        event._ok, event._value = True, None
        event.callbacks.append(lambda _event: call(*args))
        self.env.schedule(event, priority=priority, delay=at - self.now)
