"""A simulated campaign: asks for blocks, fills them with tasks, counts what they cost."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from workflows.backfill.planner import Backlog, BlockShape, Limits, plan
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.simulation import LAST, Machine
from workflows.backfill.replay.swf import Job
from workflows.backfill.replay.tasks import Account, Strategy, Task, Work, cut
from workflows.backfill.windows import Window
from workflows.steering import training_due


@dataclass
class _Block:
    job: Job
    shape: BlockShape
    submitted: float
    started: float = math.nan
    active: int = 0
    segments: dict[int, float] = field(default_factory=dict)
    """Begin of what each worker computes now, s."""


def windows_from_plan(profile: Profile, now: float, node_cores: int) -> list[Window]:
    """Return the windows in a scheduler's plan.

    The simulated machine counts processors and places none, so any rectangle within a level can be
    had: full nodes, and nodes of equal width that leave nothing over.

    Parameters
    ----------
    profile : Profile
        Processors that nobody is promised.
    now : float, s
    node_cores : int
        Cores of a node.
    """
    windows = []
    for end, procs in zip(*profile.least(), strict=True):
        if procs > 0:
            nodes = -(-int(procs) // node_cores)
            shapes = {(nodes, int(procs) // nodes), (int(procs) // node_cores, node_cores)}
            windows += [Window(n, c, float(end) - now) for n, c in sorted(shapes) if n > 0]
    return windows


class SimulatedCampaign:
    """One campaign on one machine, from now until `stop`.

    Parameters
    ----------
    machine : Machine
    strategy : Strategy
    work : Work
    limits : Limits
        For the planner; its `max_nodes` x `max_cores` caps what any strategy holds and asks for.
    poll_seconds : float
        Between looks at the queue when nothing of ours happens, s.
    """

    def __init__(
        self,
        machine: Machine,
        strategy: Strategy,
        work: Work,
        limits: Limits,
        poll_seconds: float = 60.0,
    ) -> None:
        self.account = Account()
        self._machine = machine
        self._strategy = strategy
        self._work = work
        self._limits = limits
        self._cap = limits.max_nodes * limits.max_cores
        self._times = {r.cores: r for r in work.run_times}
        self._luck = np.random.default_rng(work.seed)
        self._lucks: list[float] = []
        self._begin = machine.now
        self._blocks: dict[int, _Block] = {}
        self._unfinished: dict[int, deque[Task]] = defaultdict(deque)
        self._training_due = False
        self._training_open = False
        self._trained_on = 0
        self._next = 0
        self._last_number = 0
        self._stopped = False
        self._decision_due = False
        machine.on_start = self._started
        machine.env.process(self._polls(poll_seconds))

    def stop(self) -> Account:
        """End every block and return the account; what tasks had under way counts as work."""
        self._stopped = True
        for block in list(self._blocks.values()):
            for begin in block.segments.values():
                self.account.worked += (self._machine.now - begin) * block.shape.cores_per_task
            block.segments.clear()
            if not math.isnan(block.started):
                self._charge(block)
            self._machine.cancel(block.job)
        self._blocks.clear()
        account = self.account
        account.idle = account.allocated - account.worked - account.lost - account.overhead
        return account

    def _over(self) -> bool:
        return self._stopped

    def _polls(self, seconds: float) -> Generator[simpy.Event, Any, None]:
        while not self._over():
            self._request_decision()
            yield self._machine.env.timeout(seconds)

    def _request_decision(self) -> None:
        if not (self._decision_due or self._over()):
            self._decision_due = True
            # After the scheduler's pass: it has seen what ended at this instant.
            self._machine.later(self._machine.now, self._decide, priority=LAST)

    def _decide(self) -> None:
        self._decision_due = False
        if self._over():
            return
        if self._machine.pass_due:
            self._request_decision()
            return
        room = self._cap - sum(b.job.procs for b in self._blocks.values())
        shape = self._strategy.shape or self._planned(room)
        if shape is not None and shape.nodes * shape.cores <= room:
            self._submit(shape)
            self._request_decision()

    def _planned(self, room: int) -> BlockShape | None:
        waiting = [b.shape for b in self._blocks.values() if math.isnan(b.started)]
        if room == 0 or waiting:
            return None
        now = self._machine.now
        node_cores = self._limits.max_cores
        profile = self._machine.scheduler.plan(now)
        windows = windows_from_plan(profile, now, node_cores)
        fitting = [w for w in windows if w.nodes * w.cores <= room]
        # What is wider than our room is offered as wide as that.
        for window in windows:
            if window.nodes * window.cores > room:
                cores = min(window.cores, room)
                fitting.append(Window(room // cores, cores, window.seconds))
        backlog = Backlog(
            tasks=self._cap,
            run_times=tuple(r for r in self._work.run_times if r.cores <= node_cores),
            checkpoint_seconds=self._work.checkpoint_seconds,
            training_seconds=self._work.training_seconds if self._training_due else 0.0,
        )
        return plan(_best(fitting), backlog, self._limits, waiting).shape

    def _submit(self, shape: BlockShape) -> None:
        # The trace's own numbers are positive.
        self._last_number -= 1
        number = self._last_number
        length = 60.0 * shape.minutes
        job = Job(number, self._machine.now, shape.nodes * shape.cores, length, length)
        self._blocks[number] = _Block(job, shape, self._machine.now)
        self._machine.submit(job)

    def _started(self, job: Job) -> None:
        block = self._blocks.get(job.number)
        if block is None:
            return
        block.started = self._machine.now
        self.account.blocks += 1
        self.account.waited.append(block.started - block.submitted)
        block.active = block.shape.slots
        for slot in range(block.shape.slots):
            self._machine.env.process(self._worker(block, slot))

    def _ended(self, block: _Block) -> None:
        if self._blocks.pop(block.job.number, None) is not None:
            self._charge(block)
            self._machine.cancel(block.job)
            self._request_decision()

    def _charge(self, block: _Block) -> None:
        self.account.allocated += (self._machine.now - block.started) * block.job.procs

    def _worker(self, block: _Block, slot: int) -> Generator[simpy.Event, Any, None]:
        env, cores = self._machine.env, block.shape.cores_per_task
        end = block.started + block.job.request
        yield env.timeout(min(self._limits.start_seconds, block.job.request))
        taken = 0
        while taken < self._strategy.tasks_per_slot and not self._over():
            left = end - self._machine.now
            if self._strategy.knows_deadline:
                left -= self._limits.leave_seconds
            if left <= 2 * self._work.checkpoint_seconds:
                break
            task = self._take(cores)
            taken += 1
            segment = cut(task.seconds - task.done, left, self._work, self._strategy, task.done > 0)
            block.segments[slot] = self._machine.now
            yield env.timeout(segment.wall)
            if self._over():
                return
            del block.segments[slot]
            self.account.worked += segment.kept * cores
            self.account.lost += segment.lost * cores
            self.account.overhead += segment.overhead * cores
            task.done += segment.kept
            self._give_back(task, cores, finished=segment.finished)
        block.active -= 1
        if block.active == 0:
            self._ended(block)

    def _take(self, cores: int) -> Task:
        if self._training_due:
            self._training_due = False
            return Task(self._work.training_seconds)
        if self._unfinished[cores]:
            return self._unfinished[cores].popleft()
        while len(self._lucks) <= self._next:
            self._lucks.append(float(self._luck.standard_normal()))
        measured = self._times[cores]
        seconds = measured.seconds + self._lucks[self._next] * measured.spread
        self._next += 1
        return Task(max(seconds, measured.seconds / 2), number=self._next - 1)

    def _give_back(self, task: Task, cores: int, *, finished: bool) -> None:
        account, work = self.account, self._work
        if not finished:
            # A checkpoint belongs to its number of cores: results must not depend on the block.
            self._unfinished[cores].appendleft(task)
            return
        if task.number < 0:
            self._training_open = False
            account.models += 1
            if account.first_model is None:
                account.first_model = self._machine.now - self._begin
        else:
            account.finished += 1
        done = account.finished - work.frozen
        if not self._training_open and training_due(
            done, self._trained_on, work.first, work.growth, final=False
        ):
            self._training_due = self._training_open = True
            self._trained_on = done


def _best(windows: Iterable[Window]) -> list[Window]:
    """Drop windows that another of the same shape outlasts."""
    longest: dict[tuple[int, int], Window] = {}
    for window in windows:
        key = (window.nodes, window.cores)
        if window.nodes > 0 and (key not in longest or longest[key].seconds < window.seconds):
            longest[key] = window
    return list(longest.values())
