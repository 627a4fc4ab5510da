"""Screens with tears on the solver's grid: what a face cell has left, and what it can show."""

from __future__ import annotations

import numpy as np

from apps.scenarios import Scenario, Tear
from apps.simulators.flow.grid import ALONG, SolverGrid
from edge_agent.contracts.site import Panel, Site


def overlap(edges: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the share of each cell between `edges` that lies between `start` and `end`."""
    covered = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(np.clip(covered / np.diff(edges), 0.0, 1.0))


def left_of(panel: Panel, scenario: Scenario, grid: SolverGrid) -> np.ndarray:
    """Return the share of each face cell's area that a panel's screen covers.

    A tear that does not fit the cells keeps its area, not its shape: the face cells that it
    touches lose that share of their loss.

    Returns
    -------
    (nz, ny, nx) array
        With a length of 1 along the panel's normal.
    """
    rest = _rectangle(panel, (panel.start[0], panel.end[0]), (panel.start[1], panel.end[1]), grid)
    for tear in scenario.tears:
        if tear.panel == panel.name:
            span = tear.span or (panel.start[1], panel.end[1])
            rest = rest - tear.open_fraction * _rectangle(panel, tear.along, span, grid)
    return np.asarray(np.clip(rest, 0.0, 1.0))


def smallest_tear(panel: Panel, grid: SolverGrid) -> tuple[float, float]:
    """Return the smallest tear of a panel, (width, span) in m, that keeps its shape on the grid.

    That is the largest face cell of the panel: a narrower tear lets the same area through, as a
    wider and weaker jet.
    """
    sizes = []
    for axis, start, end in zip(ALONG[panel.face], panel.start, panel.end, strict=True):
        nodes = grid.nodes[axis]
        touched = overlap(nodes, start, end) > 0
        sizes.append(float(np.diff(nodes)[touched].max(initial=0.0)))
    return sizes[0], sizes[1]


def unresolved(site: Site, scenario: Scenario, grid: SolverGrid) -> tuple[Tear, ...]:
    """Return the tears of a scenario that are narrower or lower than a cell."""
    panels = {p.name: p for p in site.panels}
    found = []
    for tear in scenario.tears:
        panel = panels[tear.panel]
        low, high = tear.span or (panel.start[1], panel.end[1])
        width, span = smallest_tear(panel, grid)
        # A panel lower than a cell is not the tear's fault.
        whole = tear.span is None
        if tear.width < 0.999 * width or (not whole and high - low < 0.999 * span):
            found.append(tear)
    return tuple(found)


def _rectangle(
    panel: Panel, first: tuple[float, float], second: tuple[float, float], grid: SolverGrid
) -> np.ndarray:
    shares = [np.ones(1)] * 3
    for axis, extent in zip(ALONG[panel.face], (first, second), strict=True):
        shares[axis] = overlap(grid.nodes[axis], *extent)
    x, y, z = shares
    return np.asarray(z[:, None, None] * y[:, None] * x)
