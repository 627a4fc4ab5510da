"""Which nodes nobody is promised, from each time to the next: the plan of one backfill cycle."""

from __future__ import annotations

import math
from typing import NamedTuple


class Step(NamedTuple):
    """Nodes that no waiting job is promised for a while."""

    begin: float
    """s."""
    end: float
    """s."""
    nodes: int
    """As bits."""


class Timetable:
    """Promises to waiting jobs; what runs is not in it (``node_space`` in Slurm's backfill.c).

    Parameters
    ----------
    begin, end : float, s
        Of the time that is planned.
    nodes : int
        The machine's, as bits.

    Attributes
    ----------
    steps : list of Step
        In order of time, without gaps.
    """

    def __init__(self, begin: float, end: float, nodes: int) -> None:
        self.steps = [Step(begin, end, nodes)]

    def free(self, nodes: int, start: float, end: float) -> tuple[int, float]:
        """Return which of some nodes nobody is promised from start to end, and when to try again.

        Parameters
        ----------
        nodes : int
        start, end : float, s
            A step that begins just at the end counts, as in Slurm.

        Returns
        -------
        free : int
        later : float, s
            First end of a step after which there are nodes that are not free so far; inf if none.
        """
        free, later = nodes, math.inf
        steps = self.steps
        last = len(steps) - 1
        for at, step in enumerate(steps):
            if step.end <= start:
                continue
            if later == math.inf and at < last:
                following = nodes & steps[at + 1].nodes
                if following & ~(free & step.nodes):
                    later = step.end
            if step.begin > end:
                break
            free &= step.nodes
        return free, later

    def promised(self, nodes: int, start: float, end: float) -> bool:
        """Tell whether somebody is promised any of some nodes between two times."""
        return any(
            nodes & ~step.nodes for step in self.steps if step.end > start and step.begin < end
        )

    def promise(self, nodes: int, start: float, end: float) -> None:
        """Promise nodes from start to end."""
        steps: list[Step] = []
        for step in self.steps:
            if step.end <= start or step.begin >= end:
                steps.append(step)
                continue
            if step.begin < start:
                steps.append(Step(step.begin, start, step.nodes))
            steps.append(Step(max(step.begin, start), min(step.end, end), step.nodes & ~nodes))
            if step.end > end:
                steps.append(Step(end, step.end, step.nodes))
        self.steps = steps

    def kept(self, nodes: int, now: float) -> list[tuple[float, int]]:
        """Return when fewer of some nodes stay without a promise, and how many stay until then.

        Returns
        -------
        list of (end, number)
            Ends (s) rising, after now; numbers falling. The last ends with the planned time.
        """
        kept: list[tuple[float, int]] = []
        for step, following in zip(self.steps, [*self.steps[1:], None], strict=True):
            if step.end <= now:
                continue
            nodes &= step.nodes
            if following is None or nodes & ~following.nodes:
                kept.append((step.end, nodes.bit_count()))
        return kept
