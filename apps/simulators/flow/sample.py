"""From the solver's staggered grid to the site's output grid."""

from __future__ import annotations

import numpy as np

from apps.simulators.flow.grid import SolverGrid
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
