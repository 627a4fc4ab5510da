"""How well the simulated scheduler agrees with a real Slurm, on the same jobs.

``python benchmarks/slurm_agreement.py [--days 211 ...] [--json FILE]`` starts a Slurm of one node
per processor under libfaketime, gives it the trace's jobs at the trace's times, reads their starts
from its records, and replays what it was given. Needs root, Slurm and faketime (Debian: munge
slurmctld slurmd slurm-client faketime).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from workflows.backfill.replay import Job, Trace, read_swf
from workflows.backfill.replay.calendar import DAY
from workflows.backfill.replay.recorded import (
    Replay,
    Seen,
    read_replays,
    rows_of,
    table_of,
    write_replays,
)
from workflows.backfill.replay.validation import SCHEDULERS

HERE = Path(__file__).resolve().parent
KTH = HERE.parent / "data" / "traces" / "KTH-SP2-1996-2.1-cln.swf.gz"
NEEDED = ("faketime", "munged", "slurmctld", "slurmd", "sbatch", "squeue")
#: Submissions that lag more than this behind the trace make a replay unfit, s.
MOST_LATE = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, default=KTH)
    parser.add_argument("--days", type=float, nargs="+", default=[211.0], help="begins, in days")
    parser.add_argument("--hours", type=float, default=5.0, help="length of each replay")
    parser.add_argument("--speed", type=float, default=100.0, help="times real time")
    parser.add_argument("--read", type=Path, nargs="+", help="sum up earlier --json files instead")
    parser.add_argument("--json", type=Path, help="write replays and table; .gz: compressed")
    args = parser.parse_args()
    if args.read:
        replays = [replay for file in args.read for replay in read_replays(file)]
    else:
        os.environ["PATH"] += ":/usr/sbin"
        absent = [name for name in NEEDED if shutil.which(name) is None]
        if absent or os.geteuid() != 0:
            print(f"not found: {', '.join(absent)}" if absent else "a cluster here needs root",
                  file=sys.stderr)  # fmt: skip
            return 2
        trace = read_swf(args.trace)
        replays = [on_slurm(trace, day, args.hours * 3600, args.speed) for day in args.days]
        late = max(replay.late for replay in replays)
        if late > MOST_LATE:
            print(f"submissions lagged by up to {late:.0f} s: this machine is too slow or too busy "
                  f"for --speed {args.speed:g}; nothing written", file=sys.stderr)  # fmt: skip
            return 1
    rows = rows_of(replays, SCHEDULERS)
    print("", *table_of(rows), sep="\n")
    if args.json:
        write_replays(args.json, replays, rows)
    return 0


def on_slurm(trace: Trace, day: float, length: float, speed: float) -> Replay:
    """Replay part of a trace on a real Slurm."""
    begin = day * DAY
    ran = [(shorten(j, begin), True) for j in trace.jobs
           if j.logged_start <= begin < j.logged_start + j.run]  # fmt: skip
    queued = [(j, False) for j in trace.jobs if j.submit <= begin < j.logged_start]
    new = [(j, False) for j in trace.jobs if begin < j.submit <= begin + length]
    given = {j.number: (whole_minutes(j), before) for j, before in ran + queued + new}
    print(f"day {day:g}: {len(ran)} running, {len(queued)} waiting, {len(new)} to come; "
          f"{length / 3600:g} h in {length / speed:.0f} s", flush=True)  # fmt: skip
    with cluster(trace.procs, speed) as (folder, env):

        def run(*command: str) -> str:
            return subprocess.run(
                command, env=env, capture_output=True, text=True, check=True
            ).stdout  # fmt: skip

        def submit(number: int) -> None:
            job, _ = given[number]
            run("sbatch", "-N", str(job.procs), "-t", str(int(job.request // 60)), "-o/dev/null",
                "-J", str(number), "--wrap", f"sleep {job.run}")  # fmt: skip

        for job, _ in ran + queued:
            submit(job.number)
        zero = time.monotonic()
        late = 0.0
        for job, _ in new:
            ahead = (job.submit - begin) / speed - (time.monotonic() - zero)
            late = max(late, -ahead * speed)
            time.sleep(max(0.0, ahead))
            submit(job.number)
        time.sleep(max(0.0, length / speed - (time.monotonic() - zero)))
        last = float(run("date", "+%s"))
        queue = run("squeue", "-h", "-t", "all", "-o", "%j|%i|%T|%V|%S|%e")
        ended = (folder / "log" / "jobcomp.txt").read_text()
    seen: dict[int, tuple[int, float, float, float]] = {}
    for line in queue.splitlines():
        name, order, state, submitted, start, _ = line.split("|")
        begun = state in {"RUNNING", "COMPLETING"}
        if begun or state == "PENDING":
            seen[int(name)] = (int(order), stamp(submitted), stamp(start) if begun else math.nan,
                               math.nan)  # fmt: skip
    records = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in ended.splitlines()]
    for r in records:
        times = (stamp(r[key]) for key in ("SubmitTime", "StartTime", "EndTime"))
        seen[int(r["Name"])] = (int(r["JobId"]), *times)
    states = [r["JobState"] for r in records]
    count = {state: states.count(state) for state in sorted(set(states))}
    longer = [s[3] - s[2] - given[n][0].run for n, s in seen.items() if s[3] == s[3]]
    print(f"  {len(seen)} of {len(given)} in Slurm's records, ended {count}; submitted at most "
          f"{late:.0f} s late; ran {np.median(longer):.0f} s longer than asked (median), "
          f"{max(longer):.0f} s at most")  # fmt: skip
    jobs = [Seen(*given[number], *times) for number, times in seen.items()]
    return Replay(day, trace.procs, min(s.submit for s in jobs), last, jobs)


@contextmanager
def cluster(nodes: int, speed: float) -> Iterator[tuple[Path, dict[str, str]]]:
    """Run a fast Slurm; yields its folder and the environment of its commands."""
    with tempfile.TemporaryDirectory(prefix="rbf-slurm-fast-", dir="/var/tmp") as name:
        env = os.environ | {"RBF_SLURM_DIR": name, "NODES": str(nodes), "TZ": "UTC"}
        keeper = subprocess.Popen(
            ["faketime", "-m", "-f", f"+0 x{speed:g}", HERE / "slurm_fast.sh"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            lines = list(itertools.takewhile(lambda line: line != "up\n", keeper.stdout or ()))
            if keeper.poll() is not None or not any(line.startswith("FAKE") for line in lines):
                raise SystemExit("".join(lines) or "Slurm did not come up")
            env |= dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
            yield Path(name), env
        finally:
            # The end of its input stops the cluster.
            if keeper.stdin:
                keeper.stdin.close()
            keeper.wait(timeout=120)


def shorten(job: Job, now: float) -> Job:
    """Return what is left of a running job."""
    done = now - job.logged_start
    return Job(job.number, now, job.procs, job.request - done, job.run - done)


def whole_minutes(job: Job) -> Job:
    """Return a job with the limit that Slurm makes of its request."""
    return Job(job.number, job.submit, job.procs, 60.0 * max(1, math.ceil(job.request / 60)),
               job.run)  # fmt: skip


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


if __name__ == "__main__":
    sys.exit(main())
