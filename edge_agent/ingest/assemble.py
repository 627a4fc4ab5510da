"""Brings readings together to the newest consistent set that a prediction can be made from: pure.

Readings that a release *needs* and interior sensors, which it uses where they are there, are told
apart (`edge_agent.sensing.Sources`). Rules:

1. Readings belong together when their data times are at most ``TOGETHER`` apart.
2. A set is used once, as soon as it is complete: with all that is needed, and with every interior
   sensor that is not given up (rule 6). Older sets are not used after a newer one.
3. A set that is not complete ``wait_seconds`` (wall time) after the first needed reading came is
   used all the same. An interior sensor that is missing is silent: nothing stands in for it. For a
   needed quantity the last good value stands in if it is at most ``hold_seconds`` of data time old,
   and the prediction says so (``degraded``).
4. Else nothing is predicted from it, and it counts as ``missing``.
5. Interior sensors alone ask for no prediction: such a set waits for the needed readings until a
   newer one is used.
6. An interior sensor that is missing from sets over more than ``hold_seconds`` of data time is
   given up: no set waits for it until a reading of it belongs to one again, be it too late. A clock
   that is wrong by more than ``TOGETHER`` makes a sensor miss every set.

A stuck reading counts as missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.contracts.observation import Reading
from edge_agent.sensing import Source, Sources
from edge_agent.settings import IngestSettings

#: us; anemometer and vane of one mast need not read their clock in the same millisecond.
TOGETHER = 1_000_000
#: Incomplete sets that may wait; beyond it the oldest is given up, first of those with interior
#: sensors alone.
MAX_PENDING = 64


class ReadySet(NamedTuple):
    """Readings to predict from."""

    instant: int
    """Data time, us since the Unix epoch."""
    readings: tuple[Reading, ...]
    """One per needed source, and one of each interior sensor that is there."""
    degraded: tuple[str, ...]
    """``SENSOR/QUANTITY`` whose last value stands in."""


class _Good(NamedTuple):
    instant: int
    reading: Reading


@dataclass(slots=True, eq=False)
class _Pending:
    instant: int
    since: float | None = None
    """When the first needed reading came, s."""
    readings: dict[Source, Reading] = field(default_factory=dict)
    inside: dict[Source, Reading] = field(default_factory=dict)


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
        self._silent_since: dict[Source, int] = {}
        self._spoke: dict[Source, int] = {}
        """Newest instant of a set that a reading of an interior sensor belongs to."""
        self._used: int | None = None
        self.missing = 0
        """Sets that nothing was predicted from, for a quantity was missing too long."""
        self.superseded = 0
        """Sets that nothing was predicted from, for a newer one overtook them."""

    def add(
        self, readings: Iterable[tuple[Reading, int, bool]], sources: Sources, now: float
    ) -> ReadySet | None:
        """Take readings; return the newest set that they complete, if any.

        Parameters
        ----------
        readings : iterable of (reading, data time in us, whether it may be used)
        sources : Sources
            What the active release predicts from; other readings are ignored.
        now : float, s
            Monotonic.
        """
        for reading, instant, usable in readings:
            source = (reading.sensor, reading.quantity)
            if source in sources.needed:
                pending = self._at(instant, sources)
                if pending is not None and pending.since is None:
                    pending.since = now
                if usable:
                    self._add_good(source, reading, instant, pending)
            elif source in sources.optional and usable:
                self._add_inside(source, reading, instant, sources)
        for one in self._pending:
            if one.since is not None:
                self._note_spoken(one.inside, one.instant)
        complete = [p for p in self._pending if self._complete(p, sources)]
        if not complete:
            return None
        return self._use(max(complete, key=lambda p: p.instant), sources, {})

    def predicted(self, instant: int) -> None:
        """Note that somebody else has predicted from the set of an instant."""
        self._forget_until(instant)

    def due(self, sources: Sources, now: float) -> ReadySet | None:
        """Return the newest incomplete set that has waited long enough and can be used."""
        late = [p for p in self._pending if p.since is not None and now - p.since >= self._wait]
        for pending in sorted(late, key=lambda p: -p.instant):
            self._pending.remove(pending)
            held = self._stand_ins(pending, sources)
            if held is not None:
                return self._use(pending, sources, held)
            self.missing += 1
        return None

    def _add_good(
        self, source: Source, reading: Reading, instant: int, pending: _Pending | None
    ) -> None:
        known = self._good.get(source)
        if known is None or known.instant <= instant:
            self._good[source] = _Good(instant, reading)
        if pending is not None:
            pending.readings.setdefault(source, reading)

    def _add_inside(self, source: Source, reading: Reading, instant: int, sources: Sources) -> None:
        pending = self._at(instant, sources)
        if pending is not None:
            pending.inside.setdefault(source, reading)
        elif self._used is not None and instant >= self._used - TOGETHER:
            self._note_spoken((source,), self._used)  # too late for the set that it belongs to

    def _complete(self, pending: _Pending, sources: Sources) -> bool:
        if not sources.needed or not pending.readings.keys() >= sources.needed:
            return False
        return all(
            self._given_up(source, pending.instant)
            for source in sources.optional - pending.inside.keys()
        )

    def _given_up(self, source: Source, instant: int) -> bool:
        since = self._silent_since.get(source)
        return since is not None and instant - since > self._hold

    def _note_silent(self, pending: _Pending, sources: Sources) -> None:
        for source in sources.optional - pending.inside.keys():
            if self._spoke.get(source, pending.instant) <= pending.instant:
                self._silent_since.setdefault(source, pending.instant)

    def _note_spoken(self, inside: Iterable[Source], instant: int) -> None:
        for source in inside:
            self._spoke[source] = max(instant, self._spoke.get(source, instant))
            if self._silent_since.get(source, instant) <= instant:
                self._silent_since.pop(source, None)

    def _stand_ins(self, pending: _Pending, sources: Sources) -> dict[Source, Reading] | None:
        held = {}
        for source in sources.needed - pending.readings.keys():
            good = self._good.get(source)
            if good is None or not 0 <= pending.instant - good.instant <= self._hold:
                return None
            held[source] = good.reading
        return held

    def _at(self, instant: int, sources: Sources) -> _Pending | None:
        if self._used is not None and instant <= self._used + TOGETHER:
            return None
        for pending in self._pending:
            if abs(pending.instant - instant) <= TOGETHER:
                return pending
        if len(self._pending) == MAX_PENDING:
            oldest = min(self._pending, key=lambda p: (p.since is not None, p.instant))
            self._pending.remove(oldest)
            if oldest.since is not None:
                self.superseded += 1
                self._note_silent(oldest, sources)
        self._pending.append(_Pending(instant))
        return self._pending[-1]

    def _use(self, pending: _Pending, sources: Sources, held: dict[Source, Reading]) -> ReadySet:
        self._note_silent(pending, sources)
        self._forget_until(pending.instant)
        readings = {**pending.readings, **held, **pending.inside}
        names = tuple(f"{s}/{q}" for s, q in sorted(held))
        return ReadySet(pending.instant, tuple(readings[s] for s in sorted(readings)), names)

    def _forget_until(self, instant: int) -> None:
        self._used = instant if self._used is None else max(self._used, instant)
        kept = [p for p in self._pending if p.instant > self._used + TOGETHER]
        self.superseded += sum(
            p.since is not None and p.instant < instant - TOGETHER for p in self._pending
        )
        self._pending = kept
