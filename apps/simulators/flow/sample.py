"""From the solver's staggered grid to the site's output grid, or to its own cell centres."""

from __future__ import annotations

import numpy as np
import torch

from apps.datasets import Fields
from apps.simulators.base import Case
from apps.simulators.flow.grid import SolverGrid
from apps.simulators.flow.march import March
from edge_agent.contracts.site import Grid


def sample(field: np.ndarray, normal: int | None, grid: SolverGrid, target: Grid) -> np.ndarray:
    """Return a field at the target's cell centres, trilinear within the house.

    Only values in the house are used, its walls' normal velocities included: outside a screen the
    wind is another.

    Parameters
    ----------
    field : (z, y, x) array
        On the faces normal to an axis, or at cell centres.
    normal : int or None
        That axis (0 x, 1 y, 2 z), or none.
    grid : SolverGrid
    target : Grid

    Returns
    -------
    (nz, ny, nx) float32
    """
    result = np.asarray(field, dtype=float)
    for axis, points in enumerate((target.x, target.y, target.z)):
        first, last = grid.house[axis]
        if axis == normal:
            places, stop = grid.nodes[axis][first : last + 1], last + 1
        else:
            places, stop = grid.centres(axis)[first:last], last
        weights = np.stack([np.interp(points, places, unit) for unit in np.eye(len(places))])
        dim = 2 - axis
        inside = np.take(result, range(first, stop), axis=dim)
        result = np.moveaxis(np.tensordot(weights, inside, axes=(0, dim)), 0, dim)
    return result.astype(np.float32)


def output_fields(march: March, case: Case, column: int) -> Fields:
    """Return a case of a batch on its site's output grid, in m/s and m."""
    flow, grid, target = march.flow, march.grid, case.site.grid()
    speed = np.float32(case.scenario.wind_speed)

    def on_target(field: torch.Tensor, normal: int | None) -> np.ndarray:
        return sample(flow.metrics.unpack(field, column), normal, grid, target)

    return Fields(
        np.stack([on_target(f, axis) for axis, f in enumerate(flow.velocity)]) * speed,
        on_target(flow.pressure, None) * speed**2,
        {"eddy_viscosity": on_target(flow.viscosity, None) * speed},
    )


def native_fields(march: March, case: Case, column: int) -> Fields:
    """Return a case of a batch at the solver's cell centres, over the whole domain."""
    flow, m = march.flow, march.flow.metrics
    speed = np.float32(case.scenario.wind_speed)
    centres = [m.middle(f, axis) for axis, f in enumerate(flow.velocity)]
    return Fields(
        np.stack([m.unpack(f, column) for f in centres]) * speed,
        m.unpack(flow.pressure, column) * speed**2,
        {"eddy_viscosity": m.unpack(flow.viscosity, column) * speed},
    )
