"""Estimate the state of the screens from the interior sensors' readings.

Dusty screens let less wind in. A table of simulated wind speeds at the sensors, for screens of
several losses, says how much; the loss factor whose speeds fit the readings of the last days best
is the estimate. What else slows the wind (a canopy that grows) is told as loss too: the factor is
*effective*.

The estimator is least squares on the logarithm of speed: with m the measured and p(f) the tabulated
speed at a sensor, f minimises sum w (ln m - ln p(f) - b)^2. b is the sensor's gain, zero or learnt
by `sensor_gains` while the state is known. The weight w = m^2 / (m^2 s^2 + e^2) is the inverse
variance of ln m under a relative error s and an absolute error e (delta method). ln p is linear in
ln f between the table's factors.

One such estimate is rough where the wind comes from a side that tells little. `combine` joins it
with the one before: a Kalman filter of one state, ln f, that wanders (Kalman 1960, J. Basic Eng.
82:35).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from apps.answers import sensor_speeds
from apps.errors import StageError
from apps.signatures import Variant, sensor_table
from apps.simulators.base import Resources
from apps.space import LOSS_FACTOR
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.monitors import table_at
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState

if TYPE_CHECKING:
    from apps.scenarios import Tear
    from apps.simulators.base import Fidelity

#: Loss factors of a table: from screens half as dense to three times.
FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83)
SPEEDS = (1.0, 3.0, 9.0)
DIRECTIONS = 16
#: Readings below this say nothing about the screens, m/s.
CALM = 0.1
#: Errors of an interior reading: relative (gusts, calibration) and absolute, m/s.
RELATIVE_ERROR, ABSOLUTE_ERROR = 0.1, 0.05
#: Variance of an estimate over that of independent errors: the table is wrong for hours on end
#: while the wind stays. Measured on the same sensors for the tear detector (docs/tear-detector.md).
INFLATION = 5.0
#: How far ln f wanders in a day: standard deviation, 1 / sqrt(day).
DRIFT = 0.1
#: Steps of ln f in which the minimum is looked for.
_STEP = 0.01


class SpeedTable(Protocol):
    """What wind speed the interior sensors are expected to read, by loss factor."""

    @property
    def factors(self) -> np.ndarray:
        """(f,) loss factors, ascending."""
        ...

    def predict(self, winds: np.ndarray) -> np.ndarray:
        """Return the speed at the sensors for each factor, (n, f, sensors), m/s.

        Parameters
        ----------
        winds : (n, 2) array
            Wind speed at the reference height (m/s) and direction (degrees).
        """
        ...


@dataclass(frozen=True)
class SurrogateTable:
    """A table that a surrogate fills in, which takes the loss factor as an input."""

    model: bytes
    """ONNX."""
    columns: tuple[str, ...]
    """Names of its inputs."""
    weights: np.ndarray
    """(sensors, cells), from `apps.answers.sensor_weights`."""
    factors: np.ndarray
    """(f,) loss factors, ascending."""
    others: Mapping[str, float] = field(default_factory=dict)
    """Values of its further inputs, such as a known tear; the others are sensors, and silent."""

    def predict(self, winds: np.ndarray) -> np.ndarray:
        """Return the speed at the sensors for each factor; see `SpeedTable`."""
        from apps.surrogates.export import run_onnx

        n, f = len(winds), len(self.factors)
        inputs = np.empty((n, f, len(self.columns)), np.float32)
        for j, name in enumerate(self.columns):
            inputs[:, :, j] = self.others.get(name, SILENT)
        for name, values in (
            ("wind_speed", winds[:, 0, None]),
            ("wind_from_direction", winds[:, 1, None]),
            (LOSS_FACTOR, self.factors),
        ):
            inputs[:, :, self.columns.index(name)] = values
        wind, _ = run_onnx(self.model, inputs.reshape(n * f, -1))
        return sensor_speeds(wind, self.weights).reshape(n, f, -1)


@dataclass(frozen=True)
class LossTable:
    """Simulated wind speed at the interior sensors."""

    factors: np.ndarray
    """(f,) loss factors, ascending."""
    speeds: np.ndarray
    """(s,) m/s at the reference height, ascending."""
    speed_at: np.ndarray
    """(f, s, d, sensors) m/s; directions are equally spaced from zero."""

    def predict(self, winds: np.ndarray) -> np.ndarray:
        """Return the speed at the sensors for each factor; see `SpeedTable`."""
        directions = self.speed_at.shape[2]
        return table_at(self.speed_at, self.speeds, directions, winds[:, 0], winds[:, 1])


def loss_table(
    site: Site,
    fidelity: Fidelity,
    store: Path,
    *,
    tears: Sequence[Tear] = (),
    factors: Sequence[float] = FACTORS,
    speeds: Sequence[float] = SPEEDS,
    directions: int = DIRECTIONS,
    threads: int = 1,
) -> LossTable:
    """Simulate the table of a site, with known tears if there are any; raises `SimulationError`."""
    variants: list[Variant] = [
        {"screen_loss_factor": factor, "tears": tuple(tears)} for factor in factors
    ]
    resources = Resources(threads=threads, batch=8)
    table = sensor_table(site, variants, speeds, directions, fidelity, store, resources)
    return LossTable(np.array(factors), np.array(speeds), table)


def sensor_gains(
    table: SpeedTable, winds: np.ndarray, measured: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """Return the mean of ln(measured / tabulated) per sensor while the loss factor is known.

    Parameters
    ----------
    table : SpeedTable
    winds : (n, 2) array
        As in `SpeedTable.predict`.
    measured : (n, sensors) array, m/s
        NaN where there is no reading.
    factor : float
        The factor in that time: one while the screens are new.

    Returns
    -------
    (sensors,) float64
        Zero for a sensor without a reading.
    """
    residual, weight = _residuals(table, winds, measured, np.log([factor]))
    total = weight.sum(axis=0)
    return np.asarray((weight * residual[0]).sum(axis=0) / np.where(total > 0, total, 1.0))


def estimate(
    table: SpeedTable,
    winds: np.ndarray,
    measured: np.ndarray,
    *,
    gains: np.ndarray | None = None,
    tears: Sequence[Tear] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> SiteState:
    """Return the effective loss factor of the screens.

    Parameters
    ----------
    table : SpeedTable
        Of the house with its known tears.
    winds : (n, 2) array
        As in `SpeedTable.predict`, one row for each instant.
    measured : (n, sensors) array, m/s
        NaN where there is no reading; a sensor that is gone is a column of them.
    gains : (sensors,) array, optional
        From `sensor_gains`; zero if none.
    tears, since, until
        Put into the state as they are.

    Raises
    ------
    StageError
        If no reading is above a calm.
    """
    grid = np.arange(np.log(table.factors[0]), np.log(table.factors[-1]) + _STEP / 2, _STEP)
    residual, weight = _residuals(table, winds, measured, grid)
    if gains is not None:
        residual = residual - gains
    readings = int((weight > 0).sum())
    if readings == 0:
        msg = f"no interior reading above {CALM} m/s: the state of the screens cannot be estimated"
        raise StageError(msg, readings=0)
    cost = (weight * residual**2).sum(axis=(1, 2))
    best = int(cost.argmin())
    inner = min(max(best, 1), len(grid) - 2)
    curvature = (cost[inner - 1] - 2 * cost[inner] + cost[inner + 1]) / _STEP**2
    return SiteState(
        screen_loss_factor=float(np.exp(grid[best])),
        log_error=float(np.sqrt(2.0 * INFLATION / curvature)) if curvature > 0 else None,
        tears=tuple(tears),
        method="log_speed_least_squares/1",
        readings=readings,
        since=since,
        until=until,
    )


def combine(before: SiteState, now: SiteState, days: float, drift: float = DRIFT) -> SiteState:
    """Return the state that two estimates give together.

    Parameters
    ----------
    before : SiteState
        Known until then; after a wash, what is assumed of clean screens.
    now : SiteState
        From readings that `before` has not seen.
    days : float
        From one to the other.
    drift : float
        Standard deviation of the change of ln f in a day, 1 / sqrt(day).

    Returns
    -------
    SiteState
        `now` with both estimates' factor and error; one without an error counts for nothing.
    """
    prior = float("inf") if before.log_error is None else before.log_error**2 + drift**2 * days
    fresh = float("inf") if now.log_error is None else now.log_error**2
    if np.isinf(fresh):
        trust, variance = 0.0, prior
    elif np.isinf(prior):
        trust, variance = 1.0, fresh
    else:
        trust = prior / (prior + fresh)
        variance = trust * fresh
    old, new = np.log(before.screen_loss_factor), np.log(now.screen_loss_factor)
    return now.model_copy(
        update={
            "screen_loss_factor": float(np.exp(old + trust * (new - old))),
            "log_error": None if np.isinf(variance) else float(np.sqrt(variance)),
        }
    )


def _residuals(
    table: SpeedTable, winds: np.ndarray, measured: np.ndarray, log_factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ln m - ln p for each factor, (factors, n, sensors), and weights, (n, sensors)."""
    winds, measured = np.asarray(winds, float), np.asarray(measured, float)
    known = np.log(np.maximum(table.predict(winds), 1e-3))
    nodes = np.log(table.factors)
    at = np.clip(np.searchsorted(nodes, log_factors, side="right") - 1, 0, len(nodes) - 2)
    share = ((log_factors - nodes[at]) / (nodes[at + 1] - nodes[at]))[:, None, None]
    by_factor = np.moveaxis(known, 1, 0)
    predicted = (1 - share) * by_factor[at] + share * by_factor[at + 1]
    usable = np.isfinite(measured) & (measured > CALM)
    speed = np.where(usable, measured, 1.0)
    weight = speed**2 / (RELATIVE_ERROR**2 * speed**2 + ABSOLUTE_ERROR**2)
    residual = np.log(speed) - predicted
    return np.where(usable, residual, 0.0), np.where(usable, weight, 0.0)
