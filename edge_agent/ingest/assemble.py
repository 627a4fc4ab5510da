"""Brings readings together to the newest consistent set that a prediction can be made from: pure.

Rules:

1. Readings belong together when their data times are at most ``TOGETHER`` apart.
2. A set is used once, as soon as it is complete; older sets are not used after a newer one.
3. A set that is not complete ``wait_seconds`` (wall time) after its first reading came is used all
   the same if the last good value of each missing quantity is at most ``hold_seconds`` of data time
   old: that value stands in, and the prediction says so (``degraded``).
4. Else nothing is predicted from it, and it counts as ``missing``.

A stuck reading counts as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edge_agent.contracts.observation import Reading
from edge_agent.settings import IngestSettings

#: us; anemometer and vane of one mast need not read their clock in the same millisecond.
TOGETHER = 1_000_000
#: Incomplete sets that may wait; beyond it the oldest is given up.
MAX_PENDING = 64

Source = tuple[str, str]


class ReadySet(NamedTuple):
    """Readings to predict from."""

    instant: int
    """Data time, us since the Unix epoch."""
    readings: tuple[Reading, ...]
    """One per source."""
    degraded: tuple[str, ...]
    """``SENSOR/QUANTITY`` whose last value stands in."""


class _Good(NamedTuple):
    instant: int
    reading: Reading


class _Pending(NamedTuple):
    instant: int
    since: float
    readings: dict[Source, Reading]


class Assembler:
    """Collects readings until a set is ready.

    Parameters
    ----------
    settings : IngestSettings
    """

    def __init__(self, settings: IngestSettings) -> None:
        self._hold = round(settings.hold_seconds * 1e6)
        self._wait = settings.wait_seconds
        self._pending: list[_Pending] = []
        self._good: dict[Source, _Good] = {}
        self._used: int | None = None
        self.missing = 0
        """Sets that nothing was predicted from, for a quantity was missing too long."""
        self.superseded = 0
        """Incomplete sets that a newer complete one overtook."""

    def add(
        self,
        readings: Iterable[tuple[Reading, int, bool]],
        sources: frozenset[Source],
        now: float,
    ) -> ReadySet | None:
        """Take readings; return the newest set that they complete, if any.

        Parameters
        ----------
        readings : iterable of (reading, data time in us, whether it may be used)
        sources : frozenset of (sensor, quantity)
            What the active release needs; others are ignored.
        now : float, s
            Monotonic.
        """
        ready: ReadySet | None = None
        for reading, instant, usable in readings:
            source = (reading.sensor, reading.quantity)
            if source not in sources:
                continue
            pending = self._at(instant, now)
            if usable:
                known = self._good.get(source)
                if known is None or known.instant <= instant:
                    self._good[source] = _Good(instant, reading)
                if pending is not None:
                    pending.readings.setdefault(source, reading)
            if pending is not None and pending.readings.keys() >= sources:
                ready = self._use(pending, pending.readings, ())
        return ready

    def predicted(self, instant: int) -> None:
        """Note that somebody else has predicted from the set of an instant."""
        self._forget_until(instant)

    def due(self, sources: frozenset[Source], now: float) -> ReadySet | None:
        """Return the newest incomplete set that has waited long enough and can be used."""
        late = [p for p in self._pending if now - p.since >= self._wait]
        for pending in sorted(late, key=lambda p: -p.instant):
            self._pending.remove(pending)
            held = self._stand_ins(pending, sources)
            if held is None:
                self.missing += 1
                continue
            names = tuple(f"{s}/{q}" for s, q in sorted(held))
            return self._use(pending, {**pending.readings, **held}, names)
        return None

    def _stand_ins(
        self, pending: _Pending, sources: frozenset[Source]
    ) -> dict[Source, Reading] | None:
        held = {}
        for source in sources - pending.readings.keys():
            good = self._good.get(source)
            if good is None or not 0 <= pending.instant - good.instant <= self._hold:
                return None
            held[source] = good.reading
        return held

    def _at(self, instant: int, now: float) -> _Pending | None:
        if self._used is not None and instant <= self._used + TOGETHER:
            return None
        for pending in self._pending:
            if abs(pending.instant - instant) <= TOGETHER:
                return pending
        if len(self._pending) == MAX_PENDING:
            self._pending.remove(min(self._pending, key=lambda p: p.instant))
            self.superseded += 1
        self._pending.append(_Pending(instant, now, {}))
        return self._pending[-1]

    def _use(
        self, pending: _Pending, readings: Mapping[Source, Reading], degraded: tuple[str, ...]
    ) -> ReadySet:
        if pending in self._pending:
            self._pending.remove(pending)
        self._forget_until(pending.instant)
        chosen = tuple(readings[s] for s in sorted(readings))
        return ReadySet(pending.instant, chosen, degraded)

    def _forget_until(self, instant: int) -> None:
        self._used = instant if self._used is None else max(self._used, instant)
        kept = [p for p in self._pending if p.instant > self._used + TOGETHER]
        self.superseded += sum(
            bool(p.readings) and p.instant < instant - TOGETHER for p in self._pending
        )
        self._pending = kept
