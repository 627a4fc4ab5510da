"""Mirror symmetries of a site, and of the flow in it.

A house whose screens and canopy look the same in a mirror has flows that do so too: mirroring the
wind mirrors the field. That is up to four runs for the price of one, and exact.
"""

from __future__ import annotations

import numpy as np

from apps.space import Space
from edge_agent.contracts.site import CanopyRow, Panel, Site

#: Which axes a mirror flips, (x, y).
Mirror = tuple[bool, bool]

IDENTITY: Mirror = (False, False)
_OPPOSITE = {"x0": "x1", "x1": "x0", "y0": "y1", "y1": "y0", "roof": "roof"}
#: Coordinates of a site file are compared to a tenth of a millimetre.
_DECIMALS = 4


def symmetries(site: Site) -> tuple[Mirror, ...]:
    """Return the mirrors that leave the house unchanged, the identity first.

    Footprint and output grid are symmetric by construction; screens and canopy decide. Sensors do
    not count: they do not touch the flow.

    Parameters
    ----------
    site : Site

    Returns
    -------
    tuple of (bool, bool)
        A group of one, two or four elements.
    """
    candidates: tuple[Mirror, ...] = ((True, False), (False, True), (True, True))
    panels = sorted(_panel(site, p, IDENTITY) for p in site.panels)
    canopy = sorted(_canopy(site, c, IDENTITY) for c in site.canopy)
    same = [
        m
        for m in candidates
        if sorted(_panel(site, p, m) for p in site.panels) == panels
        and sorted(_canopy(site, c, m) for c in site.canopy) == canopy
    ]
    return (IDENTITY, *same)


def mirror_field(wind: np.ndarray, mirror: Mirror) -> np.ndarray:
    """Return fields as seen in a mirror.

    Parameters
    ----------
    wind : (..., 3, nz, ny, nx) array, m/s
    mirror : (bool, bool)

    Returns
    -------
    (..., 3, nz, ny, nx) array, m/s
    """
    out = wind
    for flips, axis, component in ((mirror[0], -1, 0), (mirror[1], -2, 1)):
        if flips:
            out = np.flip(out, axis)
            sign = np.ones(3, dtype=wind.dtype)
            sign[component] = -1
            out = out * sign[:, None, None, None]
    return np.asarray(out)


def mirror_direction(from_direction: np.ndarray, mirror: Mirror, bearing: float) -> np.ndarray:
    """Return the direction that mirrored winds come from.

    Parameters
    ----------
    from_direction : (n,) array, degrees
    mirror : (bool, bool)
    bearing : float, degrees
        Compass bearing of the house's +x axis.

    Returns
    -------
    (n,) float64, degrees in [0, 360)
    """
    # Relative to +x a bearing b becomes 180 - b where x flips, and -b where y flips.
    relative = np.asarray(from_direction, dtype=float) - bearing
    if mirror[0]:
        relative = 180.0 - relative
    if mirror[1]:
        relative = -relative
    return np.asarray((relative + bearing) % 360.0)


def mirror_panels(site: Site, panels: tuple[str, ...], mirror: Mirror) -> list[tuple[int, bool]]:
    """Return what becomes of panels in a mirror that leaves the house unchanged.

    Parameters
    ----------
    site : Site
    panels : tuple of str
        Names.
    mirror : (bool, bool)
        One of `symmetries`.

    Returns
    -------
    list of (int, bool)
        For each panel, the place in `panels` of its mirror image, and whether the first coordinate
        along it is turned round.
    """
    named = {p.name: p for p in site.panels}
    seen = {_panel(site, named[name], IDENTITY): k for k, name in enumerate(panels)}
    found = []
    for name in panels:
        panel = named[name]
        turned = mirror[1] if panel.face in {"x0", "x1"} else mirror[0]
        found.append((seen[_panel(site, panel, mirror)], turned))
    return found


def mirror_scenarios(inputs: np.ndarray, site: Site, space: Space, mirror: Mirror) -> np.ndarray:
    """Return scenarios as seen in a mirror.

    Parameters
    ----------
    inputs : (n, 2 + columns) array
        Wind speed, direction and state in the columns of `space`.
    site : Site
    space : Space
    mirror : (bool, bool)
        One of `symmetries`.

    Returns
    -------
    (n, 2 + columns) float64
    """
    found = np.array(inputs, dtype=float)
    found[:, 1] = mirror_direction(found[:, 1], mirror, site.footprint.x_axis_bearing)
    if space.panels:
        first = 2 + len(space.scalars)
        named = {p.name: p for p in site.panels}
        panel, centre = found[:, first].copy(), found[:, first + 1].copy()
        for k, (other, turned) in enumerate(mirror_panels(site, space.panels, mirror)):
            here, there = named[space.panels[k]], named[space.panels[other]]
            torn = np.abs(panel - (k + 1)) < 0.5
            along = centre[torn] - here.start[0]
            along = here.end[0] - here.start[0] - along if turned else along
            found[torn, first], found[torn, first + 1] = other + 1, there.start[0] + along
    return found


def _flip(interval: tuple[float, float], length: float, flips: bool) -> tuple[float, float]:
    low, high = interval
    if flips:
        low, high = length - high, length - low
    return (round(low, _DECIMALS), round(high, _DECIMALS))


def _panel(site: Site, panel: Panel, mirror: Mirror) -> tuple[object, ...]:
    """Return all that a panel does to the flow, as seen in the mirror."""
    along_x = panel.face in {"y0", "y1", "roof"}
    first = (panel.start[0], panel.end[0])
    second = (panel.start[1], panel.end[1])
    box = site.footprint
    first = _flip(
        first, box.length_x if along_x else box.length_y, mirror[0] if along_x else mirror[1]
    )
    second = _flip(second, box.length_y, mirror[1] and panel.face == "roof")
    flipped = mirror[0] if panel.face[0] == "x" else mirror[1]
    face = _OPPOSITE[panel.face] if flipped else panel.face
    return (face, first, second, panel.screen.linear, panel.screen.constant)


def _canopy(site: Site, row: CanopyRow, mirror: Mirror) -> tuple[object, ...]:
    x = _flip((row.start[0], row.end[0]), site.footprint.length_x, mirror[0])
    y = _flip((row.start[1], row.end[1]), site.footprint.length_y, mirror[1])
    return (x, y, row.height, row.drag_area_density)
