"""Screens and canopy of a case as OpenFOAM takes them: baffles, porous zones, cell zones.

They are read off the embedded solver's `Problem`, so both solvers see the same panels, tears and
partly covered faces. Velocities are in units of the wind speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apps.simulators.flow.grid import SolverGrid
from apps.simulators.flow.problem import Problem

Rectangle = tuple[tuple[float, float], tuple[float, float]]
#: Coefficients that agree to so many digits are one.
_DIGITS = 6


@dataclass(frozen=True)
class Baffle:
    """Faces on one plane with one loss, K(U) = linear / U + constant."""

    name: str
    """Of the face zone; its patches are NAME_m and NAME_s."""
    axis: int
    """Normal: 0 x, 1 y, 2 z."""
    place: float
    """Where the plane lies along the axis, m."""
    rectangles: tuple[Rectangle, ...]
    """(low, high) corners in the two other axes, m."""
    linear: float
    """Viscous part of the loss over the wind speed."""
    constant: float
    """Inertial part."""


@dataclass(frozen=True)
class Zone:
    """Cells with a drag of (linear + quadratic |U| / 2) U, each axis on its own, over the mass."""

    name: str
    """Of the cell zone."""
    cells: np.ndarray
    """(nz, ny, nx) mask."""
    linear: tuple[float, float, float]
    """Darcy's part over the wind speed, 1/m."""
    quadratic: tuple[float, float, float]
    """Forchheimer's part, 1/m."""


def baffles(problem: Problem) -> list[Baffle]:
    """Return the screens of a problem of one case; faces without loss are open."""
    found: list[Baffle] = []
    for plane, screen in enumerate(problem.screens):
        centres = problem.grid.centres(screen.axis)
        distance = centres[screen.index] - centres[screen.index - 1]
        # drag = K / (2 distance) in the problem's units
        linear, constant = (
            np.squeeze(part[..., 0] * (2 * distance), axis=2 - screen.axis)
            for part in (screen.linear, screen.quadratic)
        )
        edges = [problem.grid.nodes[a] for a in range(3) if a != screen.axis]
        pairs = np.stack([_rounded(linear), _rounded(constant)], axis=-1)
        for loss in np.unique(pairs.reshape(-1, 2), axis=0):
            if loss.any():
                mask = (pairs == loss).all(axis=-1)
                found.append(
                    Baffle(
                        name=f"screen{plane}_{len(found)}",
                        axis=screen.axis,
                        place=float(problem.grid.nodes[screen.axis][screen.index]),
                        rectangles=_rectangles(mask, edges[0], edges[1]),
                        linear=float(loss[0]),
                        constant=float(loss[1]),
                    )
                )
    return found


def canopy_zones(problem: Problem) -> list[Zone]:
    """Return zones of equal canopy drag Cd LAD |U| U."""
    values = _rounded(problem.canopy)
    zones: list[Zone] = []
    for value in np.unique(values[values > 0]):
        drag = 2 * float(value)
        zones.append(
            Zone(f"canopy{len(zones)}", values == value, (0.0, 0.0, 0.0), (drag, drag, drag))
        )
    return zones


def inside(grid: SolverGrid) -> tuple[slice, slice, slice]:
    """Return the slices (z, y, x) of the cells in the house."""
    (i0, i1), (j0, j1), (k0, k1) = grid.house
    return slice(k0, k1), slice(j0, j1), slice(i0, i1)


def _rounded(values: np.ndarray) -> np.ndarray:
    scale = float(np.abs(values).max()) or 1.0
    return np.asarray(np.round(values / scale, _DIGITS) * scale)


def _rectangles(mask: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[Rectangle, ...]:
    """Return rectangles that cover a (second, first) mask of cells, each cell once."""
    left = mask.copy()
    found: list[Rectangle] = []
    while left.any():
        j, i = np.argwhere(left)[0]
        end = i
        while end < left.shape[1] and left[j, end]:
            end += 1
        top = j
        while top < left.shape[0] and left[top, i:end].all():
            top += 1
        left[j:top, i:end] = False
        low = (float(first[i]), float(second[j]))
        found.append((low, (float(first[end]), float(second[top]))))
    return tuple(found)
