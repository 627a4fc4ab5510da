"""Stages in flight: submitted, to be submitted again later, ended."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from apps.parsl_apps import Stages
from edge_agent.contracts.failpoints import failpoint

TICK_SECONDS = 0.2
#: A task that came back unfinished goes out again after this, s: its block takes no more by then.
AGAIN_SECONDS = 1.0


@dataclass
class Job:
    """A stage in flight."""

    stage: str
    task: Any
    number: int | None = None
    """The candidate's, for all stages but simulate."""
    digests: tuple[str, ...] = ()
    attempts: int = 1


class Flight:
    """What the stages are at.

    Parameters
    ----------
    stages : Stages
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._jobs: dict[Future[Any], Job] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._later: deque[tuple[float, Job]] = deque()

    @property
    def submitted(self) -> list[Job]:
        """Jobs that workers have or wait for."""
        return list(self._jobs.values())

    @property
    def jobs(self) -> list[Job]:
        """All jobs, those that wait to be submitted again included."""
        return [*self._jobs.values(), *(job for _, job in self._later)]

    @property
    def cases(self) -> int:
        """Simulations among them."""
        return sum(len(job.digests) for job in self.jobs)

    @property
    def simulations(self) -> int:
        """Simulation tasks that workers have or wait for."""
        return sum(job.stage == "simulate" for job in self._jobs.values())

    def submit(self, job: Job) -> None:
        """Submit a job."""
        future = getattr(self._stages, job.stage)(job.task)
        self._jobs[future] = job
        future.add_done_callback(self._ended.put)
        failpoint(f"campaign.{job.stage}.submitted")

    def again(self, job: Job) -> None:
        """Submit a job a little later."""
        self._later.append((time.monotonic() + AGAIN_SECONDS, job))

    def submit_due(self) -> None:
        """Submit what has waited long enough."""
        while self._later and self._later[0][0] <= time.monotonic():
            self.submit(self._later.popleft()[1])

    def ended(self) -> Iterator[tuple[Job, Future[Any]]]:
        """Yield what has ended; waits for the first a tick, for the others not at all."""
        timeout: float | None = TICK_SECONDS
        while True:
            try:
                future = self._ended.get(timeout=timeout) if timeout else self._ended.get_nowait()
            except queue.Empty:
                return
            timeout = None
            yield self._jobs.pop(future), future
