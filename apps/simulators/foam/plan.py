"""How a case's screens are put to OpenFOAM: exact baffles, or thick porous zones where those fail.

A baffle's pressure jump follows the flow one iteration late; the gain of that loop grows with the
loss and shrinks with the under-relaxation of the velocity, which so follows from the stiffest
screen. Screens beyond what any sensible relaxation holds become zones, four cells thick, whose
coefficient a duct run has calibrated (`calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apps.simulators.flow.grid import SolverGrid
from apps.simulators.foam.screens import Baffle

#: The loop's gain is the slope of the jump over the speed of the cells beside it, which is that
#: through the screen and what flows along it (`_ALONG`). Measured over K of 3 to 40, a/U of 1.2 to
#: 30 and 7 200 to 72 000 cells: under-relaxation times gain converges up to 0.85 to 1.1, and not
#: from 1.7 on.
_GAIN, _ALONG = 0.9, 0.5
#: Largest and smallest under-relaxation of the velocity; a screen that needs less becomes a zone.
RELAX, SLOWEST = 0.7, 0.02
#: Cells across a zone: one makes half of the intended loss (Rhie and Chow's interpolation).
THICK = 4


def through_speed(linear: float, constant: float, approach: float) -> float:
    """Return the representative speed through a screen, over the wind speed.

    At it, the screen's loss and the dynamic pressure behind it use up that of the approaching wind:
    u^2 + linear u + constant u^2 = approach^2.
    """
    a, b = linear, 1.0 + constant
    # The smaller root's usual form cancels where the viscous part is large.
    return 2.0 * approach**2 / (a + float(np.sqrt(a * a + 4.0 * b * approach**2)))


def relaxation(baffle: Baffle, approach: float) -> float:
    """Return the under-relaxation of the velocity that a baffle stands."""
    speed = through_speed(baffle.linear, baffle.constant, approach)
    slope = baffle.constant * speed + 0.5 * baffle.linear
    return min(RELAX, _GAIN * (speed + _ALONG) / slope)


@dataclass(frozen=True)
class Plan:
    """Which screens are zones, and how strongly to under-relax."""

    baffles: tuple[Baffle, ...]
    """The exact ones."""
    thick: tuple[Baffle, ...]
    """To be made zones."""
    relax_u: float
    """Under-relaxation of the velocity."""


def plan(found: list[Baffle], approach: float) -> Plan:
    """Return the plan for the screens of a case.

    Parameters
    ----------
    found : list of Baffle
    approach : float
        Undisturbed wind at the roof over that at reference height.
    """
    relax = {b: relaxation(b, approach) for b in found}
    exact = tuple(b for b in found if relax[b] >= SLOWEST)
    thick = tuple(b for b in found if relax[b] < SLOWEST)
    return Plan(exact, thick, min((relax[b] for b in exact), default=RELAX))


def refined(grid: SolverGrid, thick: tuple[Baffle, ...]) -> SolverGrid:
    """Return the grid with the cells inside the house along thick screens split into THICK."""
    nodes, house = [], []
    for axis, (lines, (first, last)) in enumerate(zip(grid.nodes, grid.house, strict=True)):
        places = {b.place for b in thick if b.axis == axis}
        parts, added = [lines[:1]], 0
        for k in range(len(lines) - 1):
            low = k == first and float(lines[first]) in places and axis < 2
            high = k == last - 1 and float(lines[last]) in places
            split = THICK if low or high else 1
            parts.append(np.linspace(lines[k], lines[k + 1], split + 1)[1:])
            added += split - 1
        nodes.append(np.concatenate(parts))
        house.append((first, last + added))
    return SolverGrid((nodes[0], nodes[1], nodes[2]), (house[0], house[1], house[2]))


def zone_cells(baffle: Baffle, grid: SolverGrid) -> np.ndarray:
    """Return the (nz, ny, nx) mask of the cells that stand for a thick screen."""
    shape = grid.cells[::-1]
    lines, (first, last) = grid.nodes[baffle.axis], grid.house[baffle.axis]
    low = baffle.axis < 2 and abs(float(lines[first]) - baffle.place) < 1e-9
    along = slice(first, first + THICK) if low else slice(last - THICK, last)
    mask = np.zeros(shape, dtype=bool)
    others = [a for a in range(3) if a != baffle.axis]
    for start, end in baffle.rectangles:
        index: list[slice] = [along] * 3
        for axis, begin, stop in zip(others, start, end, strict=True):
            centres = grid.centres(axis)
            inside = np.flatnonzero((centres > begin) & (centres < stop))
            index[axis] = slice(int(inside[0]), int(inside[-1]) + 1)
        mask[index[2], index[1], index[0]] = True
    return mask
