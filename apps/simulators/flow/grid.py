"""The solver's grid: a box around the house whose lines run along the walls and the roof."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.contracts.site import Panel, Site

#: Open ground on each side of the house, m.
MARGIN = 60.0
#: Height of the domain over the height of the house.
TOP = 8.0
#: Share of the vertical cells below the roof, where there are enough for both sides of it; else
#: as many as `_FEW_BELOW`, but `_FEWEST_ABOVE` stay above: inside, coarse cells cost more accuracy.
_BELOW_ROOF = 0.5
_FEW_BELOW, _FEWEST_ABOVE = 5, 3
#: A panel edge gets a grid line of its own unless that makes a cell narrower than this share of
#: an even one: narrow cells cost time steps.
_NARROWEST = 0.5
#: Axes of a panel's two coordinates.
ALONG = {"x0": (1, 2), "x1": (1, 2), "y0": (0, 2), "y1": (0, 2), "roof": (0, 1)}


@dataclass(frozen=True)
class SolverGrid:
    """A rectilinear grid in the house frame."""

    nodes: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Cell edges along x, y, z, m."""
    house: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """First and last edge of the house along each axis."""

    @property
    def cells(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        nx, ny, nz = (len(n) - 1 for n in self.nodes)
        return nx, ny, nz

    def centres(self, axis: int) -> np.ndarray:
        """Return the cell centres along an axis, m."""
        nodes = self.nodes[axis]
        return np.asarray(0.5 * (nodes[1:] + nodes[:-1]))


def build_grid(site: Site, cells: tuple[int, int, int]) -> SolverGrid:
    """Return the grid of a site with `cells` cells (x, y, z) in all.

    Cells inside the house are even, or even between panel edges and canopy tops where these get
    lines; outside they grow geometrically.
    """
    box = (site.footprint.length_x, site.footprint.length_y)
    nodes, house = [], []
    for axis, (length, n) in enumerate(zip(box, cells[:2], strict=True)):
        # The square root gives the margin fewer cells than its length would, but not too few.
        inside = n * float(np.sqrt(length / (length + 2 * MARGIN)))
        outside = max(1, round((n - inside) / 2))
        inner = _inside(length, n - 2 * outside, panel_edges(site.panels, axis))
        low = -_growing(inner[1] - inner[0], MARGIN, outside)[::-1]
        high = length + _growing(inner[-1] - inner[-2], MARGIN, outside)
        nodes.append(np.concatenate([low, inner, high]))
        house.append((outside, n - outside))
    height, n = site.footprint.height, cells[2]
    below = max(2, round(_BELOW_ROOF * n), min(_FEW_BELOW, n - _FEWEST_ABOVE))
    tops = {row.height for row in site.canopy}
    inner = _inside(height, below, panel_edges(site.panels, 2) | tops)
    rest = height * (TOP - 1)
    nodes.append(np.concatenate([inner, height + _growing(inner[-1] - inner[-2], rest, n - below)]))
    house.append((0, below))
    return SolverGrid((nodes[0], nodes[1], nodes[2]), (house[0], house[1], house[2]))


def panel_edges(panels: tuple[Panel, ...], axis: int) -> set[float]:
    """Return where panels begin and end along an axis, m."""
    return {
        corner[ALONG[panel.face].index(axis)]
        for panel in panels
        if axis in ALONG[panel.face]
        for corner in (panel.start, panel.end)
    }


def _inside(length: float, n: int, edges: set[float]) -> np.ndarray:
    """Return n + 1 edges from 0 to `length`, on as many panel edges as fit."""
    even = length / n
    breaks = [0.0, length]
    for edge in sorted(edges):
        counts = _share([*breaks, edge], n) if 0 < edge < length and edge not in breaks else None
        if counts is not None and min(w / c for w, c in counts) >= _NARROWEST * even:
            breaks.append(edge)
    parts = _share(breaks, n) or [(length, n)]
    steps = np.concatenate([np.full(c, w / c) for w, c in parts])
    nodes = np.concatenate([[0.0], np.cumsum(steps)])
    nodes[-1] = length
    return nodes


def _share(breaks: list[float], n: int) -> list[tuple[float, int]] | None:
    """Share n cells among the gaps between breaks: (width, cells) each, or None if too few."""
    widths = np.diff(sorted(breaks))
    counts = np.maximum(1, np.round(widths / widths.sum() * n).astype(int))
    while counts.sum() != n:
        if counts.sum() < n:
            counts[np.argmax(widths / counts)] += 1
        elif counts.max() == 1:
            return None
        else:
            # Where a cell fewer leaves the narrowest cells; a gap of one cell keeps it.
            width = np.where(counts > 1, widths / np.maximum(counts - 1, 1), np.inf)
            counts[np.argmin(width)] -= 1
    return [(float(w), int(c)) for w, c in zip(widths, counts, strict=True)]


def _growing(first: float, total: float, n: int) -> np.ndarray:
    """Return n edges after 0 up to `total`; cells grow by a constant ratio from beside `first`."""
    low, high = 1e-3, 1e3
    for _ in range(200):
        ratio = 0.5 * (low + high)
        if first * np.sum(ratio ** np.arange(1, n + 1)) > total:
            high = ratio
        else:
            low = ratio
    edges = np.cumsum(first * ratio ** np.arange(1, n + 1))
    return np.asarray(edges * (total / edges[-1]))
