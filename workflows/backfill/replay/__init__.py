"""The trace-driven study: a campaign added to a real machine's real jobs.

`swf` reads a trace; `calendar`, `profile` and `scheduler` decide by counting processors, `nodes`,
`timetable` and `slurm` as Slurm does; `simulation` keeps the clock, `campaign` asks our planner for
blocks and fills them with `tasks`. `validation` compares with the log, `recorded` with a real
Slurm; `study` puts strategies side by side and `results` sums them up.
"""

from workflows.backfill.replay.calendar import Always, Calendar, DayAndNight
from workflows.backfill.replay.results import Result, Row, as_json
from workflows.backfill.replay.scheduler import Conservative, Easy
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.slurm import Slurm, SlurmParameters
from workflows.backfill.replay.study import Study, run
from workflows.backfill.replay.swf import Job, Trace, TraceError, read_swf
from workflows.backfill.replay.tasks import Strategy, Work, read_run_times

__all__ = [
    "Always",
    "Calendar",
    "Conservative",
    "DayAndNight",
    "Easy",
    "Job",
    "Machine",
    "Result",
    "Row",
    "Slurm",
    "SlurmParameters",
    "Strategy",
    "Study",
    "Trace",
    "TraceError",
    "Work",
    "as_json",
    "read_run_times",
    "read_swf",
    "run",
]
