"""What a campaign computes, how far a task gets in a block, and what that costs."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from workflows.backfill.planner import BlockShape, RunTime
from workflows.config import FrozenSizes, Training


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
class Task:
    """A simulation or a training under way."""

    seconds: float
    """On the cores that it is fixed to."""
    done: float = 0.0
    """Of it, s."""
    number: int = -1
    """Of a simulation; -1: a training."""


def read_run_times(path: Path) -> tuple[RunTime, ...]:
    """Read measured run times: ``cores,seconds_mean,seconds_sd``."""
    with path.open(newline="") as file:
        return tuple(
            RunTime(int(row["cores"]), float(row["seconds_mean"]), float(row["seconds_sd"]))
            for row in csv.DictReader(file)
        )


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
