"""What the agent counts, in plain integers; exporters come round this, not into it."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

RING = 4096


class Latencies:
    """The last few thousand service times; `record` allocates nothing."""

    def __init__(self, size: int = RING) -> None:
        self._ring = array("d", bytes(8 * size))
        self._size = size
        self._count = 0

    def record(self, seconds: float) -> None:
        """Keep one service time, s."""
        self._ring[self._count % self._size] = seconds
        self._count += 1

    def summary(self) -> dict[str, float | int | None]:
        """Return count, p50, p99 and max in ms over the ring; none before the first."""
        filled = min(self._count, self._size)
        if not filled:
            return {"count": 0, "p50": None, "p99": None, "max": None}
        values = np.array(self._ring[:filled]) * 1e3
        p50, p99 = np.percentile(values, (50, 99))
        return {
            "count": self._count,
            "p50": round(float(p50), 4),
            "p99": round(float(p99), 4),
            "max": round(float(values.max()), 4),
        }


class Counters:
    """Everything counted since the process started."""

    def __init__(self) -> None:
        self.answered = 0
        """Predictions given."""
        self.failed = 0
        """Requests that ended in an error of ours (500)."""
        self.refused_not_ready = 0
        """Requests before the first release."""
        self.invalid = 0
        """Requests refused for what they said: shape, NaN, unknown name, protocol."""
        self.out_of_range = 0
        """Answers flagged as outside the trained range."""
        self.releases_refused = 0
        """Releases that failed verification or their golden examples."""
        self.source_errors = 0
        """Polls that found no usable index or could not read a file."""
        self.readings_accepted = 0
        """Readings committed to the spool."""
        self.duplicate = 0
        """Equal repeats dropped."""
        self.conflicting = 0
        """Repeats of an identity with another value; the first was kept."""
        self.readings_dropped = 0
        """Oldest readings dropped because the spool was full."""
        self.records_dropped = 0
        """Oldest prediction records dropped: the disk failed or the spool was full of them."""
        self.observer_errors = 0
        """Observers that raised."""
        self.rejected: Counter[str] = Counter()
        """Readings refused, by reason."""
        self.latencies = Latencies()
        """Service times of predictions over the API, s."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, without the latencies."""
        counts = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        return {**counts, "rejected": dict(self.rejected)}
