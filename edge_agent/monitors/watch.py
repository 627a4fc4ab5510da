"""The monitors of a running agent: readings and predictions in, alarms out.

- ``staleness``: the data behind the active release are older than ``staleness_seconds``.
- ``range``: more than ``out_of_range_share`` of a day's predictions lay outside the trained range.
- ``drift_*``: the inputs' day means have left what the calibration record had.
- ``error_SENSOR``: prediction and an interior sensor have parted, over blocks of hours.
- ``tear``: see `edge_agent.monitors.tear`; carries the likeliest panel. Needs all of its sensors.

The last three need a calibration and, for tears, signatures. Predictions are compared with readings
that they have not seen: where a release takes interior sensors, records hold its background
(`edge_agent.sensing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.contracts.monitors import Calibration, SeriesCalibration, Signatures
from edge_agent.contracts.observation import PredictionRecord, Reading
from edge_agent.monitors.cusum import BlockMean, Cusum, latched
from edge_agent.monitors.tear import MINIMUM_SPEED, TearDetector
from edge_agent.settings import MonitorSettings

#: Instants whose prediction and interior readings wait for each other.
MAX_PENDING = 256
TOGETHER = 60_000_000
#: Predictions that a share needs.
ENOUGH = 20
DAY_SECONDS = 86_400.0


class Alarm(msgspec.Struct, frozen=True):
    """The state of one monitor."""

    standing: bool
    """Whether the alarm stands."""
    value: float | None = None
    """What is compared with ``limit``; none before there was anything to compare."""
    limit: float | None = None
    since: int | None = None
    """Data time at which it was raised, us since the Unix epoch."""
    panel: str | None = None
    """Of ``tear``: the likeliest panel; none if all screens have changed, as with dust."""
    cause: str | None = None
    """Of ``tear``: the likeliest hypothesis."""


class _Waiting(NamedTuple):
    """A prediction and the readings of its minute, until all are together."""

    record: PredictionRecord | None = None
    values: Mapping[str, float] = {}
    """Sensor to wind speed, m/s."""
    compared: frozenset[str] = frozenset()
    """Sensors whose error has been taken."""


class _Series:
    def __init__(self, tuned: SeriesCalibration) -> None:
        self._tuned = tuned
        self._block = BlockMean(tuned.block_seconds)
        self._cusum = Cusum(tuned.slack, tuned.threshold)

    def add(self, instant: int, value: float) -> Alarm | None:
        mean = self._block.add(instant, value)
        if mean is None:
            return None
        standing = self._cusum.update((mean - self._tuned.mean) / self._tuned.deviation)
        return Alarm(standing, max(self._cusum.high, self._cusum.low), self._tuned.threshold)


class Monitors:
    """All monitors of an agent; for one thread.

    Parameters
    ----------
    settings : MonitorSettings
    calibration : Calibration or None
    signatures : Signatures or None
        Both are needed for tears.
    publish : callable
        Told the name and the state of each alarm that is raised or cleared.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        calibration: Calibration | None = None,
        signatures: Signatures | None = None,
        publish: Callable[[str, Alarm], None] = lambda _n, _a: None,
    ) -> None:
        self._settings = settings
        self.publish = publish
        self._drift = {k: _Series(v) for k, v in (calibration.drift if calibration else {}).items()}
        self._error = {k: _Series(v) for k, v in (calibration.error if calibration else {}).items()}
        self._tear: TearDetector | None = None
        self._sensors: tuple[str, ...] = tuple(self._error)
        if calibration is not None and calibration.tear is not None and signatures is not None:
            self._tear = TearDetector(signatures, calibration.tear)
            self._sensors = signatures.meta.sensors
        self._outside = BlockMean(DAY_SECONDS, ENOUGH)
        self._pending: dict[int, _Waiting] = {}
        self.alarms: dict[str, Alarm] = {}
        """Every monitor that has something to say."""

    def readings(self, readings: Sequence[tuple[Reading, int]]) -> None:
        """Take readings with their data times, us; those of interior anemometers count."""
        for reading, instant in readings:
            if reading.quantity == "wind_speed" and reading.sensor in self._sensors:
                self._pair(instant, None, {reading.sensor: reading.value})

    def prediction(self, record: PredictionRecord, instant: int) -> None:
        """Take what was predicted from the readings of a data time, us."""
        self._staleness(record, instant)
        share = self._outside.add(instant, float(record.out_of_range))
        if share is not None:
            limit = self._settings.out_of_range_share
            standing = latched(self._stands("range"), share, limit)
            self._set("range", Alarm(standing, share, limit), instant)
        speed, direction = record.inputs[0], record.inputs[1]
        for name, value in input_series(speed, direction).items():
            if (series := self._drift.get(name)) is not None:
                self._set(f"drift_{name}", series.add(instant, value), instant)
        # A stand-in for a missing sensor would show as an error of the screens. A silent interior
        # sensor does not: the background has seen none.
        if self._sensors and not record.stand_ins:
            self._pair(instant, record, {})

    def status(self) -> dict[str, Any]:
        """Return the alarms as JSON values."""
        return {name: msgspec.to_builtins(alarm) for name, alarm in list(self.alarms.items())}

    def _staleness(self, record: PredictionRecord, instant: int) -> None:
        if record.staleness_seconds is not None:
            limit = self._settings.staleness_seconds
            standing = record.staleness_seconds > limit
            self._set("staleness", Alarm(standing, record.staleness_seconds, limit), instant)

    def _pair(
        self, instant: int, record: PredictionRecord | None, measured: dict[str, float]
    ) -> None:
        key = instant // TOGETHER
        known = self._pending.pop(key, _Waiting())
        waiting = known._replace(record=record or known.record, values={**known.values, **measured})
        if (found := waiting.record) is not None:
            waiting = self._compare(instant, waiting, found)
            if waiting.values.keys() >= set(self._sensors):
                self._look_for_tears(instant, found, waiting.values)
                return
        self._pending[key] = waiting
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def _compare(self, instant: int, waiting: _Waiting, record: PredictionRecord) -> _Waiting:
        """Take the error of each sensor that has come, whoever else is silent."""
        speed = record.inputs[0]
        for name in sorted(waiting.values.keys() - waiting.compared):
            series = self._error.get(name)
            if series is not None and name in record.sensors and speed >= MINIMUM_SPEED:
                error = (waiting.values[name] - record.sensors[name]) / speed
                self._set(f"error_{name}", series.add(instant, error), instant)
        return waiting._replace(compared=frozenset(waiting.values))

    def _look_for_tears(
        self, instant: int, record: PredictionRecord, values: Mapping[str, float]
    ) -> None:
        speed = record.inputs[0]
        if self._tear is None or speed < MINIMUM_SPEED:
            return
        if not all(s in record.sensors for s in self._sensors):
            return
        verdict = self._tear.add(
            instant,
            speed,
            record.inputs[1],
            np.array([record.sensors[s] for s in self._sensors]),
            np.array([values[s] for s in self._sensors]),
        )
        if verdict is not None:
            alarm = Alarm(
                verdict.alarm,
                verdict.statistic,
                verdict.threshold,
                panel=verdict.panel if verdict.alarm else None,
                cause=verdict.hypothesis if verdict.alarm else None,
            )
            self._set("tear", alarm, instant)

    def _stands(self, name: str) -> bool:
        known = self.alarms.get(name)
        return known is not None and known.standing

    def _set(self, name: str, alarm: Alarm | None, instant: int) -> None:
        if alarm is None:
            return
        known = self.alarms.get(name)
        since = instant if alarm.standing else None
        if known is not None and known.standing and alarm.standing:
            since = known.since
        alarm = msgspec.structs.replace(alarm, since=since)
        self.alarms[name] = alarm
        changed = known is None or known.standing != alarm.standing or known.panel != alarm.panel
        if changed and (alarm.standing or known is not None):
            self.publish(name, alarm)


def input_series(speed: float, direction: float) -> dict[str, float]:
    """Return the series whose drift is watched, of one wind.

    Parameters
    ----------
    speed : float, m/s
    direction : float, degrees
    """
    angle = math.radians(direction)
    return {
        "log_speed": math.log(speed + 0.1),
        "eastward": -math.sin(angle),
        "northward": -math.cos(angle),
    }
