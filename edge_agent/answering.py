"""Predictions of the loaded releases, from inputs and from readings.

`Answering.predict` reads one reference and takes no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from edge_agent.clock import Clock
from edge_agent.columns import Inputs, as_rows
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import NotReady, ReleaseError
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.metrics import Counters
from edge_agent.prediction import Prediction, instant
from edge_agent.sensing import Source, Sources
from edge_agent.slots import Slot, Slots, at_sensors

#: A reading that can be used, with its data time.
Checked = tuple[Reading, datetime]

# The flags of a single row, shared by all answers.
_INSIDE, _OUTSIDE = np.zeros(1, bool), np.ones(1, bool)
_INSIDE.flags.writeable = _OUTSIDE.flags.writeable = False


class Answering:
    """A part of `EdgeAgent`."""

    config: AgentConfig
    clock: Clock
    counters: Counters
    _slots: Slots
    _newest: tuple[float, str] | None
    """Data time of the newest reading: s since the Unix epoch, and as it was sent."""
    _last_staleness: float | None

    def sources(self) -> Sources:
        """Return what the active release predicts from; nothing before the first."""
        active = self._slots.pair.active
        return Sources() if active is None else active.sensing.sources

    def slot(self, version: int | None = None) -> Slot:
        """Return the active slot, or the loaded one of a version.

        Raises
        ------
        NotReady
            If no release is loaded.
        NoSuchRelease
            If that version is neither active nor previous.
        """
        active = self._slots.pair.active
        if active is None:
            msg = f"no release of {self.config.name!r} is loaded yet; try again later"
            raise NotReady(msg, name=self.config.name)
        return active if version is None else self._slots.find(version)

    def predict(
        self, inputs: Inputs, *, version: int | None = None, slot: Slot | None = None
    ) -> Prediction:
        """Predict the wind in the house.

        Parameters
        ----------
        inputs : mapping or array
            Name to value (or to a column of values); or an array (n,) or (batch, n) in the
            release's order and units. Columns that have a default may be left out: by name any of
            them, of an array all.
        version : int, optional
            A loaded version other than the active one.
        slot : Slot, optional
            What `slot` gave, for a caller that has looked at it.

        Raises
        ------
        InvalidInput
            For NaN or infinity, a wrong shape, an unknown or missing name.
        NotReady
            Before the first release.
        NoSuchRelease
            If `version` is not loaded.
        """
        slot = slot or self.slot(version)
        rows = as_rows(inputs, slot.columns, self.config.max_batch)
        return self._answer(slot, rows, self._newest)

    def predict_rows(self, slot: Slot, rows: np.ndarray) -> Prediction:
        """Predict from rows that `as_rows` has checked; see `predict`."""
        return self._answer(slot, rows, self._newest)

    def predict_readings(self, readings: Sequence[Reading]) -> Prediction:
        """Predict from one instant's (or window's) readings; says the wind at each sensor too.

        Raises
        ------
        InvalidReading
            If a reading cannot be used.
        InvalidInput
            If a reading that the release's feature map needs is missing.
        NotReady
            Before the first release.
        """
        return self.predict_checked([(r, check_reading(r)) for r in readings])

    def predict_checked(self, readings: Sequence[Checked]) -> Prediction:
        """Predict from readings already checked, with their data times.

        Where interior sensors are among them the row is evaluated without them too, in the same
        run: ``sensors`` of the prediction is that background.
        """
        slot = self.slot()
        sensing = slot.sensing
        values: dict[Source, list[float]] = {}
        newest: tuple[float, str] | None = None
        for reading, time in readings:
            source = (reading.sensor, reading.quantity)
            if sensing.uses(source):
                values.setdefault(source, []).append(reading.value)
                at = instant(time)
                if newest is None or at > newest[0]:
                    newest = (at, reading.time)
        row = sensing.row(values)
        silent = sensing.silent(values)
        if len(silent) == len(sensing.inside):
            answer = self._answer(slot, row[None], newest)
            wind, std = answer.wind[0], answer.wind_std[0]
        else:
            found = self._both(slot, row)
            analysis = {name: array[:1] for name, array in found.items()}
            answer = self._answer(slot, row[None], newest, analysis)
            wind, std = found["wind"][1], found["wind_std"][1]
        return msgspec.structs.replace(answer, sensors=at_sensors(slot, wind, std), silent=silent)

    def needs(self, readings: Sequence[Reading]) -> bool:
        """Whether any of the readings is one without which the active release cannot predict.

        Interior sensors alone ask for no prediction.
        """
        needed = self.slot().sensing.sources.needed
        return any((r.sensor, r.quantity) in needed for r in readings)

    def _both(self, slot: Slot, row: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the model gives for a row as it is, and for its background."""
        try:
            return slot.model.run(np.stack([row, slot.sensing.background(row)]))
        except ReleaseError:
            slot.live.failed += 1
            raise

    def _answer(
        self,
        slot: Slot,
        rows: np.ndarray,
        newest: tuple[float, str] | None,
        found: dict[str, np.ndarray] | None = None,
    ) -> Prediction:
        """Return the answer to rows, of which `found` is what the model gives, if it has run."""
        live = slot.live
        if found is None:
            try:
                found = slot.model.run(rows)
            except ReleaseError:
                live.failed += len(rows) == 1  # of a large batch, the memory may be to blame
                raise
        first = rows[0].tolist()
        if live.rows is not None:
            live.rows.append(first)
        if len(rows) == 1:
            outside = _INSIDE
            for value, (low, high) in zip(first, slot.limits, strict=True):
                if not low <= value <= high:
                    outside = _OUTSIDE
            if slot.diagnostic_limits and _beyond(slot, found).any():
                outside = _OUTSIDE
        else:
            outside = np.any((rows < slot.minimum) | (rows > slot.maximum), axis=1)
            outside |= _beyond(slot, found)
        staleness = None
        if newest is not None and slot.data_until is not None:
            staleness = newest[0] - slot.data_until
        self._last_staleness = staleness
        counters = self.counters
        counters.answered += 1
        counters.out_of_range += outside is not _INSIDE and bool(outside.any())
        return Prediction(
            version=slot.version,
            wind=found["wind"],
            wind_std=found["wind_std"],
            out_of_range=outside,
            staleness_seconds=staleness,
            interval_factor=slot.interval_factor,
            data_time=None if newest is None else newest[1],
            wall_time=self.clock.now(),
            inputs=rows,
            diagnostics={n: found[n] for n in slot.diagnostics} if slot.diagnostics else {},
        )


def _beyond(slot: Slot, found: dict[str, np.ndarray]) -> np.ndarray:
    """Return of which rows a diagnostic is beyond its limit or not a number, (batch,) bool."""
    beyond = np.zeros(len(found["wind"]), bool)
    for name, limit in slot.diagnostic_limits:
        beyond |= ~(found[name] <= limit)
    return beyond
