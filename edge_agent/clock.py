"""The injected clock: wall time for records, monotonic time for durations."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the agent knows of time."""

    def now(self) -> float:
        """Return the wall time, s since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, s."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return the wall time, s since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic time, s."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; for tests and simulations.

    Parameters
    ----------
    start : float, s since the Unix epoch
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the time set, s."""
        return self._now

    def monotonic(self) -> float:
        """Return the same time, s."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds
