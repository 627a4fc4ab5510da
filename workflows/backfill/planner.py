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

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workflows.backfill.windows import Window

#: Work per hour within this factor of the best counts as equal, and core-hours decide.
WORTH = 0.9

#: Up to so many nodes every count is tried.
FEW = 64


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

    def __str__(self) -> str:
        return f"{self.nodes} x {self.cores} cores x {self.minutes} min"


@dataclass(frozen=True)
class Limits:
    """What a machine allows, and what its blocks cost beside work."""

    max_nodes: int = 4
    """Of one block."""
    max_cores: int = 64
    """Of one block, on each node."""
    max_tasks: int = 1_000_000
    """At once on one node; a GPU takes one."""
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
    work = backlog.tasks + (1 if backlog.training_seconds > 0 else 0)
    if work == 0:
        return Decision(None, "nothing waits for a block")
    choices = [
        choice
        for window in (_less(w, waiting) for w in windows)
        if window.nodes > 0
        for choice in _choices(window, backlog, limits)
    ]
    if not choices:
        return _without_window(windows, backlog, limits, waiting)
    best = max(choice.tasks_per_hour for choice in choices)
    good = [choice for choice in choices if choice.tasks_per_hour >= WORTH * best]
    chosen = min(good, key=lambda c: (c.core_hours_per_task, -c.tasks_per_hour))
    return replace(chosen, reason=_reason(chosen, limits, len(choices)))


def _less(window: Window, waiting: Sequence[BlockShape]) -> Window:
    """Return what is left of a window when waiting blocks have taken their nodes."""
    taken = sum(shape.nodes for shape in waiting if shape.partition in ("", window.partition))
    return replace(window, nodes=window.nodes - taken)


def _choices(window: Window, backlog: Backlog, limits: Limits) -> list[Decision]:
    fits = limits.max_minutes
    if math.isfinite(window.seconds):
        fits = min(fits, int((window.seconds - limits.margin_seconds) // 60))
    cores = min(window.cores, limits.max_cores)
    if fits < limits.min_minutes:
        return []
    return [
        choice
        for run_time in backlog.run_times
        if run_time.cores <= cores
        for nodes in _counts(min(window.nodes, limits.max_nodes))
        if (choice := _choice(window, backlog, limits, run_time, nodes, fits)) is not None
    ]


def _counts(most: int) -> list[int]:
    """Return node counts to try: all of a few, powers of two of many."""
    if most <= FEW:
        return list(range(1, most + 1))
    return sorted({*(2**k for k in range(most.bit_length())), most})


def _choice(
    window: Window, backlog: Backlog, limits: Limits, run_time: RunTime, nodes: int, fits: int
) -> Decision | None:
    """Return what one shape would do, or None if it is not worth its start."""
    # A training takes a worker as so many tasks would.
    tasks = backlog.tasks + backlog.training_seconds / run_time.seconds
    wanted = math.ceil(max(backlog.tasks, 1) / nodes)
    cores = min(window.cores, limits.max_cores)
    per_node = min(cores // run_time.cores, wanted, limits.max_tasks)
    slots = nodes * per_node
    if slots > backlog.tasks + (backlog.training_seconds > 0):
        return None
    idle = limits.start_seconds + limits.leave_seconds
    # The last task of a full block ends late: two standard deviations beyond the mean.
    busy = tasks / slots * run_time.seconds
    busy = max(busy, run_time.seconds) + 2 * run_time.spread
    minutes = max(limits.min_minutes, min(fits, math.ceil((idle + busy) / 60)))
    useful = min(60 * minutes - idle, busy)
    # What is under way at the end goes on in another block, for the price of a checkpoint.
    cut = useful < busy
    done = min(tasks, slots * (useful - cut * backlog.checkpoint_seconds) / run_time.seconds)
    if useful <= backlog.checkpoint_seconds or done <= 0:
        return None
    shape = BlockShape(nodes, per_node * run_time.cores, minutes, run_time.cores, window.partition)
    hours = (idle + useful) / 3600
    return Decision(
        shape,
        "",
        tasks=done,
        tasks_per_hour=done / hours,
        core_hours_per_task=shape.nodes * shape.cores * hours / done,
        window=window,
    )


def _reason(chosen: Decision, limits: Limits, tried: int) -> str:
    shape, window = chosen.shape, chosen.window
    if shape is None or window is None:
        return chosen.reason
    length = f"{window.seconds:.0f} s" if math.isfinite(window.seconds) else "no end"
    kind = "window" if window.seen else "assumed window"
    return (
        f"{shape} in a {kind} of {window.nodes} x {window.cores} x {length}"
        f" (margin {limits.margin_seconds:.0f} s): {chosen.tasks:.1f} tasks,"
        f" {chosen.tasks_per_hour:.0f} tasks/h, {chosen.core_hours_per_task:.4f} core-h each;"
        f" best of {tried} shapes"
    )


def _without_window(
    windows: Sequence[Window],
    backlog: Backlog,
    limits: Limits,
    waiting: Sequence[BlockShape],
) -> Decision:
    longest = max((w.seconds for w in windows), default=0.0)
    seen = f"the longest of {len(windows)} windows is {longest:.0f} s" if windows else "no window"
    if waiting:
        return Decision(None, f"{seen}; {len(waiting)} blocks wait already")
    if not limits.queue_when_full:
        return Decision(None, f"{seen}; a block needs {60 * limits.min_minutes} s and the margin")
    run_time = min(backlog.run_times, key=lambda r: r.cores * r.seconds)
    slots = max(1, min(limits.max_cores // run_time.cores, backlog.tasks, limits.max_tasks))
    least = limits.start_seconds + limits.leave_seconds + 2 * backlog.checkpoint_seconds
    minutes = max(limits.min_minutes, math.ceil(least / 60))
    shape = BlockShape(1, slots * run_time.cores, minutes, run_time.cores)
    return Decision(shape, f"{shape} queued as the shortest useful block: {seen}")
