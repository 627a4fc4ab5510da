"""A batch of cases as plain arrays on the solver's grid: screens, canopy, inflow, roughness.

Velocities are in units of each case's wind speed and times in metres (time times wind speed), so a
slow wind takes as many steps as a fast one; the viscous part of a screen's loss carries the speed.
Arrays are (z, y, x, case).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apps.scenarios import Scenario
from apps.simulators.flow.grid import SolverGrid
from apps.simulators.flow.tears import left_of, overlap
from edge_agent.contracts.geometry import wind_vector
from edge_agent.contracts.site import CanopyRow, Site

KAPPA = 0.41
"""Von Karman's constant."""

#: Longest mixing length near the house and elsewhere, m: the first calibrated against three
#: k-epsilon runs of OpenFOAM (docs/validation.md).
_LENGTH_NEAR, _LENGTH_FAR = 2.0, 4.0
#: Height of the region that counts as near, over the height of the house.
_NEAR_HEIGHT = 2.0
#: Wind in the house at the start, over the wind outside; only saves steps.
_START_INSIDE = 0.35
#: A side opens fully once the wind crosses it at this sine; below, it closes smoothly, so that the
#: flow has no jump where the wind is along the side.
_OPEN_SINE = 0.2


@dataclass(frozen=True)
class ScreenPlane:
    """Screens on one plane of cell faces: drag = linear + quadratic * |normal velocity|."""

    axis: int
    """Normal: 0 x, 1 y, 2 z."""
    index: int
    """Face along the axis."""
    linear: np.ndarray
    """K's a/U part, halved and over the face's centre distance, one per m."""
    quadratic: np.ndarray
    """K's constant part likewise; both span the plane with a length of 1 along the axis."""


@dataclass(frozen=True)
class Problem:
    """What the solver needs to know of a batch of n cases."""

    grid: SolverGrid
    inflow: np.ndarray
    """(2, nz, n) undisturbed wind along x and y."""
    into: np.ndarray
    """(4, n) share by which the wind enters through the sides x0, x1, y0, y1."""
    out: np.ndarray
    """(4, n) share by which it leaves."""
    screens: tuple[ScreenPlane, ...]
    canopy: np.ndarray
    """(nz, ny, nx) drag coefficient times leaf area density, 1/m."""
    mixing_length: np.ndarray
    """(nz, ny, nx), m; zero for none."""
    ground_drag: float
    """Drag coefficient of the ground at the lowest cell centre."""
    start: np.ndarray
    """(nz, ny, nx) wind at the start over the undisturbed wind."""
    viscosity: float = 0.0
    """Constant part of the viscosity, m (over the wind speed)."""
    at_sides: np.ndarray | None = None
    """(4, 2, nz, n) wind where it enters through each side; `inflow` at all of them if none."""

    def entering(self, side: int) -> np.ndarray:
        """Return the (2, nz, n) wind at a side where it enters."""
        return self.inflow if self.at_sides is None else np.asarray(self.at_sides[side])

    @property
    def size(self) -> int:
        """Number of cases."""
        return int(self.inflow.shape[-1])


def build_problem(site: Site, scenarios: Sequence[Scenario], grid: SolverGrid) -> Problem:
    """Return the problem of a batch of scenarios on one site.

    The inflow is U(z) = ln((z + z0) / z0) / ln((z_ref + z0) / z0) (Richards and Hoxey 1993, J. Wind
    Eng. Ind. Aerodyn. 46-47), the ground's drag the same law's at the lowest cell centre.

    Raises
    ------
    SimulationError
        If a torn panel does not exist.
    """
    for scenario in scenarios:
        scenario.check(site)
    z0, z_ref = site.terrain.roughness_length, site.terrain.reference_height
    z = grid.centres(2)
    profile = np.log1p(z / z0) / np.log1p(z_ref / z0)
    direction = np.array([s.wind_from_direction for s in scenarios])
    toward = np.stack(wind_vector(1.0, direction, site.footprint.x_axis_bearing))
    toward[np.abs(toward) < 1e-9] = 0.0
    normal = np.stack([-toward[0], toward[0], -toward[1], toward[1]])
    share = np.minimum(np.abs(normal) / _OPEN_SINE, 1.0)
    share = share * share * (3 - 2 * share)
    near = _inside_house(grid) & (z < _NEAR_HEIGHT * site.footprint.height)[:, None, None]
    longest = np.where(near, _LENGTH_NEAR, _LENGTH_FAR)
    return Problem(
        grid=grid,
        inflow=toward[:, None, :] * profile[:, None],
        into=np.where(normal < 0, share, 0.0),
        out=np.where(normal > 0, share, 0.0),
        screens=_screens(site, scenarios, grid),
        canopy=_canopy(site, grid),
        mixing_length=np.minimum(KAPPA * (z + z0)[:, None, None], longest),
        ground_drag=float((KAPPA / np.log1p(z[0] / z0)) ** 2),
        start=np.where(
            _inside_house(grid) & (z < site.footprint.height)[:, None, None], _START_INSIDE, 1.0
        ),
    )


def _inside_house(grid: SolverGrid) -> np.ndarray:
    """Return (1, ny, nx) whether a column stands in the house."""
    (i0, i1), (j0, j1), _ = grid.house
    nx, ny, _ = grid.cells
    i, j = np.arange(nx), np.arange(ny)
    return (((i >= i0) & (i < i1)) & ((j >= j0) & (j < j1))[:, None])[None]


def _screens(
    site: Site, scenarios: Sequence[Scenario], grid: SolverGrid
) -> tuple[ScreenPlane, ...]:
    """Return the planes of the five faces; a face cell partly covered has its share of the loss."""
    faces = {
        face: (axis, grid.house[axis][end])
        for face, axis, end in (
            ("x0", 0, 0),
            ("x1", 0, 1),
            ("y0", 1, 0),
            ("y1", 1, 1),
            ("roof", 2, 1),
        )
    }
    speed = np.array([s.wind_speed for s in scenarios])
    factor = np.array([s.screen_loss_factor for s in scenarios])
    planes = []
    for face, (axis, index) in faces.items():
        panels = [p for p in site.panels if p.face == face]
        centres = grid.centres(axis)
        distance = centres[index] - centres[index - 1]
        shape = [*grid.cells[::-1], len(scenarios)]
        shape[2 - axis] = 1
        linear, quadratic = np.zeros(shape), np.zeros(shape)
        for panel in panels:
            left = np.stack([left_of(panel, s, grid) for s in scenarios], axis=-1)
            cover = left * (0.5 * factor / distance)
            linear += cover * panel.screen.linear / speed
            quadratic += cover * panel.screen.constant
        planes.append(ScreenPlane(axis, index, linear, quadratic))
    return tuple(planes)


def _canopy(site: Site, grid: SolverGrid) -> np.ndarray:
    """Return Cd * LAD of each cell, 1/m; every row keeps its total."""
    total = np.zeros(grid.cells[::-1])
    for row in site.canopy:
        z = overlap(grid.nodes[2], 0.0, row.height)
        x, y = (_spread(row, axis, grid) for axis in (0, 1))
        total += row.drag_area_density * z[:, None, None] * y[:, None] * x
    return total


def _spread(row: CanopyRow, axis: int, grid: SolverGrid) -> np.ndarray:
    """Return a row's share of each cell along an axis.

    A row thinner than two cells is homogenised: spread over two cells' width about its middle,
    else rows and alleys would beat with the grid.
    """
    nodes, (first, last) = grid.nodes[axis], grid.house[axis]
    start, end = row.start[axis], row.end[axis]
    share = overlap(nodes, start, end)
    two = 2 * float(np.diff(nodes)[share > 0].max(initial=0.0))
    if end - start >= two:
        return share
    low, high = float(nodes[first]), float(nodes[last])
    begin = min(max((start + end) / 2 - two / 2, low), max(high - two, low))
    window = overlap(nodes, begin, min(begin + two, high))
    width = np.diff(nodes)
    return np.asarray(window * ((share * width).sum() / (window * width).sum()))
