"""Readings: one sensor value each, with its identity; and the batches they travel upstream in.

A batch is a JSON document of columns, compressed. Its digest is the sha256 of the document before
compression, so that it does not depend on the version of zlib. It carries the id of the spool that
cut it and its number there: equal rows of another spool are another batch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from edge_agent.contracts.errors import InvalidBatch, InvalidReading
from edge_agent.contracts.model import sha256

FORMAT = "rbf-observations/1"
SUFFIX = ".rbfobs"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Follows ``SENSOR/QUANTITY`` in `PredictionRecord.degraded` where nothing stood in.
SILENT_MARK = " silent"

#: Largest document that is unpacked, bytes: a few kilobytes can claim to be gigabytes.
MAX_DOCUMENT = 64 * 2**20

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


def check_reading(reading: Reading, latest: float | None = None) -> datetime:
    """Return the data time of a reading that can be used.

    Parameters
    ----------
    reading : Reading
    latest : float, s since the Unix epoch, optional
        A later data time is clock skew.

    Raises
    ------
    InvalidReading
        With ``.reason`` one of ``quantity``, ``unit``, ``not_finite``, ``range``, ``time``,
        ``clock_skew``.
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
    if reading.quantity == "air_temperature" and not -90 <= reading.value <= 70:
        msg = f"air temperature {reading.value} degC of {reading.sensor} is outside -90 to 70"
        raise InvalidReading(msg, reason="range", reading=reading)
    if reading.quantity == "relative_humidity" and not 0 <= reading.value <= 105:
        msg = f"relative humidity {reading.value} % of {reading.sensor} is outside 0 to 105"
        raise InvalidReading(msg, reason="range", reading=reading)
    if reading.quantity == "wind_from_direction" and not 0 <= reading.value <= 360:
        msg = f"wind direction {reading.value} of {reading.sensor} is outside 0 to 360 degrees"
        raise InvalidReading(msg, reason="range", reading=reading)
    try:
        time = datetime.fromisoformat(reading.time)
    except ValueError as error:
        msg = f"time {reading.time!r} of {reading.sensor} is not ISO 8601"
        raise InvalidReading(msg, reason="time", reading=reading) from error
    if latest is not None and instant_us(time) > latest * 1e6:
        msg = f"time {reading.time} of {reading.sensor} lies ahead of our clock: clock skew"
        raise InvalidReading(msg, reason="clock_skew", reading=reading)
    return time


class SpooledReading(NamedTuple):
    """A reading with its place in the spool."""

    sequence: int
    """Grows; never given twice."""
    time: str
    """Data time as it was sent, ISO 8601."""
    sensor: str
    """Sensor name."""
    quantity: str
    """Quantity name."""
    value: float
    """In `unit`."""
    unit: str
    """UDUNITS spelling."""
    received_at: float
    """Wall time, s since the Unix epoch."""


class PredictionRecord(msgspec.Struct, frozen=True):
    """What was answered to one instant's readings."""

    wall_time: float
    """When, s since the Unix epoch."""
    data_time: str | None
    """Of the newest reading behind it, ISO 8601."""
    version: int
    """Release that answered."""
    inputs: tuple[float, ...]
    """What the model was given; the first two are wind speed (m/s) and direction (degrees)."""
    sensors: dict[str, float]
    """Predicted wind speed at the interior sensors, m/s, before the model has seen their readings:
    to be compared with these."""
    out_of_range: bool
    """Whether the inputs lie outside the range covered by training, or a diagnostic is beyond its
    limit."""
    staleness_seconds: float | None
    """Data time minus the newest data behind the release, s."""
    degraded: tuple[str, ...] = ()
    """``SENSOR/QUANTITY`` whose last value was used in place of a missing one, and
    ``SENSOR/QUANTITY silent`` of an interior sensor that the model takes and had no reading of."""

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """``SENSOR/QUANTITY`` whose last value was used: its inputs may be wrong."""
        return tuple(name for name in self.degraded if not name.endswith(SILENT_MARK))


class Series(msgspec.Struct, frozen=True):
    """The readings of one quantity of one sensor; columns of equal length."""

    sensor: str
    quantity: str
    unit: str
    sequence: tuple[int, ...]
    """Places in the spool, ascending."""
    time: tuple[str, ...]
    """Data times as they were sent, ISO 8601."""
    value: tuple[float, ...]
    """In `unit`."""
    received_at: tuple[float, ...]
    """Wall times, s since the Unix epoch."""


class Batch(msgspec.Struct, frozen=True):
    """Readings and prediction records that go upstream together."""

    site: str
    """Name of the site."""
    spool: str
    """Id of the spool, made when it was created."""
    number: int
    """Number of the batch in the spool; grows."""
    series: tuple[Series, ...]
    """The readings."""
    predictions: tuple[PredictionRecord, ...] = ()
    """The prediction records."""
    format: str = FORMAT
    """Version of this contract."""

    def readings(self) -> list[SpooledReading]:
        """Return the readings in the order of the spool."""
        rows = [
            SpooledReading(n, t, s.sensor, s.quantity, v, s.unit, at)
            for s in self.series
            for n, t, v, at in zip(s.sequence, s.time, s.value, s.received_at, strict=True)
        ]
        return sorted(rows)


class PackedBatch(NamedTuple):
    """A batch as it travels."""

    digest: str
    """sha256 of the document, hexadecimal."""
    data: bytes
    """The document, compressed with zlib."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Batch).decode


def as_series(readings: Sequence[SpooledReading]) -> tuple[Series, ...]:
    """Return readings as columns, in the order in which their sensors first appear."""
    groups: dict[tuple[str, str, str], list[SpooledReading]] = {}
    for reading in readings:
        groups.setdefault((reading.sensor, reading.quantity, reading.unit), []).append(reading)
    return tuple(
        Series(
            sensor,
            quantity,
            unit,
            tuple(r.sequence for r in rows),
            tuple(r.time for r in rows),
            tuple(r.value for r in rows),
            tuple(r.received_at for r in rows),
        )
        for (sensor, quantity, unit), rows in groups.items()
    )


def instant_us(time: datetime) -> int:
    """Return us since the Unix epoch; a time without a zone is taken as UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def batch_name(digest: str, number: int) -> str:
    """Return the name of a batch's file; names sort by number."""
    return f"{number:012d}-{digest}{SUFFIX}"


def digest_of_name(name: str) -> str:
    """Return the digest in a batch's file name."""
    return name.removesuffix(SUFFIX).partition("-")[2]


def pack(batch: Batch) -> PackedBatch:
    """Return a batch as it travels; equal batches have equal digests."""
    document = _encode(batch)
    return PackedBatch(sha256(document), zlib.compress(document, 6))


def unpack(packed: PackedBatch) -> Batch:
    """Return the batch that was packed.

    Raises
    ------
    InvalidBatch
        If the bytes are damaged, too large, of another format, or do not have the digest.
    """
    unzip = zlib.decompressobj()
    try:
        document = unzip.decompress(packed.data, MAX_DOCUMENT)
    except zlib.error as error:
        msg = f"batch {packed.digest[:12]} is damaged: {error}"
        raise InvalidBatch(msg, digest=packed.digest) from error
    if not unzip.eof or unzip.unused_data:
        msg = f"batch {packed.digest[:12]} is cut short, too large or followed by other bytes"
        raise InvalidBatch(msg, digest=packed.digest)
    if sha256(document) != packed.digest:
        msg = f"batch {packed.digest[:12]} does not have the digest that it travels under"
        raise InvalidBatch(msg, digest=packed.digest)
    try:
        batch = _decode(document)
        columns = [(s.sequence, s.time, s.value, s.received_at) for s in batch.series]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"batch {packed.digest[:12]} is not an observation batch: {error}"
        raise InvalidBatch(msg, digest=packed.digest) from error
    if batch.format != FORMAT or any(len({len(c) for c in four}) != 1 for four in columns):
        msg = f"batch {packed.digest[:12]} is {batch.format!r} with ragged columns or of no use"
        raise InvalidBatch(msg, digest=packed.digest, format=batch.format)
    return batch
