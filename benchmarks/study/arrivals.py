"""When a release arrives: fixed delays, the published queue waits, and the KTH machine's.

A release of data time T takes its simulations and a training; the batch queue comes before. With c
cores its runs take ceil(runs / c) times the measured run time on one core (3458 s), its training
600 s (assumed: none is published).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.study.truth import ROOT
from workflows.backfill.replay.calendar import DAY, DayAndNight
from workflows.backfill.replay.scheduler import Easy
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.swf import Job, read_swf

#: Of one simulation on one core, published (`data/reference/cfd_scaling_notre_dame.csv`), s.
RUN_SECONDS = 3458.0
TRAINING_SECONDS = 600.0
#: Hours from the newest reading behind a release to its service.
DELAYS = (0.0, 1.0, 4.0, 12.0, 24.0, 72.0)
#: Published probes (Notre Dame): cores to shortest and longest wait (s), and the share of probes
#: that waited no longer. The ends are published. Assumed: "usually" 5 s on 4 cores
#: is nine in ten, and half on 16 cores; between the ends the logarithm is uniform.
PROBES = {4: (5.0, 1389.0, 0.9), 16: (5.0, 5416.0, 0.5), 64: (1216.0, 11967.0, 0.0)}
TRACE = ROOT / "data" / "traces" / "KTH-SP2-1996-2.1-cln.swf.gz"
#: Day of the trace on which the record begins, and days before it that fill the machine.
KTH_DAY, WARM_DAYS = 60.0, 8.0


def published_waits(cores: int, count: int, seed: int) -> np.ndarray:
    """Return waits drawn from the published probes, (count,), s."""
    low, high, at_once = PROBES[cores]
    rng = np.random.default_rng([seed, cores])
    drawn = np.exp(rng.uniform(math.log(low), math.log(high), count))
    return np.where(rng.uniform(size=count) < at_once, low, drawn)


def compute_seconds(runs: int, cores: int) -> float:
    """Return the time of a release's simulations and its training on so many cores, s."""
    return math.ceil(runs / cores) * RUN_SECONDS + TRAINING_SECONDS


def kth_waits(asked: Sequence[tuple[float, float]], cores: int, day: float = KTH_DAY) -> np.ndarray:
    """Return what our jobs wait on the KTH SP2, replayed under EASY with its night shift, s.

    Parameters
    ----------
    asked : sequence of (float, float)
        Hours since the record's start and run time (s) of each of our jobs, in order.
    cores : int
        Processors of each.
    day : float
        Of the trace, on which the record begins.

    Returns
    -------
    (jobs,) array
        A job that did not start within the trace waits for ever.
    """
    trace = read_swf(TRACE)
    begin = day * DAY
    end = begin + 3600 * max(hours for hours, _ in asked) + 14 * DAY
    ours = [
        Job(-1 - k, begin + math.floor(3600 * hours), cores, math.ceil(run), math.ceil(run))
        for k, (hours, run) in enumerate(asked)
    ]
    theirs = [j for j in trace.jobs if begin - WARM_DAYS * DAY <= j.submit < end]
    jobs = sorted([*theirs, *ours], key=lambda j: (j.submit, j.number))
    machine = Machine(Easy(trace.procs, DayAndNight(trace.unix_start)), jobs)
    machine.run(end)
    return np.array([machine.starts.get(j.number, math.inf) - j.submit for j in ours])


def in_service(hours: np.ndarray, made: Sequence[float], arrives: Sequence[float]) -> np.ndarray:
    """Return which release serves at each instant: the newest that has arrived.

    Parameters
    ----------
    hours : (n,) array
        Instants, h.
    made : sequence of float
        Data time of each release, ascending, h.
    arrives : sequence of float
        When it can serve, h; a release that a newer one has overtaken never does.

    Returns
    -------
    (n,) int
        Its place in `made`; -1 before the first.
    """
    there = np.asarray(arrives)[None, :] <= np.asarray(hours)[:, None]
    order = np.arange(1, len(made) + 1)
    return np.asarray((there * order).max(axis=1) - 1)


def schedules(
    made: Sequence[float], runs: Sequence[int], seed: int, *, cores_kth: int = 16, kth: bool = True
) -> Mapping[str, np.ndarray]:
    """Return when each release arrives, (releases,) h, by the name of the way.

    Parameters
    ----------
    made : sequence of float
        Data times, h.
    runs : sequence of int
        Simulations that each one asked for.
    seed : int
        Of the drawn waits.
    cores_kth : int
        Of our jobs on the KTH machine.
    kth : bool
        Whether to replay it: half a minute.
    """
    times = np.asarray(made, float)
    found: dict[str, np.ndarray] = {f"{d:g} h": times + d for d in DELAYS}
    for cores in PROBES:
        work = np.array([compute_seconds(n, cores) for n in runs])
        waits = published_waits(cores, len(times), seed)
        found[f"queue, {cores} cores"] = times + (waits + work) / 3600
    if kth:
        work = np.array([compute_seconds(n, cores_kth) for n in runs])
        waits = kth_waits(list(zip(times, work, strict=True)), cores_kth)
        found[f"KTH, {cores_kth} cores"] = times + (waits + work) / 3600
    return found
