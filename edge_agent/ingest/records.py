"""Records on file as instants: a mast's CSV, readings as CSV or JSON lines, CF netCDF."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.observation import UNITS, Reading, instant_us

SPEED, DIRECTION = "wind_speed_40m", "wind_from_direction_38m"
COLUMNS = ("time", "sensor", "quantity", "value", "unit")


class Instant(NamedTuple):
    """The readings of one data time."""

    time: str
    """ISO 8601."""
    readings: tuple[Reading, ...]


class _Line(msgspec.Struct):
    time: str
    sensor: str
    quantity: str
    value: float
    unit: str


def read_record(path: Path, sensor: str, start_at: str | None = None) -> Iterator[Instant]:
    """Yield a record's instants.

    By the file's name: ``.jsonl`` holds a reading a line (time, sensor, quantity, value, unit);
    ``.csv`` the same as columns, or a mast's (time, wind_speed_40m, wind_from_direction_38m), of
    which instants without both are left out; ``.nc`` is CF netCDF, whose variables are known by
    their standard names and units.

    Parameters
    ----------
    path : Path
    sensor : str
        Name that a mast's readings carry.
    start_at : str, optional
        First data time, ISO 8601.

    Raises
    ------
    InvalidConfig
        If the file cannot be read, lacks a column, or netCDF4 is not installed.
    """
    readers: dict[str, Callable[[Path, str], Iterator[Instant]]] = {
        ".jsonl": _json_lines,
        ".nc": _netcdf,
    }
    read = readers.get(path.suffix, _csv)
    try:
        begin = None if start_at is None else instant_us(datetime.fromisoformat(start_at))
        for item in read(path, sensor):
            if begin is None or instant_us(datetime.fromisoformat(item.time)) >= begin:
                yield item
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise InvalidConfig(msg, file=str(path), field="record") from error
    except KeyError as error:
        msg = f"{path}: column {error.args[0]!r} is missing"
        raise InvalidConfig(msg, file=str(path), field=error.args[0]) from error
    except (ValueError, msgspec.MsgspecError) as error:
        msg = f"{path}: {error}"
        raise InvalidConfig(msg, file=str(path), field="record") from error


def _csv(path: Path, sensor: str) -> Iterator[Instant]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if set(COLUMNS) <= set(rows.fieldnames or ()):
            yield from _together(
                Reading(r["time"], r["sensor"], r["quantity"], float(r["value"]), r["unit"])
                for r in rows
            )
            return
        for row in rows:
            time, speed, direction = row["time"], row[SPEED], row[DIRECTION]
            if speed and direction:
                yield Instant(
                    time,
                    (
                        Reading(time, sensor, "wind_speed", float(speed), "m s-1"),
                        Reading(time, sensor, "wind_from_direction", float(direction), "degree"),
                    ),
                )


def _json_lines(path: Path, _sensor: str) -> Iterator[Instant]:
    decode = msgspec.json.Decoder(_Line).decode
    with path.open("rb") as file:
        lines = (decode(line) for line in file if line.strip())
        yield from _together(Reading(x.time, x.sensor, x.quantity, x.value, x.unit) for x in lines)


def _together(readings: Iterable[Reading]) -> Iterator[Instant]:
    for time, group in groupby(readings, key=lambda r: r.time):
        yield Instant(time, tuple(group))


def _netcdf(path: Path, sensor: str) -> Iterator[Instant]:
    try:
        import netCDF4
    except ImportError as error:
        msg = f"{path}: reading netCDF needs the package netCDF4, which is not installed"
        raise InvalidConfig(msg, file=str(path), field="record") from error
    with netCDF4.Dataset(path) as data:
        axis = data["time"] if "time" in data.variables else None
        found: dict[str, Any] = {}
        for variable in data.variables.values():
            name = getattr(variable, "standard_name", "")
            if name in UNITS and variable.dimensions == ("time",):
                found[name] = variable[:]
                if variable.units != UNITS[name]:
                    msg = f"{variable.name} is in {variable.units!r}, expected {UNITS[name]!r}"
                    raise ValueError(msg)
        if axis is None or not found:
            raise KeyError("time" if axis is None else "standard_name")
        times: Any = netCDF4.num2date(axis[:], axis.units, only_use_cftime_datetimes=False)
        for k, at in enumerate(times):
            time = at.isoformat()
            readings = [
                Reading(time, sensor, name, float(values[k]), UNITS[name])
                for name, values in found.items()
                if not _masked(values[k])
            ]
            if readings:
                yield Instant(time, tuple(readings))


def _masked(value: Any) -> bool:  # noqa: ANN401 - a numpy scalar or the masked constant
    return bool(np.ma.is_masked(value)) or bool(np.isnan(value))
