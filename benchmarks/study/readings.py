"""Interior readings made from the truth: there are no public ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.study.truth import Truth
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.site import Site


@dataclass(frozen=True)
class Noise:
    """How readings differ from the truth: standard deviations, assumed.

    The same as in ``benchmarks/tear_detector.py``; four hours apart gusts are independent.
    """

    gain: float = 0.05
    """Of each sensor, constant, relative: calibration of a cup anemometer."""
    gusts: float = 0.10
    """Of each ten-minute mean inside, relative."""
    white: float = 0.05
    """m/s, of each reading."""
    mast_speed: float = 0.0
    """The mast's wind over the house's, relative."""
    mast_direction: float = 0.0
    """degrees."""


@dataclass(frozen=True)
class Readings:
    """What the edge sees."""

    hours: np.ndarray
    """(n,) since the record's start."""
    inputs: np.ndarray
    """(n, 2) float32 model inputs, from the mast."""
    speed: np.ndarray
    """(n, sensors) m/s; NaN where a sensor is silent."""


def made(
    truth: Truth, site: Site, noise: Noise, seed: int, silent: dict[int, float] | None = None
) -> Readings:
    """Return readings.

    Parameters
    ----------
    truth : Truth
        The replayed record.
    site : Site
    noise : Noise
    seed : int
    silent : dict, optional
        Sensor (its place in the site's list) to the hour from which it says nothing.
    """
    rng = np.random.default_rng(seed)
    weights = interpolation_weights(site.grid(), np.array([s.position for s in site.sensors]))
    at = truth.wind.reshape(len(truth.wind), 3, -1) @ weights.T
    speed = np.sqrt((at.astype(float) ** 2).sum(axis=1))
    gain = 1 + noise.gain * rng.normal(size=speed.shape[1])
    gusts = np.exp(noise.gusts * rng.normal(size=speed.shape))
    speed = np.maximum(0.0, speed * gain * gusts + noise.white * rng.normal(size=speed.shape))
    for sensor, hour in (silent or {}).items():
        speed[truth.hours >= hour, sensor] = np.nan
    inputs = truth.inputs.copy()
    inputs[:, 0] *= np.exp(noise.mast_speed * rng.normal(size=len(inputs)))
    inputs[:, 1] = (inputs[:, 1] + noise.mast_direction * rng.normal(size=len(inputs))) % 360.0
    return Readings(truth.hours, inputs.astype(np.float32), speed)
