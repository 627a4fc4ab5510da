"""What the agent counts, in plain integers; exporters come round this, not into it."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

RING = 4096
#: Upper bounds of the histograms' buckets, s.
BOUNDS = (
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
#: What a counter counts, where its name does not say it.
HELP = {
    "answered": "Predictions given.",
    "failed": "Requests that ended in an error of ours.",
    "refused_not_ready": "Requests before the first release.",
    "refused_overload": "Requests and connections refused because too many waited.",
    "refused_token": "Requests without the token.",
    "invalid": "Requests refused for what they said.",
    "batched": "Requests that were run together with others.",
    "out_of_range": "Answers flagged as outside the trained range.",
    "releases_refused": "Releases that failed verification or their golden examples.",
    "source_errors": "Looks at the repository that failed.",
    "bytes_downloaded": "Bytes of releases that came over the link.",
    "downloads_resumed": "Files gone on with after an interruption.",
    "models_rebuilt": "Models made from the one before and a delta.",
    "deltas_failed": "Deltas that came to nothing; the full file was taken.",
    "readings_accepted": "Readings committed to the spool.",
    "duplicate": "Equal repeats of readings, dropped.",
    "conflicting": "Repeats of a reading with another value; the first was kept.",
    "readings_dropped": "Readings dropped because the spool was full.",
    "records_dropped": "Prediction records dropped.",
    "observer_errors": "Observers that raised.",
}


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


class Histogram:
    """Counts of durations by `BOUNDS`, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """Per bucket, not cumulative; the last is beyond every bound."""
        self.total = 0.0
        """Sum, s."""

    def record(self, seconds: float) -> None:
        """Count one duration, s."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Stages:
    """Histograms of the stages of an infer request."""

    def __init__(self) -> None:
        self.queue = Histogram()
        """From when the loop saw the request until its decoding began."""
        self.decode = Histogram()
        """Bytes to checked rows."""
        self.inference = Histogram()
        """Rows to a prediction."""
        self.encode = Histogram()
        """Prediction to bytes."""

    def record(self, queue: float, decode: float, inference: float) -> None:
        """Count the stages up to the prediction, s."""
        self.queue.record(queue)
        self.decode.record(decode)
        self.inference.record(inference)

    def by_name(self) -> Iterator[tuple[str, Histogram]]:
        """Yield each stage's name and histogram, in order."""
        yield from vars(self).items()


class Counters:
    """Everything counted since the process started."""

    def __init__(self) -> None:
        self.answered = 0
        """Predictions given."""
        self.failed = 0
        """Requests that ended in an error of ours (500)."""
        self.refused_not_ready = 0
        """Requests before the first release."""
        self.refused_overload = 0
        """Requests and connections refused because too many waited."""
        self.refused_token = 0
        """Requests without the token."""
        self.batched = 0
        """Requests that were run together with others."""
        self.invalid = 0
        """Requests refused for what they said: shape, NaN, unknown name, protocol."""
        self.out_of_range = 0
        """Answers flagged as outside the trained range."""
        self.releases_refused = 0
        """Releases that failed verification or their golden examples."""
        self.source_errors = 0
        """Looks for releases that failed."""
        self.update_failures: Counter[str] = Counter()
        """The same, by reason."""
        self.bytes_downloaded = 0
        """Bytes of releases that came over the link."""
        self.downloads_resumed = 0
        """Files that were gone on with after an interruption."""
        self.models_rebuilt = 0
        """Models made from the one before and a delta."""
        self.deltas_failed = 0
        """Deltas that came to nothing, so that the full file was taken."""
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
        self.transitions: Counter[str] = Counter()
        """Transitions of releases, by ``kind:code``; see `edge_agent.lifecycle`."""
        self.latencies = Latencies()
        """Service times of predictions over the API, s."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, without the latencies."""
        counts = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        reasons = {
            "rejected": self.rejected,
            "update_failures": self.update_failures,
            "transitions": self.transitions,
        }
        return {**counts, **{name: dict(found) for name, found in reasons.items()}}
