"""Wind directions in the house frame, and values at points of a grid."""

from __future__ import annotations

import numpy as np

from edge_agent.contracts.site import Grid


def wind_vector(
    speed: float | np.ndarray, from_direction: float | np.ndarray, x_axis_bearing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the horizontal wind (u, v) along the house's x and y axes.

    Parameters
    ----------
    speed : float or (n,) array, m/s
    from_direction : float or (n,) array, degrees
        Meteorological: where the wind comes *from*, clockwise from north.
    x_axis_bearing : float, degrees
        Compass bearing of the house's +x axis.

    Returns
    -------
    u, v : arrays shaped as the inputs, m/s
    """
    # Blowing *to* direction + 180; y is 90 degrees counter-clockwise of x, bearings run clockwise.
    angle = np.deg2rad(x_axis_bearing - (np.asarray(from_direction, dtype=float) + 180.0))
    return np.asarray(speed * np.cos(angle)), np.asarray(speed * np.sin(angle))


def interpolation_weights(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return the matrix that interpolates a field trilinearly at points.

    Parameters
    ----------
    grid : Grid
    points : (n, 3) array, m
        (x, y, z); outside the outermost cell centres the nearest value is taken.

    Returns
    -------
    weights : (n, nz * ny * nx) float64
        Multiply with a field flattened in (z, y, x) order.
    """
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    axes = [np.asarray(a) for a in (grid.z, grid.y, grid.x)]
    total = np.ones((len(points), 1))
    for axis, values in zip(axes, points[:, ::-1].T, strict=True):
        one = np.stack([np.interp(values, axis, unit) for unit in np.eye(len(axis))], axis=1)
        size = total.shape[1] * one.shape[1]  # not -1: there may be no points
        total = (total[:, :, None] * one[:, None, :]).reshape(len(points), size)
    return total
