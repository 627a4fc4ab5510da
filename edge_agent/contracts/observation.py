"""Readings: one sensor value each, with its identity."""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

from edge_agent.contracts.errors import InvalidReading

#: Unit of each quantity that a sensor may send (UDUNITS spelling).
UNITS = {
    "wind_speed": "m s-1",
    "wind_from_direction": "degree",
    "air_temperature": "degC",
    "relative_humidity": "percent",
}


class Reading(NamedTuple):
    """One sensor value."""

    time: str
    """Data time: when it was taken, ISO 8601."""
    sensor: str
    """Name of the sensor in the site file."""
    quantity: str
    """One of `UNITS`."""
    value: float
    """In `unit`."""
    unit: str
    """UDUNITS spelling; must be the quantity's."""


def check_reading(reading: Reading) -> datetime:
    """Return the data time of a reading that can be used.

    Raises
    ------
    InvalidReading
        With ``.reason`` one of ``quantity``, ``unit``, ``not_finite``, ``range``, ``time``.
    """
    unit = UNITS.get(reading.quantity)
    if unit is None:
        msg = f"unknown quantity {reading.quantity!r}; known: {', '.join(UNITS)}"
        raise InvalidReading(msg, reason="quantity", reading=reading)
    if reading.unit != unit:
        msg = f"{reading.quantity} comes in {reading.unit!r}, expected {unit!r}"
        raise InvalidReading(msg, reason="unit", reading=reading)
    if not math.isfinite(reading.value):
        msg = f"{reading.quantity} of {reading.sensor} is not finite"
        raise InvalidReading(msg, reason="not_finite", reading=reading)
    if reading.quantity == "wind_speed" and not 0 <= reading.value <= 100:
        msg = f"wind speed {reading.value} m/s of {reading.sensor} is outside 0 to 100"
        raise InvalidReading(msg, reason="range", reading=reading)
    if reading.quantity == "wind_from_direction" and not 0 <= reading.value <= 360:
        msg = f"wind direction {reading.value} of {reading.sensor} is outside 0 to 360 degrees"
        raise InvalidReading(msg, reason="range", reading=reading)
    try:
        return datetime.fromisoformat(reading.time)
    except ValueError as error:
        msg = f"time {reading.time!r} of {reading.sensor} is not ISO 8601"
        raise InvalidReading(msg, reason="time", reading=reading) from error
