"""What our campaign gains and costs on a real machine's real jobs, by how it asks for blocks.

``python benchmarks/backfill_replay.py [--trace FILE.swf[.gz]] [--json FILE]`` prints the agreement
of the simulated schedulers with a real Slurm's recorded starts and with the trace's log, and the
tables of ``docs/backfill-study.md``.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from workflows.backfill.planner import Limits
from workflows.backfill.replay import (
    Always,
    DayAndNight,
    Result,
    Row,
    Study,
    Trace,
    TraceError,
    Work,
    as_json,
    read_run_times,
    read_swf,
    run,
)
from workflows.backfill.replay.calendar import DAY
from workflows.backfill.replay.recorded import read_replays, rows_of, table_of
from workflows.backfill.replay.validation import SCHEDULERS

ROOT = Path(__file__).resolve().parent.parent
KTH = ROOT / "data" / "traces" / "KTH-SP2-1996-2.1-cln.swf.gz"
SCALING = ROOT / "data" / "reference" / "cfd_scaling_notre_dame.csv"
#: A real Slurm's starts; made by benchmarks/slurm_agreement.py.
RECORDED = ROOT / "data" / "reference" / "slurm_starts.json.gz"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, default=KTH)
    parser.add_argument("--json", type=Path, help="write the same as JSON")
    parser.add_argument("--starts", type=int, default=10, help="start dates")
    parser.add_argument("--weeks", type=float, default=1.0, help="length of a campaign")
    parser.add_argument("--procs", type=int, help="processors of the machine; default: the header")
    parser.add_argument("--node-cores", type=int, default=16)
    parser.add_argument("--cores", type=int, default=64, help="most that the campaign holds")
    parser.add_argument("--max-minutes", type=int, default=60, help="longest planned block")
    parser.add_argument("--poll", type=float, default=60.0, help="seconds between looks")
    parser.add_argument("--policies", nargs="+", default=list(SCHEDULERS),
                        choices=list(SCHEDULERS))  # fmt: skip
    parser.add_argument("--calendar", choices=["any-hour", "day-night"],
                        help="default: day-night for the KTH log, any-hour for others")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        trace = read_swf(args.trace, procs=args.procs)
        rule = args.calendar or ("day-night" if args.trace == KTH else "any-hour")
        study = Study(
            trace=trace,
            work=Work(read_run_times(SCALING)),
            calendar=DayAndNight(trace.unix_start) if rule == "day-night" else Always(),
            policies=tuple(dict.fromkeys(args.policies)),
            starts=args.starts,
            length=args.weeks * 7 * DAY,
            limits=Limits(
                max_nodes=max(1, args.cores // args.node_cores),
                max_cores=min(args.node_cores, args.cores),
                max_minutes=args.max_minutes,
            ),
            poll_seconds=args.poll,
        )
        result = run(study, args.workers)
        recorded = rows_of(read_replays(RECORDED), SCHEDULERS)
    except TraceError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.monotonic() - began
    print("Simulated against a real Slurm's starts on the same jobs (absolute difference, s)\n")
    print("\n".join(table_of(recorded)))
    show(trace, study, result)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"\n{seconds:.0f} s on {args.workers} processes, {cpu:.0f} s of computing")
    if args.json:
        about = {"trace": trace.name, "procs": trace.procs, "jobs": len(trace.jobs),
                 "calendar": rule, "seconds": seconds, "cpu_seconds": cpu,
                 "recorded": recorded}  # fmt: skip
        args.json.write_text(json.dumps(about | as_json(result), indent=2, allow_nan=False) + "\n")
    return 0


def show(trace: Trace, study: Study, result: Result) -> None:
    days = (trace.jobs[-1].submit - trace.jobs[0].submit) / DAY
    load = sum(j.procs * j.run for j in trace.jobs) / (trace.procs * max(days, 1e-9) * DAY)
    print(f"\n{trace.name}: {len(trace.jobs)} jobs in {days:.0f} days on {trace.procs} processors,")
    print(f"load {load:.2f}; left out: {trace.left_out or 0}; mended: {trace.mended or 0}")
    print("\nSimulated against logged starts (absolute difference, s)\n")
    print("| scheduler, rule, replay | jobs | median | 90 % | within 1 min | mean (signed) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, a in result.agreement.items():
        print(f"| {name} | {a.jobs} | {a.median:.0f} | {a.p90:.0f} | {a.within_minute:.0%} "
              f"| {a.bias:+.0f} |")  # fmt: skip
    for policy in study.policies:
        rows = [row for row in result.rows if row.policy == policy]
        if rows:
            most = study.limits.max_nodes * study.limits.max_cores
            print(f"\n{policy} backfill, {len(result.begins)} campaigns of {study.length / DAY:g} "
                  f"days, at most {most} cores\n")  # fmt: skip
            table(rows)


def table(rows: list[Row]) -> None:
    print("| blocks | first model h, median (worst) | simulations/day | core-h per simulation "
          "| core-h lost | blocks | their wait, 90 %, min "
          "| others' delay s: mean ± error | median | 90 % | max | > 1 min late |")  # fmt: skip
    print("| --- |" + " ---: |" * 11)
    for r in rows:
        worst = f"{r.first_model_worst_hours:.1f}" if r.reached_model == r.campaigns else "never"
        print(f"| {r.strategy} | {r.first_model_hours:.1f} ({worst}) | {r.simulations_per_day:.0f} "
              f"| {r.core_hours_per_simulation:.2f} | {r.lost_core_hours:.0f} | {r.blocks} "
              f"| {r.block_wait_p90_minutes:.0f} "
              f"| {r.delay_mean:.0f} ± {r.delay_mean_error:.0f} | {r.delay_median:.0f} "
              f"| {r.delay_p90:.0f} | {r.delay_max:.0f} | {r.delayed_share:.0%} |")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
