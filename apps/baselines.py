"""What a surrogate has to beat: predictions that need no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_agent.contracts.geometry import wind_vector

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

#: A factor of e in wind speed counts as far as this many radians of direction. Chosen in favour of
#: the baseline: of 0 to 1, the weight with the smallest error on embedded runs.
LOG_SPEED_WEIGHT = 0.1


def nearest_simulation(training: SimulationSet, inputs: np.ndarray) -> np.ndarray:
    """Return the field of the nearest training run, scaled to the wind speed asked for.

    Nearest in (direction as an angle, log speed): the simplest honest use of an ensemble.

    Parameters
    ----------
    training : SimulationSet
    inputs : (n, 2) array
        Wind speed (m/s) and the direction it comes from (degrees).

    Returns
    -------
    (n, 3, nz, ny, nx) float64, m/s
    """
    speed, direction = np.asarray(inputs, float).T
    turn = (direction[:, None] - training.wind_from_direction + 180.0) % 360.0 - 180.0
    ratio = np.log(speed[:, None] / training.wind_speed)
    distance = np.deg2rad(turn) ** 2 + (LOG_SPEED_WEIGHT * ratio) ** 2
    nearest = distance.argmin(axis=1)
    scale = speed / training.wind_speed[nearest]
    return np.asarray(training.wind[nearest] * scale[:, None, None, None, None])


def constant_ratio(training: SimulationSet, inputs: np.ndarray, bearing: float) -> np.ndarray:
    """Return the outside wind times one constant, the same everywhere in the house.

    The constant is the least-squares one of the training runs.

    Parameters
    ----------
    training : SimulationSet
    inputs : (n, 2) array
        Wind speed (m/s) and the direction it comes from (degrees).
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
    speed, direction = np.asarray(inputs, float).T
    shape = (len(speed), *training.wind.shape[1:])
    return np.broadcast_to(ratio * outside(speed, direction)[:, :, None, None, None], shape)
