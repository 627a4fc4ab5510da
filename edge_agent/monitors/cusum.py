"""Cumulative sums on block means: pure."""

from __future__ import annotations

from dataclasses import dataclass


class BlockMean:
    """Means over blocks of data time.

    Parameters
    ----------
    seconds : float, s
        Length of a block; blocks begin at its multiples since the epoch.
    at_least : int
        Values that a mean needs; a block with fewer gives none.
    """

    def __init__(self, seconds: float, at_least: int = 1) -> None:
        self._length = round(seconds * 1e6)
        self._at_least = at_least
        self._block: int | None = None
        self._sum = 0.0
        self._count = 0

    def add(self, instant: int, value: float) -> float | None:
        """Take a value at a data time (us); return the mean of the block that it ends, if any.

        A value older than the block under way is left out.
        """
        block = instant // self._length
        if self._block is not None and block < self._block:
            return None
        ended = None
        if block != self._block:
            if self._count >= self._at_least:
                ended = self._sum / self._count
            self._block, self._sum, self._count = block, 0.0, 0
        self._sum += value
        self._count += 1
        return ended


@dataclass
class Cusum:
    """Page's two-sided cumulative sum of a standardised series.

    ``high`` grows by value - slack and ``low`` by -value - slack, neither below zero nor above
    twice the threshold, so that an alarm ends some time after its cause has.
    """

    slack: float
    """Drift that is not worth an alarm: half the shift to be found, in standard deviations."""
    threshold: float
    """Alarm above it."""
    high: float = 0.0
    low: float = 0.0
    alarm: bool = False
    """Raised above the threshold, cleared below half of it."""

    def update(self, value: float) -> bool:
        """Take a standardised value; return whether an alarm stands."""
        top = 2 * self.threshold
        self.high = min(top, max(0.0, self.high + value - self.slack))
        self.low = min(top, max(0.0, self.low - value - self.slack))
        self.alarm = latched(self.alarm, max(self.high, self.low), self.threshold)
        return self.alarm


def latched(alarm: bool, value: float, threshold: float) -> bool:
    """Return whether an alarm stands: raised above a threshold, cleared below half of it."""
    return value > threshold if not alarm else value >= threshold / 2
