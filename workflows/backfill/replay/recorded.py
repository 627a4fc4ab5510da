"""What a real Slurm did with part of a trace, and how our schedulers compare with it."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflows.backfill.replay.calendar import DAY
from workflows.backfill.replay.scheduler import Scheduler
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.swf import Job, TraceError
from workflows.backfill.replay.validation import agreement, run_until_started

#: Waited at least so long to count among those that waited, s.
WAITED = 60.0


@dataclass(frozen=True)
class Seen:
    """A job in Slurm's records; times are Unix seconds of the fast clock."""

    job: Job
    """As given: its request in whole minutes."""
    before: bool
    """Ran already when the replay begins."""
    order: int
    """Slurm's number of it: the order of submission."""
    submit: float
    start: float
    """NaN: had not started at the end."""
    end: float
    """NaN: had not ended."""


@dataclass(frozen=True)
class Replay:
    """Part of a trace on a real Slurm."""

    day: float
    """Begin, days after the trace's start."""
    procs: int
    """Nodes, of one processor each."""
    zero: float
    """First submission on the fast clock, s."""
    last: float
    """Last look, s."""
    seen: list[Seen]

    @property
    def late(self) -> float:
        """Return how much the lag of the submissions behind the trace varied, s.

        Much more than a second says that the machine was too slow for the speed.
        """
        lags = [
            (s.submit - self.zero) - (s.job.submit - self.day * DAY)
            for s in self.seen
            if s.job.submit > self.day * DAY
        ]
        return max(lags) - min(lags) if lags else 0.0


def read_replays(file: Path) -> list[Replay]:
    """Read what `write_replays` wrote.

    Raises
    ------
    TraceError
        If the file is missing or not of this kind.
    """
    try:
        raw = file.read_bytes()
        data = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        return [_replay(values) for values in data["replays"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        msg = f"{file}: no recorded replays: {error}"
        raise TraceError(msg, file=str(file), line=None) from error


def write_replays(file: Path, replays: Sequence[Replay], rows: Sequence[dict[str, Any]]) -> None:
    """Write replays and the rows of their table as JSON, compressed if the name ends in .gz."""

    def clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    about = {"replays": [clean(asdict(replay)) for replay in replays], "rows": clean(list(rows))}
    text = (json.dumps(about, indent=1, allow_nan=False) + "\n").encode()
    # No time of writing inside: the same replays make the same file.
    file.write_bytes(gzip.compress(text, mtime=0) if file.suffix == ".gz" else text)


def simulate(make: Callable[[int], Scheduler], replay: Replay) -> dict[int, float]:
    """Return the simulated starts of what Slurm was given, with the run times that it saw."""
    jobs = []
    for s in sorted(replay.seen, key=lambda s: (s.submit, s.order)):
        ran = max(1.0, s.end - s.start) if s.end == s.end else s.job.run
        jobs.append(Job(s.job.number, s.submit, s.job.procs, max(s.job.request, ran), ran))
    machine = Machine(make(replay.procs), jobs)
    return run_until_started(machine, {job.number for job in jobs})


def compare(replay: Replay, starts: dict[int, float]) -> list[tuple[float, float]]:
    """Return other - Slurm's start, and the wait in Slurm, of the jobs that came or queued, s.

    A job that had not started in Slurm counts with what it differs by at least, or not at all if
    it had not started in the other either.
    """
    result = []
    for s in replay.seen:
        real = s.start if s.start == s.start else replay.last
        other = starts.get(s.job.number, replay.last)
        other = other if other == other else replay.last
        if not s.before and (s.start == s.start or other < replay.last):
            result.append((other - real, real - s.submit))
    return result


def rows_of(
    replays: Sequence[Replay], schedulers: dict[str, Callable[[int], Scheduler]]
) -> list[dict[str, Any]]:
    """Return the rows of a table: each scheduler on each replay and on all, and Slurm on itself.

    Parameters
    ----------
    replays : sequence of Replay
        Two of the same day are compared with each other as well.
    schedulers : dict
        By name; called with the number of processors.
    """
    rows = []
    for name, make in schedulers.items():
        compared = [compare(replay, simulate(make, replay)) for replay in replays]
        for replay, one in zip(replays, compared, strict=True):
            rows += _summed(name, f"{replay.day:g}", one)
        if len(replays) > 1:
            rows += _summed(name, "together", itertools.chain(*compared))
    again = []
    for first, second in itertools.combinations(replays, 2):
        if first.day == second.day:
            starts = {s.job.number: s.start - second.zero + first.zero for s in second.seen}
            again.append(compare(first, starts))
            rows += _summed("Slurm again", f"{first.day:g}", again[-1])
    if len(again) > 1:
        rows += _summed("Slurm again", "together", itertools.chain(*again))
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table in Markdown; times in s."""
    lines = [
        "| scheduler | day | jobs | number | median, s | 90 %, s | within 1 min | mean (signed) |",
        "| --- | --- | --- |" + " ---: |" * 5,
    ]
    for r in rows:
        which = f"waited {r['waited']:.0f} s or more" if r["waited"] else "all"
        lines.append(
            f"| {r['scheduler']} | {r['day']} | {which} | {r['jobs']} | {r['median']:.0f} "
            f"| {r['p90']:.0f} | {r['within_minute']:.0%} | {r['bias']:+.0f} |"
        )
    return lines


def _summed(name: str, day: str, compared: Iterable[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return a row for all jobs and one for those that waited."""
    pairs = list(compared)
    return [
        {"scheduler": name, "day": day, "waited": waited,
         **asdict(agreement([difference for difference, wait in pairs if wait >= waited]))}
        for waited in (0.0, WAITED)
    ]  # fmt: skip


def _replay(values: dict[str, Any]) -> Replay:
    seen = [Seen(**_known(s) | {"job": Job(**_known(s["job"]))}) for s in values["seen"]]
    return Replay(**values | {"seen": seen})


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with NaN for what was not known."""
    return {key: math.nan if value is None else value for key, value in values.items()}
