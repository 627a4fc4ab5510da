"""A Parsl provider whose every block is shaped by the planner, on top of Parsl's for Slurm.

What Parsl's own does not do: it knows no windows; it sees every end of a block as COMPLETED without
an accounting database; one job that Slurm has forgotten blinds it for ever; it polls once a minute.

Only `workflows.backfill.executor` drives it, from one thread. Parsl may read `status` from another.
"""

from __future__ import annotations

import hashlib
import json
import queue
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.providers import SlurmProvider
from parsl.providers.slurm.template import template_string

from edge_agent.contracts.storage import write_bytes
from workflows.backfill.blocks import WAITING, Block, account, read_request
from workflows.backfill.planner import Backlog, BlockShape, Decision, Limits, plan
from workflows.backfill.slurm import Job, Slurm
from workflows.backfill.watcher import LEAVE
from workflows.backfill.windows import Reading, Window, probe
from workflows.errors import NoWindow, SchedulerError

#: Answers in a row without a job before we ask for it by name: `squeue` is empty now and then.
UNSEEN = 2

#: A block that ran no longer than this without a single task did not come up, s.
STILLBORN_SECONDS = 30.0

#: So many stillborn blocks in a row, and something is wrong that trying again will not mend.
STILLBORN = 5

_STATES = {
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "GONE": JobState.COMPLETED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "PREEMPTED": JobState.TIMEOUT,
    "SUSPENDED": JobState.HELD,
}


class GapProvider(SlurmProvider):  # type: ignore[misc]  # Parsl has no types
    """Blocks that fit the gaps of a Slurm queue.

    Parameters
    ----------
    blocks : Path
        Folder shared with the compute nodes; names the campaign too.
    limits : Limits
        Of blocks.
    poll_seconds : float
        Between two looks at our jobs, s.
    fixed : BlockShape, optional
        Ask for this shape always and do not look at windows.
    slurm : Slurm, optional
        How to ask; for tests.
    **options
        Of ``SlurmProvider``.
    """

    def __init__(
        self,
        *,
        blocks: Path,
        limits: Limits,
        poll_seconds: float = 5.0,
        fixed: BlockShape | None = None,
        slurm: Slurm | None = None,
        **options: Any,  # noqa: ANN401 - Parsl's
    ) -> None:
        super().__init__(init_blocks=0, min_blocks=0, **options)
        self.folder = blocks
        self.limits = limits
        self.poll_seconds = poll_seconds
        self.fixed = fixed
        self.slurm = slurm or Slurm(timeout=self.cmd_timeout)
        self.tag = "rbf-" + hashlib.sha256(str(blocks).encode()).hexdigest()[:10]
        self.blocks: dict[str, Block] = {}
        self.events: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self.backlog = Backlog(0, ())
        self.stillborn = 0
        """Blocks in a row that ended without a task."""
        self._count = 0
        self._silent = False
        self._told = ""

    def __repr__(self) -> str:
        return f"GapProvider(partition={self.partition!r}, limits={self.limits})"

    @property
    def status_polling_interval(self) -> float:
        """Seconds between Parsl's looks at `status`, which costs no command here."""
        return 1.0

    def waiting(self) -> list[Block]:
        """Return the blocks that have not started."""
        return [block for block in self.blocks.values() if block.waiting]

    def working(self) -> list[Block]:
        """Return the blocks whose pools may take tasks."""
        return [block for block in self.blocks.values() if block.working]

    def decide(
        self, now: float, more: Sequence[BlockShape] = ()
    ) -> tuple[Decision, tuple[Window, ...]]:
        """Ask the planner for the next block.

        Parameters
        ----------
        now : float
            Unix time, s.
        more : sequence of BlockShape
            To be counted as waiting too.

        Returns
        -------
        Decision
        tuple of Window
            What it chose from.

        Raises
        ------
        SchedulerError
            If Slurm does not answer.
        """
        waiting = [*(block.shape for block in self.waiting()), *more]
        if self.fixed is not None:
            shape = replace(self.fixed, cores_per_task=self.backlog.run_times[0].cores)
            reason = f"{shape}: fixed, whatever the windows"
            return Decision(None if waiting else shape, reason), ()
        ours = [job for job, block in self.blocks.items() if not block.over]
        reading = self.slurm.read(self.partition or "", ours, now)
        windows = reading.windows() or self._assumed(reading, now)
        return plan(windows, self.backlog, self.limits, waiting), windows

    def _assumed(self, reading: Reading, now: float) -> tuple[Window, ...]:
        if not reading.hidden:
            return ()
        history = [block.probe(now) for block in self.blocks.values()]
        return probe(reading, history, self.limits.margin_seconds, self.limits.max_minutes)

    def submit(self, command: str, tasks_per_node: int, job_name: str = "") -> str:  # noqa: ARG002
        """Ask the planner, and Slurm for the block that it chose; return the job.

        Raises
        ------
        NoWindow
            If the planner wants no block now.
        SchedulerError
            If Slurm does not answer. It may have taken the job all the same: then `refresh` finds
            it by its name.
        """
        decision, _ = self.decide(time.time())
        if decision.shape is None:
            if decision.reason != self._told:
                self.event("block_declined", reason=decision.reason)
            self._told = decision.reason
            raise NoWindow(decision.reason)
        self._told = ""
        self._count += 1
        name = f"{self.tag}-{time.time_ns() // 1000}-{self._count}"
        block = Block("", name, decision.shape, decision.reason, time.time())
        self.folder.mkdir(parents=True, exist_ok=True)
        script = self.folder / f"{name}.sh"
        write_bytes(self.folder / f"{name}.json", json.dumps(block.request()).encode())
        write_bytes(script, self.script(decision.shape, command, name).encode())
        block.job = self.slurm.ask("sbatch", "--parsable", str(script)).strip().split(";")[0]
        self._know(block)
        self.event("block_asked", job=block.job, shape=str(decision.shape), reason=decision.reason)
        return block.job

    def script(self, shape: BlockShape, command: str, name: str) -> str:
        """Return the batch script of a block.

        Parameters
        ----------
        shape : BlockShape
        command : str
            Of the watcher; ``WORKERS`` and ``WALLTIME`` in it are the shape's.
        name : str
            Of the job.
        """
        workers = shape.cores // shape.cores_per_task
        command = command.replace("WORKERS", str(workers))
        command = command.replace("WALLTIME", str(60 * shape.minutes))
        launcher = SrunLauncher() if shape.nodes > 1 else SimpleLauncher()
        options = self.scheduler_options + f"#SBATCH --cpus-per-task={shape.cores}\n"
        # Since 22.05 a step no longer inherits the job's cores.
        steps = f"export SRUN_CPUS_PER_TASK={shape.cores}\n" if shape.nodes > 1 else ""
        if self.mem_per_node is not None:
            options += f"#SBATCH --mem={self.mem_per_node}g\n"
        return Template(template_string).substitute(
            jobname=name,
            job_stdout_path=str(self.folder / f"{name}.out"),
            job_stderr_path=str(self.folder / f"{name}.err"),
            nodes=shape.nodes,
            tasks_per_node=1,
            walltime=shape.minutes,
            scheduler_options=options.strip(),
            worker_init=self.worker_init
            + steps
            + f"export PARSL_CORES={shape.cores}  # the pool would count all of the node's\n"
            + "trap '' TERM  # the watcher alone hears that the block must go\n",
            user_script=launcher(command, 1, shape.nodes, str(self.folder)),
        )

    def refresh(self) -> None:
        """Look at our jobs: states, starts, ends; find lost ones and settle ended ones.

        A Slurm that does not answer changes nothing, and is asked again after a pause that grows.
        """
        if self.slurm.resting:
            return
        try:
            jobs = self.slurm.jobs()
            now = time.time()
            for block in [b for b in self.blocks.values() if not b.closed]:
                self._see(block, jobs.get(block.job), now)
            self._adopt(jobs)
        except SchedulerError as error:
            if not self._silent:
                self.event("scheduler_silent", error=str(error), failures=self.slurm.failures)
            self._silent = True
            return
        if self._silent:
            self.event("scheduler_answers", failures=self.slurm.failures)
        self._silent = False

    def _see(self, block: Block, job: Job | None, now: float) -> None:
        if job is not None:
            block.unseen = 0
            block.state, block.nodes = job.state, job.nodes
            if job.state not in WAITING:  # before, they are plans
                block.started_at = job.start
                if block.moves_to(job.end):
                    left = round((job.end or now) - now, 1)
                    self.event("block_recalled", job=block.job, seconds_left=left)
        else:
            block.unseen += 1
            if block.unseen < UNSEEN:
                return
            state = self.slurm.job_state(block.job)
            if state is None:
                timed_out = block.ends_at is not None and now >= block.ends_at
                state = "TIMEOUT" if timed_out else "GONE"
            block.state = state
        self.resources[block.job]["status"] = self._status_of(block)
        if block.over:
            self._close(block, now)

    def _close(self, block: Block, now: float) -> None:
        block.closed = True
        known = account(block, self.folder / block.job, now)
        self.event("block_ended", **known)
        short = float(str(known["ran_seconds"])) < STILLBORN_SECONDS
        empty = not known["tasks"] and not known["task_seconds"]
        self.stillborn = self.stillborn + 1 if empty and short and block.state == "FAILED" else 0

    def _adopt(self, jobs: dict[str, Job]) -> None:
        """Take on jobs of this campaign that we do not know.

        They are of a run that was killed, or of an `sbatch` whose answer was lost.
        """
        for job in jobs.values():
            if not job.name.startswith(f"{self.tag}-") or job.id in self.blocks:
                continue
            try:
                block = read_request(self.folder / f"{job.name}.json", job.id, job.name)
            except (OSError, ValueError, TypeError, KeyError):
                self.slurm.cancel([job.id])
                self.event("block_cancelled", job=job.id, reason="nothing is known of it")
                continue
            block.state, block.started_at, block.ends_at = job.state, job.start, job.end
            self._know(block)
            if block.over:
                block.closed = True
            else:
                self.event("block_adopted", job=job.id, shape=str(block.shape), state=job.state)

    def _know(self, block: Block) -> None:
        self.blocks[block.job] = block
        self.resources[block.job] = {"job_id": block.job, "status": self._status_of(block)}

    def _status_of(self, block: Block) -> JobStatus:
        if block.waiting:
            state = JobState.PENDING
        elif not block.over:
            state = JobState.RUNNING
        else:
            state = _STATES.get(block.state, JobState.FAILED)
        return JobStatus(state, message=block.state)

    def _status(self) -> None:
        """Do nothing: `refresh` keeps what `status` returns."""

    def leave(self, block: Block) -> None:
        """Tell a block's watchers to end their pools."""
        if block.job:
            folder = self.folder / block.job
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LEAVE).touch()

    def end(self, seconds: float) -> None:
        """Cancel the blocks that wait, let the others go, and see all of them end.

        Parameters
        ----------
        seconds : float
            To wait for each kind of end, s.
        """
        self.cancel([block.job for block in self.waiting()])
        for block in self.working():
            self.leave(block)
        for last in (False, True):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self.refresh()
                if all(block.closed for block in self.blocks.values()):
                    return
                time.sleep(0.5)
            if not last:
                self.cancel([b.job for b in self.blocks.values() if not b.over])

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Cancel blocks; nobody does before the campaign's end."""
        if not job_ids:
            return []
        for job in job_ids:
            if job in self.blocks:
                self.leave(self.blocks[job])
        try:
            self.slurm.cancel(list(job_ids))
        except SchedulerError as error:
            self.event("scheduler_silent", error=str(error), failures=self.slurm.failures)
            return [False for _ in job_ids]
        for job in job_ids:
            self.resources[job]["status"] = JobStatus(JobState.CANCELLED)
        return [True for _ in job_ids]

    def event(self, kind: str, **data: Any) -> None:  # noqa: ANN401 - any JSON value
        """Note something for log and ledger; the campaign's own thread writes them."""
        self.events.put((kind, data))
