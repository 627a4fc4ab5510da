"""What a prediction is, wherever it was asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SensorWind(NamedTuple):
    """Predicted wind at an interior sensor."""

    wind_speed: float
    """m/s."""
    wind_speed_std: float
    """Standard deviation over the ensemble, m/s."""


# A msgspec struct is made three times faster than a frozen dataclass, and without a
# cycle of its own it need not be tracked by the collector.
class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer, with where it came from."""

    version: int
    """Release that answered."""
    wind: np.ndarray
    """(batch, 3, nz, ny, nx) float32, m/s, in the house frame. Where interior sensors are among the
    inputs it has seen their readings (the analysis; see `edge_agent.sensing`)."""
    wind_std: np.ndarray
    """(batch, 3, nz, ny, nx) float32, m/s: standard deviation over the ensemble."""
    out_of_range: np.ndarray
    """(batch,) bool: some input of the row lies outside the range covered by training, or a
    diagnostic is beyond its limit."""
    staleness_seconds: float | None
    """Data time minus the newest data behind the release, s; none when either is unknown."""
    interval_factor: float
    """``wind`` +- factor * ``wind_std`` is the calibrated interval."""
    data_time: str | None
    """Data time of the newest reading, ISO 8601; none before the first."""
    wall_time: float
    """When it was answered, s since the Unix epoch."""
    inputs: np.ndarray
    """(batch, n) float32: what the model was given, with the defaults that were taken."""
    diagnostics: dict[str, np.ndarray] = msgspec.field(default_factory=dict)
    """Name to (batch,) float32: what else the model says of each row, such as the ``distance`` of
    its inputs from the nearest training run; empty if it says nothing."""
    sensors: dict[str, SensorWind] = msgspec.field(default_factory=dict)
    """Wind at the interior sensors, for predictions from readings: what is expected of them before
    they have spoken (the background), so that it can be compared with what they read."""
    silent: tuple[str, ...] = ()
    """``SENSOR/QUANTITY`` of the interior sensors that the release takes and that were not among
    the readings."""


def instant(time: datetime) -> float:
    """Return s since the Unix epoch; a time without a zone is taken as UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    # A subtraction, not timestamp(): that overflows near the calendar's ends.
    return (aware - EPOCH).total_seconds()
