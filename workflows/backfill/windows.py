"""What the scheduler would give now: free cores per node, and for how long.

Pure: types, and parsers of what an ordinary user may read. `workflows.backfill.provider` runs the
commands. A **gap** is one node's free cores until they are promised to somebody else; a **window**
is a rectangle of gaps, nodes x cores x seconds, that one block can fill.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
