"""The trace-driven study: a campaign added to a real machine's real jobs.

`swf` reads a trace, `scheduler` decides, `simulation` keeps the clock, `campaign` asks our planner
for blocks, `validation` compares with the log and `study` puts strategies side by side.
"""

from workflows.backfill.replay.calendar import Always, Calendar, DayAndNight
from workflows.backfill.replay.campaign import Strategy, Work, read_run_times
from workflows.backfill.replay.scheduler import Conservative, Easy
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.study import Result, Row, Study, as_json, run
from workflows.backfill.replay.swf import Job, Trace, TraceError, read_swf

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
