"""The screens of a house as plain rectangles, for pictures."""

from __future__ import annotations

from typing import NamedTuple

from apps.scenarios import Scenario
from edge_agent.contracts.site import Site


class Piece(NamedTuple):
    """A rectangle of screen, or of a tear."""

    name: str
    """Of the panel."""
    axis: int
    """Its normal: 0 x, 1 y, 2 z."""
    place: float
    """Where it stands along the normal, m."""
    first: tuple[float, float]
    """From and to along its first coordinate, m."""
    second: tuple[float, float]
    """From and to along its second, m."""
    open_fraction: float
    """Zero for a whole one."""


def pieces(site: Site, scenario: Scenario) -> list[Piece]:
    """Return every panel and then every tear, which lies over its panel."""
    box = site.footprint
    places = {
        "x0": (0, 0.0),
        "x1": (0, box.length_x),
        "y0": (1, 0.0),
        "y1": (1, box.length_y),
        "roof": (2, box.height),
    }
    panels = {p.name: p for p in site.panels}
    found = []
    for panel in site.panels:
        (a, c), (b, d) = panel.start, panel.end
        found.append(Piece(panel.name, *places[panel.face], (a, b), (c, d), 0.0))
    for tear in scenario.tears:
        panel = panels[tear.panel]
        span = tear.span or (panel.start[1], panel.end[1])
        found.append(Piece(panel.name, *places[panel.face], tear.along, span, tear.open_fraction))
    return found
