"""Reads traces in the Standard Workload Format of the Parallel Workloads Archive.

Eighteen fields a line, ``;`` before comments and header fields, -1 where a value is missing:
https://www.cs.huji.ac.il/labs/parallel/workload/swf.html
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workflows.errors import CampaignError

#: Fields up to the requested time: what a replay cannot do without.
NEEDED_FIELDS = 9

_HEADER = re.compile(r"^;\s*([A-Za-z]+):\s*(.*?)\s*$")


class TraceError(CampaignError):
    """A trace cannot be read.

    Attributes
    ----------
    file : str
    line : int or None
        Number of the line, from 1; None if the file as a whole is wrong.
    """


@dataclass(frozen=True, slots=True)
class Job:
    """One job as a scheduler sees it, and how long it really runs."""

    number: int
    """As in the trace; unique."""
    submit: float
    """Time of submission, s after the trace's start."""
    procs: int
    """Processors."""
    request: float
    """Time that the scheduler plans with, s; at least `run`."""
    run: float
    """Time that it runs, s."""
    logged_start: float = math.nan
    """Start in the log, s after the trace's start; NaN where the log does not say."""


@dataclass(frozen=True)
class Trace:
    """A machine's jobs in order of submission."""

    name: str
    """Name of the file."""
    procs: int
    """Processors of the machine."""
    unix_start: int
    """Unix time of the trace's zero, s; 0 where the header does not say."""
    jobs: tuple[Job, ...]
    """Jobs that ran."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Lines that are no job to replay, by reason."""
    mended: dict[str, int] = field(default_factory=dict)
    """Jobs whose values were filled in or changed, by what was done."""


def read_swf(path: Path, *, procs: int | None = None) -> Trace:
    """Read a trace, compressed or not.

    Parameters
    ----------
    path : Path
        ``.swf`` or ``.swf.gz``.
    procs : int, optional
        Processors of the machine; default: the header's, else the widest job's.

    Raises
    ------
    TraceError
        If the file is missing or not in this format; with the line where there is one.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _error(str(error), str(path)) from error
    # Old traces name their people in Latin-1; no field that we read can hold such a letter.
    return parse_swf(raw.decode("utf-8", errors="replace").splitlines(), str(path), procs=procs)


def parse_swf(lines: Iterable[str], name: str, *, procs: int | None = None) -> Trace:
    """Read the lines of a trace; see `read_swf`."""
    header: dict[str, str] = {}
    left_out: dict[str, int] = {}
    mended: dict[str, int] = {}
    jobs: dict[int, Job] = {}
    for at, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(";"):
            if match := _HEADER.match(text):
                header.setdefault(match[1], match[2])
        elif text:
            job, reason = _job(_numbers(text, name, at), mended)
            if job is None:
                left_out[reason] = left_out.get(reason, 0) + 1
            elif job.number in jobs:
                msg = f"job {job.number} is there twice"
                raise _error(msg, name, at)
            else:
                jobs[job.number] = job
    if not jobs:
        msg = "no job that ran"
        raise _error(msg, name)
    machine = procs or _header_int(header, "MaxProcs") or _header_int(header, "MaxNodes")
    machine = machine or max(job.procs for job in jobs.values())
    fitting = [job for job in jobs.values() if job.procs <= machine]
    if len(fitting) < len(jobs):
        left_out["wider than the machine"] = len(jobs) - len(fitting)
    if not fitting:
        msg = f"no job fits {machine} processors"
        raise _error(msg, name)
    return Trace(
        name=Path(name).name,
        procs=machine,
        unix_start=_header_int(header, "UnixStartTime") or 0,
        jobs=tuple(sorted(fitting, key=lambda job: (job.submit, job.number))),
        left_out=left_out,
        mended=mended,
    )


def _error(message: str, file: str, line: int | None = None) -> TraceError:
    place = file if line is None else f"{file}:{line}"
    return TraceError(f"{place}: {message}", file=file, line=line)


def _numbers(text: str, name: str, line: int) -> list[float]:
    fields = text.split()
    if len(fields) < NEEDED_FIELDS:
        msg = f"{len(fields)} fields; a job has 18, and the first {NEEDED_FIELDS} are needed"
        raise _error(msg, name, line)
    values = []
    for at, word in enumerate(fields[:NEEDED_FIELDS], 1):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            msg = f"field {at} is {word!r}, not a number"
            raise _error(msg, name, line)
        values.append(value)
    return values


def _job(values: list[float], mended: dict[str, int]) -> tuple[Job | None, str]:
    """Return the job, or why there is none."""

    def mend(what: str) -> None:
        mended[what] = mended.get(what, 0) + 1

    number, submit, wait, run, allocated = values[:5]
    wanted, request = values[7], values[8]
    procs = allocated if allocated > 0 else wanted
    if submit < 0:
        return None, "no submit time"
    if procs < 1:
        return None, "no processors"
    if run <= 0:
        # Cancelled in the queue, or over at once: it took nothing from anybody.
        return None, "did not run"
    if request <= 0:
        request = run
        mend("request missing: run time taken")
    elif request < run:
        # A plan must hold until the job ends; the log's own limits were enforced late.
        request = run
        mend("ran over its request: request raised")
    logged = submit + wait if wait >= 0 else math.nan
    # Whole seconds, as the format means it: then sums of times are exact.
    return Job(
        int(number), math.floor(submit), int(procs), math.ceil(request), math.ceil(run), logged
    ), ""


def _header_int(header: dict[str, str], key: str) -> int | None:
    match = re.match(r"\d+", header.get(key, ""))
    return (int(match[0]) or None) if match else None
