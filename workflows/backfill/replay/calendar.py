"""When a machine starts jobs of which length: the rule that a trace's schedule follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

HOUR = 3600.0
DAY = 24 * HOUR
#: 1 January 1970 was a Thursday, the day of number 3.
EPOCH_WEEKDAY = 3
SATURDAY = 5
#: Shifts that a search looks through: two weeks hold every one.
SHIFTS = 28


class Calendar(Protocol):
    """What may start when."""

    def longest(self, now: float) -> float:
        """Return the longest request that may start now, s."""

    def next_change(self, now: float) -> float:
        """Return the next time after now when more may start, s; inf if never."""


class Always:
    """Any job at any time."""

    def longest(self, now: float) -> float:  # noqa: ARG002 - the interface
        """See `Calendar`."""
        return math.inf

    def next_change(self, now: float) -> float:  # noqa: ARG002 - the interface
        """See `Calendar`."""
        return math.inf


@dataclass(frozen=True)
class DayAndNight:
    """Short jobs by day, long ones at night and at weekends; none runs from one into the other.

    Fitted to the KTH SP2 log, which shows it without naming it: until June 1997 hardly a job of
    more than 4 h starts between 7:00 and 16:00 UTC on a weekday, and the planned ends of the jobs
    stop at those two times.
    """

    unix_start: int
    """Unix time of the simulation's zero, s."""
    day_begins: float = 7 * HOUR
    """s after midnight UTC."""
    day_ends: float = 16 * HOUR
    """s after midnight UTC."""
    day_limit: float = 4 * HOUR
    """Longest request by day, s."""

    def longest(self, now: float) -> float:
        """See `Calendar`."""
        weekday, clock = self._clock(now)
        if weekday < SATURDAY and self.day_begins <= clock < self.day_ends:
            return min(self.day_limit, self.day_ends - clock)
        left = self.next_change(now) - now
        # A job too long even for a weekend would wait for ever: Friday evening takes all.
        friday = weekday == SATURDAY - 1 and clock == self.day_ends
        return math.inf if friday else max(left, self.day_limit)

    def next_change(self, now: float) -> float:
        """See `Calendar`."""
        weekday, clock = self._clock(now)
        midnight = now - clock
        for day in range(8):
            if (weekday + day) % 7 < SATURDAY:
                for edge in (self.day_begins, self.day_ends):
                    at = midnight + day * DAY + edge
                    if at > now:
                        return at
        raise AssertionError

    def _clock(self, now: float) -> tuple[int, float]:
        days, clock = divmod(now + self.unix_start, DAY)
        return (int(days) + EPOCH_WEEKDAY) % 7, clock


def earliest(calendar: Calendar, now: float, request: float) -> float:
    """Return the first time from now on at which a job of that request may start, s."""
    at = now
    for _ in range(SHIFTS):
        if request <= calendar.longest(at):
            return at
        at = calendar.next_change(at)
    return at
