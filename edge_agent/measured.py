"""Predictions beside what interior sensors measured at the same time, for releases on trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_agent.contracts.observation import PredictionRecord, Reading
from edge_agent.shadow import Measured

#: Instants whose prediction and interior readings wait for each other.
MAX_PENDING = 256
#: Readings and predictions of one minute belong together, us.
TOGETHER = 60_000_000


class Pairs:
    """Brings predictions and interior readings together; for one thread.

    Parameters
    ----------
    take : callable
        Told each pair, once the instant after it begins to fill.
    """

    def __init__(self, take: Callable[[Measured], None]) -> None:
        self._take = take
        self._pending: dict[int, tuple[PredictionRecord | None, dict[str, float]]] = {}

    def readings(self, readings: Sequence[tuple[Reading, int]]) -> None:
        """Take readings with their data times, us; any wind speed may be an interior sensor's."""
        for reading, instant in readings:
            if reading.quantity == "wind_speed":
                self._add(instant, None, {reading.sensor: reading.value})

    def prediction(self, record: PredictionRecord, instant: int) -> None:
        """Take what was predicted from the readings of a data time, us."""
        if record.sensors and not record.stand_ins:
            self._add(instant, record, {})

    def _add(self, instant: int, record: PredictionRecord | None, speeds: dict[str, float]) -> None:
        key = instant // TOGETHER
        if key not in self._pending:
            # Sensors report one after the other: a later instant says that this one is over.
            for earlier in [k for k in self._pending if k < key]:
                self._hand_over(earlier)
        known, values = self._pending.get(key, (None, {}))
        self._pending[key] = (record or known, values | speeds)
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def _hand_over(self, key: int) -> None:
        record, values = self._pending[key]
        speeds = {} if record is None else {n: v for n, v in values.items() if n in record.sensors}
        if record is not None and speeds:
            del self._pending[key]
            self._take(Measured(record.version, record.inputs, speeds))
