"""A simulated campaign: asks for blocks, fills them with tasks, counts what they cost."""

from __future__ import annotations

import csv
import math
from collections import defaultdict, deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from workflows.backfill.planner import Backlog, BlockShape, Limits, RunTime, plan
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.simulation import LAST, Machine
from workflows.backfill.replay.swf import Job
from workflows.backfill.windows import Window
from workflows.config import FrozenSizes, Training
from workflows.steering import training_due


@dataclass(frozen=True)
class Work:
    """What the campaign computes."""

    run_times: tuple[RunTime, ...]
    """Measured, of one simulation, by cores."""
    frozen: int = sum(FrozenSizes().model_dump().values())
    """Simulations of the three frozen sets, which come first."""
    first: int = Training().first
    """Training simulations that the first model needs."""
    growth: float = Training().growth
    """Growth of the training simulations between two trainings."""
    training_seconds: float = 600.0
    """Run time of a training, s; assumed: none is published."""
    checkpoint_every: float = 300.0
    """Between the checkpoints that a task writes on its way, s."""
    checkpoint_seconds: float = 1.0
    """To write a checkpoint, or to go on from one, s."""
    seed: int = 1
    """Of the spread of run times: simulation i has the same luck in every strategy."""


@dataclass(frozen=True)
class Strategy:
    """How the campaign asks for blocks."""

    name: str
    shape: BlockShape | None = None
    """Of every block; None: the planner chooses."""
    knows_deadline: bool = False
    """Whether a task sees the block's end coming and writes a checkpoint before it."""
    tasks_per_slot: float = math.inf
    """Tasks that a slot of a block runs before it is given back."""


@dataclass
class Account:
    """What a campaign did and what it cost; core-seconds where nothing else is said."""

    allocated: float = 0.0
    """Cores of its blocks x time that they held them."""
    worked: float = 0.0
    """Of it, computing that was kept."""
    lost: float = 0.0
    """Computing since the last checkpoint when a block ended."""
    overhead: float = 0.0
    """Writing checkpoints and going on from them."""
    idle: float = 0.0
    """Start of blocks, their ends when no task fits, cores without a task."""
    blocks: int = 0
    """That started."""
    finished: int = 0
    """Simulations."""
    models: int = 0
    first_model: float | None = None
    """Since the campaign's start, s; None if there was none."""
    waited: list[float] = field(default_factory=list)
    """Of each block in the queue, s."""


@dataclass
class _Task:
    seconds: float
    """On the cores that it is fixed to."""
    done: float = 0.0
    """Of it, s."""
    number: int = -1
    """Of a simulation; -1: a training."""


@dataclass
class _Block:
    job: Job
    shape: BlockShape
    submitted: float
    started: float = math.nan
    active: int = 0
    segments: dict[int, float] = field(default_factory=dict)
    """Begin of what each worker computes now, s."""


def read_run_times(path: Path) -> tuple[RunTime, ...]:
    """Read measured run times: ``cores,seconds_mean,seconds_sd``."""
    with path.open(newline="") as file:
        return tuple(
            RunTime(int(row["cores"]), float(row["seconds_mean"]), float(row["seconds_sd"]))
            for row in csv.DictReader(file)
        )


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
        self._unfinished: dict[int, deque[_Task]] = defaultdict(deque)
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

    def _polls(self, seconds: float) -> Generator[simpy.Event, Any, None]:
        while not self._stopped:
            self._request_decision()
            yield self._machine.env.timeout(seconds)

    def _request_decision(self) -> None:
        if not (self._decision_due or self._stopped):
            self._decision_due = True
            # After the scheduler's pass: it has seen what ended at this instant.
            self._machine.later(self._machine.now, self._decide, priority=LAST)

    def _decide(self) -> None:
        self._decision_due = False
        if self._stopped:
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
        while taken < self._strategy.tasks_per_slot and not self._stopped:
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
            if self._stopped:
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

    def _take(self, cores: int) -> _Task:
        if self._training_due:
            self._training_due = False
            return _Task(self._work.training_seconds)
        if self._unfinished[cores]:
            return self._unfinished[cores].popleft()
        while len(self._lucks) <= self._next:
            self._lucks.append(float(self._luck.standard_normal()))
        measured = self._times[cores]
        seconds = measured.seconds + self._lucks[self._next] * measured.spread
        self._next += 1
        return _Task(max(seconds, measured.seconds / 2), number=self._next - 1)

    def _give_back(self, task: _Task, cores: int, *, finished: bool) -> None:
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


@dataclass(frozen=True)
class Segment:
    """What a worker does with a task until the task or the block ends; s."""

    wall: float
    """Whole seconds."""
    kept: float
    lost: float
    overhead: float
    finished: bool


def cut(rest: float, left: float, work: Work, strategy: Strategy, resumed: bool) -> Segment:
    """Return how far a task gets.

    Parameters
    ----------
    rest : float, s
        Of the task.
    left : float, s
        Until the block's end, or until a task that knows the deadline must leave.
    work : Work
    strategy : Strategy
    resumed : bool
        Whether it goes on from a checkpoint.
    """
    every, cost = work.checkpoint_every, work.checkpoint_seconds
    begin = cost if resumed else 0.0
    writes = math.ceil(rest / every) - 1
    whole = begin + rest + writes * cost
    if whole <= left:
        wall = math.ceil(whole)
        # The fraction of a second that the clock does not know counts as overhead.
        return Segment(wall, rest, 0.0, wall - rest, finished=True)
    usable = max(left - begin, 0.0)
    writes = int(usable // (every + cost))
    if strategy.knows_deadline:
        # The last checkpoint is written just before the end; less than a step is lost.
        rests = usable - writes * (every + cost)
        kept = writes * every + max(rests - cost, 0.0)
        return Segment(left, kept, 0.0, left - kept, finished=False)
    kept = writes * every
    computed = usable - writes * cost
    return Segment(left, kept, computed - kept, left - computed, finished=False)


def _best(windows: Iterable[Window]) -> list[Window]:
    """Drop windows that another of the same shape outlasts."""
    longest: dict[tuple[int, int], Window] = {}
    for window in windows:
        key = (window.nodes, window.cores)
        if window.nodes > 0 and (key not in longest or longest[key].seconds < window.seconds):
            longest[key] = window
    return list(longest.values())
