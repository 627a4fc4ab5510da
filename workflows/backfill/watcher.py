"""One per block and node: runs the worker pool, and tells the tasks when the block ends.

    python -m workflows.backfill.watcher --blocks DIR --workers N --walltime S

The batch script starts it (see `workflows.backfill.provider`). It learns the block's end from the
scheduler, also when preemption moves it, and writes it to the block's deadline file, which
`apps.deadline` reads. On the block's first node alone: the others only run their pool.

SIGTERM is Slurm's word that the block must go. The watcher takes it, writes ``stop`` and lets the
tasks write their checkpoints; the pool does not hear it. The campaign sees the tasks come back and
lays a `LEAVE` file; then the watcher ends the pool and the block. A campaign that is killed stops
beating: the watcher waits a little for its successor, whose pool it then runs, and else goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.trace import pool_ended
from edge_agent.contracts.storage import write_bytes
from workflows.backfill.slurm import parse_time, run_command
from workflows.errors import SchedulerError

LAUNCH = "launch.json"
DEADLINE = "deadline.json"
LEAVE = "leave"

#: What tasks are told is this much before the real end, so that their answers still get out, s.
SAFETY = 3.0

#: Between two looks at the files and the pool, s.
TICK = 0.25


@dataclass(frozen=True)
class Launch:
    """What the campaign wants run in its blocks; it rewrites the file all the time it lives."""

    generation: str
    """Of the campaign's process; another one means another pool."""
    command: str
    """The pool's command line; ``{block_id}`` is the job."""
    leave_seconds: float
    """Before the end, when the pool takes no more tasks, s."""
    beat: int = 0
    """Counts; one that stands still means that the campaign is gone."""

    @classmethod
    def read(cls, path: Path) -> Launch | None:
        """Return what the file says, None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file."""
        write_bytes(path, json.dumps(self.__dict__).encode())


def slurm_end(job: str) -> float | None:
    """Return when Slurm will end a job (Unix time, s), None if it does not say.

    Not every centre has the commands on its compute nodes.
    """
    try:
        return parse_time(run_command(["squeue", "-h", "-j", job, "-o", "%e"], 5.0).strip())
    except SchedulerError:
        return None


class Watcher:
    """Runs the pool of one block on one node.

    Parameters
    ----------
    blocks : Path
        Folder of all blocks of the campaign; holds `LAUNCH`, and a folder for each job.
    job : str
        The block's job.
    workers : int
        Workers of the pool.
    walltime : float
        Asked for, s; the end where the scheduler does not tell.
    leader : bool
        Whether this node writes the deadline.
    period : float
        Between two questions to the scheduler, s.
    patience : float
        How long a campaign may be silent, s.
    end : callable
        Job -> its end, Unix time, or None.
    """

    def __init__(
        self,
        blocks: Path,
        job: str,
        workers: int,
        walltime: float,
        *,
        leader: bool = True,
        period: float = 2.0,
        patience: float = 20.0,
        end: Callable[[str], float | None] = slurm_end,
    ) -> None:
        self._blocks = blocks
        self._job = job
        self._workers = workers
        self._leader = leader
        self._period = period
        self._patience = patience
        self._end = end
        self.folder = blocks / job
        self._ends_at = time.time() + walltime
        self._stop = False
        self._told: dict[str, Any] = {}
        self._asked = -float("inf")
        self._launch: Launch | None = None
        self._beat_at = time.monotonic()
        self._pool: subprocess.Popen[bytes] | None = None
        self._pool_of = ""

    def run(self) -> int:
        """Go on until the pool has ended or the block must; return the exit status."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._ask()
            self._tell()
            self._look()
            if (self.folder / LEAVE).exists():
                return self._leave("asked to leave")
            silent = time.monotonic() - self._beat_at
            if silent > self._patience:
                return self._leave(f"the campaign has been silent for {silent:.0f} s")
            if self._pool is None and self._launch is not None:
                self._start(self._launch)
            if self._pool is not None and self._pool.poll() is not None:
                pool_ended(self.folder)
                status: int = self._pool.returncode
                if silent < self._patience / 4 and not self._superseded():
                    _say(f"the pool has ended with status {status}")
                    return abs(status)
                # Its campaign is gone, or was replaced: the next one may want this block.
                if self._superseded():
                    self._pool = None
            time.sleep(TICK)

    def stop(self, *_signal: object) -> None:
        """Take Slurm's word that the block must go; a signal handler, so it only notes it."""
        self._stop = True

    def _ask(self) -> None:
        if not self._leader or time.monotonic() - self._asked < self._period:
            return
        self._asked = time.monotonic()
        self._ends_at = self._end(self._job) or self._ends_at

    def _tell(self) -> None:
        what = {"ends_at": self._ends_at - SAFETY, "stop": self._stop}
        if self._leader and what != self._told:
            write_bytes(self.folder / DEADLINE, json.dumps(what).encode())
            self._told = what
            _say(f"the block ends in {self._ends_at - time.time():.0f} s, stop: {self._stop}")

    def _look(self) -> None:
        launch = Launch.read(self._blocks / LAUNCH)
        if launch is None:
            return
        if launch != self._launch:
            self._beat_at = time.monotonic()
        self._launch = launch
        if self._pool is not None and self._superseded():
            _say("another campaign has taken over")
            self._kill()

    def _superseded(self) -> bool:
        return self._launch is not None and self._launch.generation != self._pool_of

    def _start(self, launch: Launch) -> None:
        drain = int(self._ends_at - time.time() - launch.leave_seconds)
        command = launch.command.replace("{block_id}", self._job)
        command += f" --max_workers_per_node={self._workers} --drain_period={max(1, drain)}"
        # An ignored signal stays ignored in what is executed: only the watcher hears SIGTERM.
        script = f"trap '' TERM; exec {command}"
        environment = os.environ | {"RBF_DEADLINE": str(self.folder / DEADLINE)}
        _say(f"starting {self._workers} workers; no new tasks after {drain} s")
        self._pool = subprocess.Popen(["sh", "-c", script], env=environment)
        self._pool_of = launch.generation

    def _leave(self, why: str) -> int:
        _say(why)
        self._kill()
        return 0

    def _kill(self) -> None:
        if self._pool is None:
            return
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            pool = psutil.Process(self._pool.pid)
            # Python's resource tracker stays: it removes the semaphores and goes by itself.
            doomed = [p for p in pool.children(recursive=True) if not _is_tracker(p)]
            for process in [pool, *doomed]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._pool.wait()
        pool_ended(self.folder)


def _is_tracker(process: Any) -> bool:  # noqa: ANN401 - psutil has no types
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except Exception:  # noqa: BLE001 - gone meanwhile, or another user's
        return False


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} watcher: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the watcher from a batch script."""
    parser = argparse.ArgumentParser(description="Run one block's worker pool.")
    parser.add_argument("--blocks", type=Path, required=True, help="folder of the blocks")
    parser.add_argument("--workers", type=int, required=True, help="workers on this node")
    parser.add_argument("--walltime", type=float, required=True, help="asked for, s")
    parser.add_argument("--job", default=os.environ.get("SLURM_JOB_ID", ""), help="the block's job")
    parser.add_argument("--period", type=float, default=2.0, help="between questions, s")
    parser.add_argument("--patience", type=float, default=20.0, help="for a silent campaign, s")
    parser.add_argument("--no-slurm", action="store_true", help="go by --walltime alone")
    given = parser.parse_args(arguments)
    watcher = Watcher(
        given.blocks,
        given.job,
        given.workers,
        given.walltime,
        leader=os.environ.get("SLURM_PROCID", "0") == "0",
        period=given.period,
        patience=given.patience,
        end=(lambda _job: None) if given.no_slurm else slurm_end,
    )
    signal.signal(signal.SIGTERM, watcher.stop)
    return watcher.run()


if __name__ == "__main__":
    sys.exit(main())
