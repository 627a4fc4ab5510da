"""What a model answers to simulations: inputs made of them, outputs by name.

A model that takes interior sensors is scored as it will serve: the readings are made of the
simulation with errors, and the wind of the mast and the state that it is told have errors too. What
is drawn for a simulation follows from its digest alone, so every model and every recount sees the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from apps.errors import ValidationError
from apps.space import LOSS_FACTOR
from edge_agent.contracts.features import sensor_column
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

#: Outputs by name for some simulations.
Answer = Callable[["SimulationSet"], dict[str, np.ndarray]]


def sensor_weights(site: Site) -> np.ndarray:
    """Return what gives the values at the interior sensors of a field, (sensors, cells)."""
    points = np.array([s.position for s in site.sensors], dtype=float).reshape(-1, 3)
    return np.asarray(interpolation_weights(site.grid(), points))


def sensor_speeds(wind: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the wind speed at the interior sensors, (n, sensors) float64, m/s.

    Parameters
    ----------
    wind : (n, 3, nz, ny, nx) array, m/s
    weights : (sensors, cells) array
        From `sensor_weights`.
    """
    at = np.asarray(wind).reshape(len(wind), 3, -1) @ weights.T
    return np.asarray(np.sqrt((at.astype(float) ** 2).sum(axis=1)))


def model_inputs(
    data: SimulationSet, columns: Sequence[str], site: Site, errors: ReadingErrors | None = None
) -> np.ndarray:
    """Return the inputs of a model for simulations, (n, columns) float32.

    Parameters
    ----------
    data : SimulationSet
    columns : sequence of str
        Names of the model's inputs.
    site : Site
    errors : ReadingErrors, optional
        What readings and the state are off by; by default all is as simulated.

    Raises
    ------
    ValidationError
        If the simulations do not tell a column.
    """
    known = dict(zip(data.columns, data.inputs.astype(float).T, strict=True))
    names = [sensor_column(s.name) for s in site.sensors]
    speeds = sensor_speeds(data.wind, sensor_weights(site)) if set(names) & set(columns) else None
    if errors is not None:
        drawn = _drawn(data.digests, 3 + 2 * len(names))
        known["wind_speed"] = known["wind_speed"] * np.exp(errors.mast_speed * drawn[:, 0])
        turned = known["wind_from_direction"] + errors.mast_direction * drawn[:, 1]
        known["wind_from_direction"] = turned % 360.0
        if LOSS_FACTOR in known:
            known[LOSS_FACTOR] = known[LOSS_FACTOR] * np.exp(errors.screen_loss * drawn[:, 2])
        if speeds is not None:
            relative, absolute = np.split(drawn[:, 3:], 2, axis=1)
            speeds = speeds * np.exp(errors.sensor_relative * relative)
            speeds = np.maximum(speeds + errors.sensor_absolute * absolute, 0.0)
    if speeds is not None:
        known |= dict(zip(names, speeds.T, strict=True))
    missing = [name for name in columns if name not in known]
    if missing:
        msg = f"the simulations do not tell {', '.join(missing)}, which the model takes"
        raise ValidationError(msg, columns=tuple(missing))
    return np.stack([known[name] for name in columns], axis=1).astype(np.float32)


def answering(
    model: bytes, columns: Sequence[str], site: Site, errors: ReadingErrors | None
) -> Answer:
    """Return what an exported model answers to simulations; it runs as it will serve.

    Parameters are those of `model_inputs`.
    """
    from apps.surrogates.export import run_model

    return lambda data: run_model(model, model_inputs(data, columns, site, errors))


def _drawn(digests: Sequence[str], count: int) -> np.ndarray:
    """Return standard normal numbers of each simulation, (n, count)."""
    return np.stack(
        [np.random.default_rng(int(digest[:16], 16)).standard_normal(count) for digest in digests]
    )
