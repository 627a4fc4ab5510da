"""What is said of a reading that can be used: pure, one state per sensor and quantity.

`edge_agent.contracts.observation.check_reading` refuses what cannot be used (quantity, unit, not
finite, range, time, clock skew). What follows here is kept all the same and counted by reason:

- ``repeat``: the identity of the sensor's newest reading again; says nothing new.
- ``out_of_order``: older than the sensor's newest.
- ``gap``: first after a silence longer than ``gap_seconds`` of data time.
- ``stuck``: the last of ``stuck_count`` equal values in a row or more. A wind speed within an
  anemometer's starting threshold may stay equal. Stuck readings feed no prediction.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple, get_args

from edge_agent.contracts.observation import Reading
from edge_agent.settings import IngestSettings

Flag = Literal["repeat", "out_of_order", "gap", "stuck"]
FLAGS: tuple[Flag, ...] = get_args(Flag)

#: Below this a cup anemometer may stand still, m/s.
CALM = 0.5
#: Sensors and quantities that are remembered; beyond it the one silent longest is forgotten.
MAX_SERIES = 4096


class _Series(NamedTuple):
    newest: int
    """Data time, us."""
    value: float
    equal: int
    """Readings in a row with this value."""


class Quality:
    """Flags readings in the order in which they come.

    Parameters
    ----------
    settings : IngestSettings
    """

    def __init__(self, settings: IngestSettings) -> None:
        self._gap = round(settings.gap_seconds * 1e6)
        self._stuck = settings.stuck_count
        self._series: dict[tuple[str, str], _Series] = {}
        self.counts: Counter[Flag] = Counter(dict.fromkeys(FLAGS, 0))
        """Flags given since the start."""

    def flags(self, reading: Reading, instant: int) -> frozenset[Flag]:
        """Return what is to be said of a reading.

        Parameters
        ----------
        reading : Reading
            Checked.
        instant : int, us since the Unix epoch
            Its data time.
        """
        found = self._flags(reading, instant)
        self.counts.update(found)
        return found

    def stuck(self) -> list[str]:
        """Return the ``SENSOR/QUANTITY`` that are stuck now."""
        return [
            f"{sensor}/{quantity}"
            for (sensor, quantity), series in list(self._series.items())
            if _is_stuck(quantity, series, self._stuck)
        ]

    def _flags(self, reading: Reading, instant: int) -> frozenset[Flag]:
        key = (reading.sensor, reading.quantity)
        last = self._series.pop(key, None)
        if last is None:
            self._remember(key, _Series(instant, reading.value, 1))
            return frozenset()
        if instant <= last.newest:
            self._remember(key, last)
            return frozenset(["repeat" if instant == last.newest else "out_of_order"])
        equal = last.equal + 1 if reading.value == last.value else 1
        series = _Series(instant, reading.value, equal)
        self._remember(key, series)
        found: set[Flag] = set()
        if instant - last.newest > self._gap:
            found.add("gap")
        if _is_stuck(reading.quantity, series, self._stuck):
            found.add("stuck")
        return frozenset(found)

    def _remember(self, key: tuple[str, str], series: _Series) -> None:
        # The one that spoke last is the last of the dictionary.
        self._series[key] = series
        if len(self._series) > MAX_SERIES:
            del self._series[next(iter(self._series))]


def _is_stuck(quantity: str, series: _Series, count: int) -> bool:
    return series.equal >= count and not (quantity == "wind_speed" and series.value < CALM)
