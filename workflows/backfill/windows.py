"""What the scheduler would give now: free cores per node, and for how long.

Pure: types, and what can be said from a scheduler's answers (`workflows.backfill.slurm` asks). A
**gap** is one node's free cores until they are promised to somebody else; a **window** is a
rectangle of gaps, nodes x cores x seconds, that one block can fill.

Where a centre hides other people's jobs, nobody can read how long a node stays free. Then `probe`
assumes a length from how past blocks fared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: A block that waited no longer than this found its window, s.
PROMPT_SECONDS = 60.0


@dataclass(frozen=True)
class Gap:
    """Free cores of one node."""

    node: str
    cores: int
    """Free now."""
    seconds: float
    """Until somebody else is promised the node, s; infinity if nobody is."""


@dataclass(frozen=True)
class Window:
    """Nodes x cores x time that one block can have at once."""

    nodes: int
    """Nodes that are free together."""
    cores: int
    """Free on each of them."""
    seconds: float
    """For how long from now, s; infinity if nothing ends it."""
    partition: str = ""
    """Where."""
    seen: bool = True
    """Whether the scheduler shows it; False: assumed, because other people's jobs are hidden."""


def windows_of(
    gaps: Iterable[Gap], partition: str = "", max_seconds: float = math.inf
) -> tuple[Window, ...]:
    """Return the largest rectangles of gaps, the longest first.

    Every window is on offer by itself; two of them may share nodes.

    Parameters
    ----------
    gaps : iterable of Gap
    partition : str
    max_seconds : float
        The partition's longest job, s.
    """
    usable = [
        Gap(g.node, g.cores, min(g.seconds, max_seconds))
        for g in gaps
        if g.cores > 0 and g.seconds > 0
    ]
    found: list[Window] = []
    for cores in sorted({g.cores for g in usable}):
        lengths = sorted((g.seconds for g in usable if g.cores >= cores), reverse=True)
        for nodes, seconds in enumerate(lengths, 1):
            if nodes == len(lengths) or lengths[nodes] < seconds:
                found.append(Window(nodes, cores, seconds, partition))
    return tuple(sorted(_largest(found), key=lambda w: (-w.seconds, -w.nodes, -w.cores)))


def _largest(windows: Sequence[Window]) -> list[Window]:
    """Drop every window that another one holds."""
    return [
        w
        for w in windows
        if not any(
            o != w and o.nodes >= w.nodes and o.cores >= w.cores and o.seconds >= w.seconds
            for o in windows
        )
    ]


@dataclass(frozen=True)
class Promise:
    """Nodes that somebody else gets at a time: a planned start or a reservation."""

    nodes: tuple[str, ...]
    seconds: float
    """From now, s; zero or less if it should have begun."""
    who: str = ""
    """Job or reservation."""


@dataclass(frozen=True)
class Partition:
    """What a partition allows."""

    name: str
    max_seconds: float = math.inf
    """Longest job, s."""
    max_nodes: float = math.inf
    """Of one job."""
    up: bool = True
    grace_seconds: float = 0.0
    """Between a preemption and the end, s; zero if its jobs are not preempted or have none."""


@dataclass(frozen=True)
class Reading:
    """What the scheduler's answers say, at one time."""

    partition: Partition
    gaps: tuple[Gap, ...] = ()
    hidden: bool = False
    """Whether other people's jobs are hidden: then gaps may end sooner than they seem to."""
    unplanned: int = 0
    """Pending jobs that the scheduler has not planned; they may take a gap at any time."""
    promises: tuple[Promise, ...] = field(default=())
    """That end the gaps."""

    def windows(self) -> tuple[Window, ...]:
        """Return the windows that the scheduler shows; none where it hides jobs."""
        if self.hidden or not self.partition.up:
            return ()
        found = windows_of(self.gaps, self.partition.name, self.partition.max_seconds)
        most = self.partition.max_nodes
        return tuple(
            w if w.nodes <= most else Window(int(most), w.cores, w.seconds, w.partition)
            for w in found
        )


@dataclass(frozen=True)
class Probe:
    """How a block of ours fared."""

    minutes: int
    """Its wall-clock limit."""
    waited: float
    """From submission to start, or until now if it has not started, s."""
    started: bool


def read_gaps(
    nodes: Iterable[tuple[str, bool, int]], promises: Iterable[Promise]
) -> tuple[Gap, ...]:
    """Return the gaps of nodes given as (name, usable, idle cores).

    A promise takes the whole node: what of it the other job leaves free is not known beforehand.
    """
    ends: dict[str, float] = {}
    for promise in promises:
        for node in promise.nodes:
            ends[node] = min(ends.get(node, math.inf), max(0.0, promise.seconds))
    return tuple(
        Gap(name, idle, ends.get(name, math.inf)) for name, usable, idle in nodes if usable
    )


def probe(
    reading: Reading, history: Sequence[Probe], margin: float, longest: int = 60
) -> tuple[Window, ...]:
    """Return one assumed window where jobs are hidden: idle nodes, for as long as has worked.

    Starts at one minute; doubles after a block that started promptly, halves after one that
    did not.

    Parameters
    ----------
    reading : Reading
    history : sequence of Probe
        Oldest first.
    margin : float
        That the planner keeps, s.
    longest : int
        Never assume more, minutes.
    """
    minutes = 1
    for tried in history:
        if tried.started and tried.waited <= PROMPT_SECONDS:
            minutes = min(longest, max(minutes, 2 * tried.minutes))
        elif tried.waited > PROMPT_SECONDS:
            minutes = max(1, min(minutes, tried.minutes // 2))
    idle = [gap for gap in reading.gaps if gap.cores > 0]
    if not idle or not reading.partition.up:
        return ()
    seconds = min(60 * minutes + margin, reading.partition.max_seconds)
    cores = min(gap.cores for gap in idle)
    # One node: a wide block in the dark is the one that waits longest.
    return (Window(1, cores, seconds, reading.partition.name, seen=False),)
