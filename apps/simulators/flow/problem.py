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
from edge_agent.contracts.geometry import wind_vector
from edge_agent.contracts.site import Panel, Site

KAPPA = 0.41
"""Von Karman's constant."""

#: Longest mixing length near the house and elsewhere, m: calibrated against k-epsilon runs.
_LENGTH_NEAR, _LENGTH_FAR = 1.5, 4.0
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


def overlap(edges: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the share of each cell between `edges` that lies between `start` and `end`."""
    covered = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
    return np.asarray(np.clip(covered / np.diff(edges), 0.0, 1.0))


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
            whole = np.array([panel.name not in s.torn_panels for s in scenarios])
            cover = _cover(panel, axis, grid)[..., None] * (0.5 * factor * whole / distance)
            linear += cover * panel.screen.linear / speed
            quadratic += cover * panel.screen.constant
        planes.append(ScreenPlane(axis, index, linear, quadratic))
    return tuple(planes)


def _cover(panel: Panel, axis: int, grid: SolverGrid) -> np.ndarray:
    """Return the covered share of each face of a plane, (nz, ny, nx) with 1 along `axis`."""
    shares = [np.ones(1)] * 3
    for other, start, end in zip(
        [a for a in range(3) if a != axis], panel.start, panel.end, strict=True
    ):
        shares[other] = overlap(grid.nodes[other], start, end)
    x, y, z = shares
    return z[:, None, None] * y[:, None] * x


def _canopy(site: Site, grid: SolverGrid) -> np.ndarray:
    """Return Cd * LAD of each cell, 1/m; a row thinner than a cell is spread over it."""
    total = np.zeros(grid.cells[::-1])
    for row in site.canopy:
        z = overlap(grid.nodes[2], 0.0, row.height)
        y = overlap(grid.nodes[1], row.start[1], row.end[1])
        x = overlap(grid.nodes[0], row.start[0], row.end[0])
        total += row.drag_area_density * z[:, None, None] * y[:, None] * x
    return total
