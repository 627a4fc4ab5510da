"""Parsl's HighThroughputExecutor with blocks of our own scaling.

A thread does what Parsl's strategies cannot: it asks for blocks when the planner sees one worth
asking for, takes tasks away from blocks that are about to end, and lets idle blocks go. It never
cancels a block that waits in the queue: Parsl's ``htex_auto_scale`` does, because a block that has
not registered counts as idle for ever (2026.10.26). A block's id is its job's.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.errors import ManagerLost
from parsl.jobs.states import JobState, JobStatus

from workflows.backfill.blocks import BLAMELESS, CLOSING, Block
from workflows.backfill.planner import Backlog
from workflows.backfill.provider import STILLBORN, GapProvider
from workflows.backfill.watcher import LAUNCH, Launch
from workflows.errors import MachineError, NoWindow, SchedulerError

#: Between two rounds of the thread, s; and between two heartbeats to the blocks.
ROUND_SECONDS = 1.0

#: How long the end of a campaign waits for its blocks to go by themselves, s.
END_SECONDS = 8.0

log = structlog.get_logger()


class BlockExecutor(HighThroughputExecutor):  # type: ignore[misc]  # Parsl has no types
    """Runs tasks in blocks that fit the gaps; see `workflows.machine.Machine`.

    Parameters
    ----------
    provider : GapProvider
    watch_command : str
        Starts the watcher on a compute node; ``--blocks``, ``--workers`` and so on are added.
    idle_seconds : float
        A block without a task for so long is let go, s.
    **options
        Of ``HighThroughputExecutor``.
    """

    def __init__(
        self,
        *,
        provider: GapProvider,
        watch_command: str,
        idle_seconds: float = 15.0,
        **options: Any,  # noqa: ANN401 - Parsl's
    ) -> None:
        super().__init__(provider=provider, **options)
        self.watch_command = watch_command
        self.idle_seconds = idle_seconds
        self.gaps = provider
        self._backlog = Backlog(0, ())
        self._launch: Launch | None = None
        self._asked_at = -float("inf")
        self._looked_at = -float("inf")
        self._managers_of: dict[str, str] = {}
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def initialize_scaling(self) -> None:
        """Compose the pool's command, take on blocks of an earlier run, and begin."""
        super().initialize_scaling()
        self._launch = Launch(
            generation=uuid.uuid4().hex,
            command=self.launch_cmd,
            leave_seconds=self.gaps.limits.leave_seconds,
        )
        self.gaps.folder.mkdir(parents=True, exist_ok=True)
        self._launch.write(self.gaps.folder / LAUNCH)
        # The heartbeat is apart: a Slurm that hangs must not look like a campaign that is gone.
        for target in (self._beat, self._drive):
            thread = threading.Thread(target=target, name=f"blocks{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def command(self) -> str:
        """Return the watcher's command line, as `GapProvider.script` takes it."""
        period = self.gaps.poll_seconds
        return (
            f"{self.watch_command} --blocks {self.gaps.folder} --workers WORKERS"
            f" --walltime WALLTIME --period {period:g}"
        )

    def shutdown(self, timeout: float = 10.0) -> None:
        """Let all blocks go, cancel those that wait, and end."""
        self._ending.set()
        for thread in self._threads:
            thread.join(
                timeout=60
            )  # it may be waiting for Slurm, or for an interchange that is gone
        self.gaps.end(END_SECONDS)
        super().shutdown(timeout)

    def scale_in(self, blocks: int, max_idletime: float | None = None) -> list[str]:  # noqa: ARG002
        """Do nothing: blocks go when their end is near, when they are idle, and at `shutdown`."""
        return []

    def slots(self) -> int:
        """Return how many tasks run at once when every block asked for is up."""
        blocks = [*self.gaps.waiting(), *self.gaps.working()]
        return sum(block.shape.slots for block in blocks if not block.held)

    def set_backlog(self, backlog: Backlog) -> None:
        """Take note of all the work that is left, that in flight included.

        Raises
        ------
        MachineError
            If blocks do not come up, however often they are asked for.
        """
        self._backlog = backlog
        if self.gaps.stillborn >= STILLBORN:
            name = next(reversed(self.gaps.blocks.values())).name
            path = self.gaps.folder / f"{name}.err"
            msg = f"{STILLBORN} blocks in a row ended without a task; see {path}: {_tail(path)}"
            raise MachineError(msg, machine=self.label)

    def take_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what happened since the last call."""
        found = []
        while not self.gaps.events.empty():
            found.append(self.gaps.events.get())
        return found

    def blameless(self, error: BaseException) -> bool:
        """Return whether a task was lost because its block went, for no fault of any task."""
        if not isinstance(error, ManagerLost):
            return False
        manager = error.manager_id
        manager = manager.decode() if isinstance(manager, bytes) else str(manager)
        block = self.gaps.blocks.get(self._managers_of.get(manager, ""))
        # A pool that dies while Slurm has nothing against its block may have been killed by a task.
        return block is not None and (block.recalled or block.state in BLAMELESS | CLOSING)

    def _beat(self) -> None:
        path = self.gaps.folder / LAUNCH
        while self._launch is not None and not self._ending.wait(ROUND_SECONDS):
            self._launch = replace(self._launch, beat=self._launch.beat + 1)
            try:
                self._launch.write(path)
            except OSError as error:  # a full disk, for a while
                log.warning("blocks get no heartbeat", error=str(error))

    def _drive(self) -> None:
        while not self._ending.wait(ROUND_SECONDS):
            try:
                self._round(time.monotonic())
            except Exception as error:  # the thread must outlive whatever happens
                log.exception("round of the blocks failed", error=str(error))

    def _round(self, now: float) -> None:
        if now - self._looked_at >= self.gaps.poll_seconds:
            self._looked_at = now
            self.gaps.refresh()
            self._mirror()
        managers = self.connected_managers()
        self._managers_of |= {m["manager"]: m["block_id"] for m in managers}
        for block in list(self.gaps.blocks.values()):
            # Of a block that is over too: on a node that Slurm has given up the pool may live on.
            ours = [m for m in managers if m["block_id"] == block.job]
            if ours or not block.closed:
                self._release(block, ours, time.time())
        if now - self._asked_at >= min(self.gaps.poll_seconds, 2.0):
            self._asked_at = now
            self._ask()

    def _mirror(self) -> None:
        """Tell Parsl's own books of the blocks."""
        for job in self.gaps.blocks:
            if job not in self.blocks_to_job_id:
                self.blocks_to_job_id[job] = job
                self.job_ids_to_block[job] = job
                self._status[job] = JobStatus(JobState.PENDING)

    def _release(self, block: Block, managers: list[dict[str, Any]], now: float) -> None:
        """Hold a block that is about to end or is idle, and let it go when its tasks are back."""
        left = float("inf") if block.ends_at is None else block.ends_at - now
        ending = not block.waiting and (
            block.recalled or not block.working or left < self.gaps.limits.leave_seconds
        )
        idle = bool(managers) and all(
            m["tasks"] == 0 and m["idle_duration"] > self.idle_seconds for m in managers
        )
        if (ending or idle) and not block.held:
            block.held = True
            why = "idle" if idle else f"{block.state}, {left:.0f} s left"
            tasks = sum(m["tasks"] for m in managers)
            self.gaps.event("block_held", job=block.job, reason=why, tasks=tasks)
        if not block.held:
            return
        for manager in managers:
            if manager["active"]:
                self._hold_manager(manager["manager"])
        if managers and all(m["tasks"] == 0 for m in managers):
            self.gaps.leave(block)

    def _ask(self) -> None:
        """Ask for one more block if work waits that no block will take."""
        blocks = [*self.gaps.waiting(), *self.gaps.working()]
        taken = self.slots()
        if len(blocks) >= self.gaps.max_blocks or self.gaps.slurm.resting:
            return
        backlog = self._backlog
        if backlog.tasks + (backlog.training_seconds > 0) <= taken:
            return
        self.gaps.backlog = replace(
            backlog,
            tasks=max(0, backlog.tasks - taken),
            training_seconds=0.0 if taken else backlog.training_seconds,
        )
        try:
            self.gaps.submit(self.command(), 1)
        except NoWindow:
            return
        except SchedulerError as error:
            self.gaps.event("scheduler_silent", error=str(error))
        self._mirror()

    def states(self) -> Counter[str]:
        """Return how many blocks are in which state."""
        return Counter(block.state for block in self.gaps.blocks.values())


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError as error:
        return str(error)
    return lines[-1] if lines else "it is empty"
