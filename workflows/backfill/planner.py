"""Which block to ask for: a pure function of windows, backlog and limits.

The rules:

1. A block never asks for more than a window: not for more nodes, cores, or time minus the margin.
2. Of what fits, the shape with the most finished work per wall-clock hour; of shapes within
   `WORTH` of the best, the one with the fewest core-hours.
3. No block is longer than the backlog needs, nor shorter than is worth its start.
4. Blocks that are asked for and have not started keep their nodes.
5. Where nothing fits, the shortest useful block waits in the queue, if the limits say so: the
   scheduler starts it in the first hole, sooner than the next reading would show us the hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workflows.backfill.windows import Window

#: Work per hour within this factor of the best counts as equal, and core-hours decide.
WORTH = 0.9


@dataclass(frozen=True)
class RunTime:
    """Measured run time of one task on so many cores of a node."""

    cores: int
    seconds: float
    """Mean, s."""
    spread: float = 0.0
    """Standard deviation, s."""


@dataclass(frozen=True)
class Backlog:
    """Work that waits for blocks."""

    tasks: int
    """Simulation tasks that are not finished and are on no block yet."""
    run_times: tuple[RunTime, ...]
    """Of one task, by cores; one entry where the campaign has fixed the cores of a task."""
    checkpoint_seconds: float = 1.0
    """What a task loses when a block ends under it: write, read, start again, s."""
    training_seconds: float = 0.0
    """Of a training that is due, s; zero if none is."""


@dataclass(frozen=True)
class BlockShape:
    """One block: what is asked of the scheduler, and how it is filled."""

    nodes: int
    cores: int
    """On each node."""
    minutes: int
    """Wall-clock limit, whole minutes: schedulers know no finer."""
    cores_per_task: int = 1
    partition: str = ""

    @property
    def slots(self) -> int:
        """Tasks that run at once."""
        return self.nodes * (self.cores // self.cores_per_task)

    @property
    def core_hours(self) -> float:
        """Cores x wall-clock limit, h."""
        return self.nodes * self.cores * self.minutes / 60


@dataclass(frozen=True)
class Limits:
    """What a machine allows, and what its blocks cost beside work."""

    max_nodes: int = 4
    """Of one block."""
    max_cores: int = 64
    """Of one block, on each node."""
    min_minutes: int = 1
    max_minutes: int = 60
    margin_seconds: float = 15.0
    """Kept free between a block's limit and its window's end, s."""
    start_seconds: float = 5.0
    """From the block's start to its first task, s."""
    leave_seconds: float = 10.0
    """Before the block's end, when no task starts any more, s."""
    queue_when_full: bool = True
    """Whether a shortest block may wait in the queue when no window fits."""


@dataclass(frozen=True)
class Decision:
    """What to ask for, and why."""

    shape: BlockShape | None
    """None: ask for nothing now."""
    reason: str
    """One line for the log and the ledger."""
    tasks: float = 0.0
    """Expected to finish, parts of tasks counted as such."""
    tasks_per_hour: float = 0.0
    """Expected, per wall-clock hour."""
    core_hours_per_task: float = 0.0
    """Expected, with start and end of the block counted."""
    window: Window | None = None
    """That the block is meant for; None when it is queued without one."""


def plan(
    windows: Sequence[Window],
    backlog: Backlog,
    limits: Limits,
    waiting: Sequence[BlockShape] = (),
) -> Decision:
    """Return the next block to ask for.

    Call it again with the answer added to `waiting` to ask for more than one at a time.

    Parameters
    ----------
    windows : sequence of Window
        What the scheduler would give now; each on offer by itself.
    backlog : Backlog
        Without the work that running and waiting blocks will take.
    limits : Limits
    waiting : sequence of BlockShape
        Blocks asked for that have not started; they will take part of the windows.
    """
    raise NotImplementedError
