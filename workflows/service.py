"""What the replay saw of the edge agent: answers, latencies, swaps. Measured by the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OK = "200"
NOT_READY = "503"


@dataclass
class ReplayLog:
    """The replay's log, read as it grows."""

    path: Path
    sent_at: list[float] = field(default_factory=list)
    """Wall time of each request, s since 1970."""
    latency: list[float] = field(default_factory=list)
    """From sending to the whole answer, s."""
    status: list[str] = field(default_factory=list)
    """HTTP status, or ``error``."""
    version: list[int] = field(default_factory=list)
    """Release that answered, 0 if none did."""
    data_time: list[str] = field(default_factory=list)
    """Data time of the readings."""
    staleness: list[float] = field(default_factory=list)
    """Age of the data behind the answer in data time, s; NaN where unknown."""
    _offset: int = 0

    def read(self) -> None:
        """Take in what was appended since the last call; a line half written waits."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].decode().splitlines():
            if line.startswith("sent_at"):
                continue
            sent, latency, status, version, data_time, staleness = line.split(",")
            self.sent_at.append(float(sent))
            self.latency.append(float(latency))
            self.status.append(status)
            self.version.append(int(version or 0))
            self.data_time.append(data_time)
            self.staleness.append(float(staleness or "nan"))


@dataclass(frozen=True)
class Service:
    """Figures of the service."""

    answered: int
    """Requests answered with a prediction."""
    not_ready: int
    """Requests before the first release, whose readings were kept."""
    failed: int
    """All others: refused or unanswered at any time, or not ready after the first answer."""
    p50: float | None
    """Median latency of the answers, ms."""
    p99: float | None
    """99th percentile, ms."""
    longest: float | None
    """Maximum, ms."""
    staleness: float | None
    """Of the last answer, s of data time."""


def service(log: ReplayLog, last: int | None = None) -> Service:
    """Return the figures of a log.

    Parameters
    ----------
    log : ReplayLog
    last : int, optional
        Take latencies from the last so many requests only.
    """
    status = np.array(log.status)
    answered = status == OK
    first = int(np.argmax(answered)) if answered.any() else len(status)
    waiting = (status == NOT_READY) & (np.arange(len(status)) < first)
    recent = slice(-last if last else None, None)
    latency = 1e3 * np.array(log.latency)[recent][answered[recent]]
    known = [s for s in log.staleness[-50:] if s == s]
    return Service(
        answered=int(answered.sum()),
        not_ready=int(waiting.sum()),
        failed=int((~answered & ~waiting).sum()),
        p50=float(np.percentile(latency, 50)) if latency.size else None,
        p99=float(np.percentile(latency, 99)) if latency.size else None,
        longest=float(latency.max()) if latency.size else None,
        staleness=known[-1] if known else None,
    )


def swap_pauses(log: ReplayLog, swaps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the pause that each swap caused.

    The pause is the longest request that overlaps the swap, from the start of loading to its end,
    minus the median latency; zero if no request overlaps it or none is longer than the median.

    Parameters
    ----------
    log : ReplayLog
    swaps : sequence of mapping
        The agent's records: ``version``, ``loading_started_at``, ``swapped_at``, ``finished_at``
        (wall time, s since 1970).

    Returns
    -------
    list of dict
        ``version``, ``at`` (s since 1970), ``pause_ms``, ``requests`` that overlap.
    """
    answered = np.array(log.status) == OK
    start = np.array(log.sent_at)[answered]
    latency = np.array(log.latency)[answered]
    median = float(np.median(latency)) if latency.size else 0.0
    pauses = []
    for swap in swaps:
        overlaps = (start <= swap["finished_at"]) & (start + latency >= swap["loading_started_at"])
        longest = float(latency[overlaps].max()) if overlaps.any() else median
        pauses.append(
            {
                "version": int(swap["version"]),
                "at": float(swap["swapped_at"]),
                "pause_ms": round(1e3 * max(0.0, longest - median), 3),
                "requests": int(overlaps.sum()),
            }
        )
    return pauses
