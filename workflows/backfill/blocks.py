"""What is known of the campaign's blocks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from apps.trace import read_runs
from workflows.backfill.planner import BlockShape
from workflows.backfill.windows import Probe

#: An end that moves by less is rounding, s.
MOVED_SECONDS = 5.0

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"})
WORKING = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"})
CLOSING = frozenset({"COMPLETING", "STAGE_OUT"})

#: Ends that are the scheduler's or a person's doing: no task is to blame for them. ``GONE``: Slurm
#: had forgotten the job before we could ask.
BLAMELESS = frozenset(
    {"TIMEOUT", "PREEMPTED", "CANCELLED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "COMPLETED"}
    | {"REVOKED", "GONE"}
)


@dataclass
class Block:
    """One pilot job."""

    job: str
    name: str
    shape: BlockShape
    reason: str
    """Why it was asked for."""
    asked_at: float
    """Unix time, s."""
    state: str = "PENDING"
    """Slurm's long name, or ``GONE``."""
    started_at: float | None = None
    ends_at: float | None = None
    """Unix time, s; moves on preemption."""
    nodes: tuple[str, ...] = ()
    recalled: bool = False
    """Whether its end was moved to an earlier time while it ran: preemption, mostly."""
    unseen: int = 0
    """Answers in a row that did not show it."""
    held: bool = field(default=False, repr=False)
    """Whether it gets no more tasks."""
    closed: bool = field(default=False, repr=False)
    """Whether its end has been dealt with."""

    @property
    def waiting(self) -> bool:
        """Whether it has not started."""
        return self.state in WAITING

    @property
    def working(self) -> bool:
        """Whether its pool may take tasks."""
        return self.state in WORKING

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state not in WAITING | WORKING | CLOSING

    def moves_to(self, end: float | None) -> bool:
        """Take the scheduler's word for the end; return whether it is news that it is earlier."""
        known, self.ends_at = self.ends_at, end
        earlier = (
            self.working and known is not None and end is not None and end < known - MOVED_SECONDS
        )
        news = earlier and not self.recalled
        self.recalled = self.recalled or earlier
        return news

    def probe(self, now: float) -> Probe:
        """Return how it fared in the queue."""
        until = now if self.started_at is None or self.waiting else self.started_at
        waited = max(0.0, until - self.asked_at)
        return Probe(self.shape.minutes, waited, started=not self.waiting)

    def request(self) -> dict[str, object]:
        """Return what a restarted campaign must know of it."""
        return {"shape": asdict(self.shape), "reason": self.reason, "asked_at": self.asked_at}


def read_request(path: Path, job: str, name: str) -> Block:
    """Return a block that an earlier run of the campaign asked for.

    Raises
    ------
    OSError, ValueError, TypeError, KeyError
        If the file is not there or damaged.
    """
    known = json.loads(path.read_bytes())
    return Block(job, name, BlockShape(**known["shape"]), known["reason"], float(known["asked_at"]))


def account(block: Block, folder: Path, now: float) -> dict[str, object]:
    """Return what a block that ended did and cost, for the ledger.

    Parameters
    ----------
    block : Block
    folder : Path
        The block's.
    now : float
        Unix time, s.

    Returns
    -------
    dict
        ``task_seconds`` inside tasks, ``lost_seconds`` of work that must be done again,
        ``core_seconds`` and ``busy`` from its first task to its last: the share of core-seconds
        inside tasks, None without a task.
    """
    end = min(now, block.ends_at or now)
    runs = read_runs(folder, end) if folder.is_dir() else []
    last = max((run.ended for run in runs), default=end)
    first = min((run.started for run in runs), default=end)
    inside = sum(max(0.0, run.ended - run.started) for run in runs)
    span = block.shape.slots * (last - first)
    began = block.started_at if block.started_at is not None else end
    return {
        "job": block.job,
        "state": block.state,
        "recalled": block.recalled,
        "shape": str(block.shape),
        "waited_seconds": round(max(0.0, began - block.asked_at), 1),
        "ran_seconds": round(max(0.0, end - began), 1),
        "tasks": sum(run.whole for run in runs),
        "task_seconds": round(inside, 2),
        "core_seconds": round(block.shape.nodes * block.shape.cores * max(0.0, end - began), 1),
        "busy": round(inside * block.shape.cores_per_task / span, 4) if span > 0 else None,
        "lost_seconds": round(sum(run.lost() for run in runs), 2),
    }
