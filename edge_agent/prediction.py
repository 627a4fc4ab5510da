"""What a prediction is, wherever it was asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contracts.errors import InvalidInput

Inputs = Mapping[str, float | Sequence[float] | np.ndarray] | Sequence[Any] | np.ndarray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SINGLE = np.dtype(np.float32)


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
    """(batch, 3, nz, ny, nx) float32, m/s, in the house frame."""
    wind_std: np.ndarray
    """(batch, 3, nz, ny, nx) float32, m/s: standard deviation over the ensemble."""
    out_of_range: np.ndarray
    """(batch,) bool: some input of the row lies outside the range covered by training."""
    staleness_seconds: float | None
    """Data time minus the newest data behind the release, s; none when either is unknown."""
    interval_factor: float
    """``wind`` +- factor * ``wind_std`` is the calibrated interval."""
    data_time: str | None
    """Data time of the newest reading, ISO 8601; none before the first."""
    wall_time: float
    """When it was answered, s since the Unix epoch."""
    inputs: np.ndarray
    """(batch, n) float32: what the model was given."""
    sensors: dict[str, SensorWind] = msgspec.field(default_factory=dict)
    """Wind at the interior sensors, for predictions from readings."""


def instant(time: datetime) -> float:
    """Return s since the Unix epoch; a time without a zone is taken as UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    # A subtraction, not timestamp(): that overflows near the calendar's ends.
    return (aware - EPOCH).total_seconds()


def as_rows(inputs: Inputs, columns: tuple[str, ...], max_batch: int) -> np.ndarray:
    """Return inputs as (batch, n) float32, checked.

    Raises
    ------
    InvalidInput
        For NaN or infinity, a wrong shape, an unknown or missing name, too large a batch.
    """
    if type(inputs) is np.ndarray and inputs.dtype == _SINGLE and inputs.flags.c_contiguous:
        rows = inputs  # what callers in a hurry send: nothing to convert
    else:
        rows = _converted(inputs, columns)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != len(columns) or not len(rows):
        msg = (
            f"inputs have shape {np.shape(rows)}, expected (batch, {len(columns)}): "
            f"{', '.join(columns)}"
        )
        raise InvalidInput(msg, shape=rows.shape)
    if len(rows) > max_batch:
        msg = f"batch of {len(rows)}; at most {max_batch} in one request"
        raise InvalidInput(msg, shape=rows.shape)
    # Singles cannot overflow a sum of doubles: it is finite if and only if all of them are.
    total = sum(rows[0].tolist()) if len(rows) == 1 else float(rows.sum(dtype=np.float64))
    if not math.isfinite(total):
        row, column = np.argwhere(~np.isfinite(rows))[0]
        msg = f"input {columns[column]!r} of row {row} is not a finite float32"
        raise InvalidInput(msg, name=columns[column], row=int(row))
    return rows


def _converted(inputs: Inputs, columns: tuple[str, ...]) -> np.ndarray:
    parts: Any = inputs
    if isinstance(inputs, Mapping):
        _check_names(inputs, columns)
        parts = [inputs[name] for name in columns]
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            rows = np.asarray(parts, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"inputs are not an array of numbers: {error}"
        raise InvalidInput(msg) from error
    if isinstance(inputs, Mapping):
        rows = rows.T
    return np.ascontiguousarray(rows)


def _check_names(inputs: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    takes = f"the release takes {', '.join(columns)}"
    for name in inputs:
        if name not in columns:
            msg = f"unknown input {name!r}; {takes}"
            raise InvalidInput(msg, name=name)
    for name in columns:
        if name not in inputs:
            msg = f"input {name!r} is missing; {takes}"
            raise InvalidInput(msg, name=name)
