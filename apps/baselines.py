"""What a surrogate has to beat: predictions that need no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.space import WIDE
from edge_agent.contracts.geometry import wind_vector

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

#: A factor of e in wind speed counts as far as this many radians of direction. Chosen in favour of
#: the baseline: of 0 to 1, the weight with the smallest error on embedded runs.
LOG_SPEED_WEIGHT = 0.1
#: The whole range of a scalar of the state counts as far as this many radians; chosen likewise.
SCALAR_WEIGHT = 0.25
#: A tear where there is none, or on another panel, counts as far as this many radians.
TEAR_WEIGHT = 0.5


def nearest_simulation(training: SimulationSet, inputs: np.ndarray) -> np.ndarray:
    """Return the field of the nearest training run, scaled to the wind speed asked for.

    Nearest in (direction as an angle, log speed, state): the simplest honest use of an ensemble.

    Parameters
    ----------
    training : SimulationSet
    inputs : (n, 2 + columns) array
        Wind speed (m/s), the direction it comes from (degrees), and the state in the columns of
        the training set's space.

    Returns
    -------
    (n, 3, nz, ny, nx) float64, m/s
    """
    inputs = np.asarray(inputs, float)
    speed, direction = inputs[:, 0], inputs[:, 1]
    turn = (direction[:, None] - training.wind_from_direction + 180.0) % 360.0 - 180.0
    ratio = np.log(speed[:, None] / training.wind_speed)
    distance = np.deg2rad(turn) ** 2 + (LOG_SPEED_WEIGHT * ratio) ** 2
    nearest = (distance + _state_distance(training, inputs[:, 2:])).argmin(axis=1)
    scale = speed / training.wind_speed[nearest]
    return np.asarray(training.wind[nearest] * scale[:, None, None, None, None])


def constant_ratio(training: SimulationSet, inputs: np.ndarray, bearing: float) -> np.ndarray:
    """Return the outside wind times one constant, the same everywhere in the house.

    The constant is the least-squares one of the training runs.

    Parameters
    ----------
    training : SimulationSet
    inputs : (n, 2 or more) array
        Wind speed (m/s) and the direction it comes from (degrees); more is not looked at.
    bearing : float, degrees
        Compass bearing of the house's +x axis.

    Returns
    -------
    (n, 3, nz, ny, nx) float64, m/s
    """

    def outside(speed: np.ndarray, direction: np.ndarray) -> np.ndarray:
        u, v = wind_vector(speed, direction, bearing)
        return np.stack([u, v, np.zeros_like(u)], axis=1)

    wind = outside(training.wind_speed, training.wind_from_direction)
    inside = training.wind.astype(float).mean(axis=(2, 3, 4))
    ratio = (inside * wind).sum() / (wind**2).sum()
    speed, direction = np.asarray(inputs, float)[:, :2].T
    shape = (len(speed), *training.wind.shape[1:])
    return np.broadcast_to(ratio * outside(speed, direction)[:, :, None, None, None], shape)


def _state_distance(training: SimulationSet, state: np.ndarray) -> np.ndarray:
    """Return squared distances between states and those of the training runs, (n, runs)."""
    space = training.space
    total = np.zeros((len(state), len(training.digests)))
    for j, scalar in enumerate(space.scalars):
        ours, theirs = scalar.scaled(state[:, j]), scalar.scaled(training.state[:, j])
        width = max(float(np.ptp(theirs)), 1e-6)
        total += (SCALAR_WEIGHT * (ours[:, None] - theirs) / width) ** 2
    if space.panels:
        first = len(space.scalars)
        ours, theirs = state[:, None, first:], training.state[None, :, first:]
        away = ours - theirs
        same = np.abs(away[:, :, 0]) < 0.5
        near = np.hypot(away[:, :, 1], away[:, :, 2]) / WIDE
        total += TEAR_WEIGHT**2 * np.where(same, np.minimum(near, 1.0), 1.0) ** 2
    return total
