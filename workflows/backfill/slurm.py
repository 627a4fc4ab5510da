"""Slurm's commands, and what their text says. Everything works as an ordinary user.

Text and not JSON: `squeue --json` of 22.05 leaves the planned nodes out, and `scontrol` has none.
`sbatch --test-only` is not asked: it ignores the wall-clock limit and knows no holes.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from workflows.backfill.windows import Partition, Promise, Reading, read_gaps
from workflows.errors import SchedulerError

#: States of `sinfo` in which a node takes jobs. What follows the name (``*`` does not answer, ``~``
#: powered down, ``$`` maintenance, ...) rules it out, but for ``-``: planned for somebody, and the
#: promise itself says for when.
USABLE = frozenset({"idle", "mixed", "planned", "idle-", "mixed-", "planned-"})

#: Longest pause between two attempts when commands fail, s.
LONGEST_PAUSE = 60.0

Run = Callable[[Sequence[str], float], str]


@dataclass(frozen=True)
class Job:
    """One of our jobs, as `squeue` shows it."""

    id: str
    state: str
    """Slurm's long name: ``PENDING``, ``RUNNING``, ``TIMEOUT``, ``PREEMPTED``, ..."""
    start: float | None
    """Unix time, s; planned or real."""
    end: float | None
    """Unix time, s; moves when the job is preempted."""
    nodes: tuple[str, ...]
    name: str


def run_command(command: Sequence[str], timeout: float) -> str:
    """Run a command and return its output.

    Raises
    ------
    SchedulerError
        If it fails, takes longer than `timeout` seconds, or is not there.
    """
    # A person's settings must not change the form of what we read.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SINFO_"))}
    env = clean | {"SLURM_TIME_FORMAT": "standard", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=timeout, env=env
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{command[0]}: {error}"
        raise SchedulerError(msg, command=command[0], returncode=None) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[:1]
        msg = f"{command[0]}: {' '.join(said) or 'failed'} (status {done.returncode})"
        raise SchedulerError(msg, command=command[0], returncode=done.returncode)
    return done.stdout


class Slurm:
    """Asks Slurm; waits longer and longer while it does not answer.

    Parameters
    ----------
    timeout : float
        For one command, s.
    run : callable
        Runs a command; a test's own.
    clock : callable
        Monotonic time, s.
    """

    def __init__(
        self,
        timeout: float = 20.0,
        run: Run = run_command,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._run = run
        self._clock = clock
        self._pause = 0.0
        self._not_before = -math.inf
        self.failures = 0
        """Commands that failed so far."""
        self.slowest = 0.0
        """Longest command so far, s."""

    @property
    def resting(self) -> bool:
        """Whether the last commands failed and it is too early for another."""
        return self._clock() < self._not_before

    def ask(self, *command: str, refusal: str | None = None) -> str:
        """Run a command and keep the score of failures.

        Parameters
        ----------
        command : str
        refusal : str, optional
            What an error says that is an answer too: it is raised, but is no failure.

        Raises
        ------
        SchedulerError
            If it fails or takes too long.
        """
        started = self._clock()
        try:
            answer = self._run(command, self._timeout)
        except SchedulerError as error:
            if refusal is None or refusal not in str(error):
                self.failures += 1
                self._pause = min(LONGEST_PAUSE, max(1.0, 2 * self._pause))
                self._not_before = self._clock() + self._pause
            raise
        finally:
            self.slowest = max(self.slowest, self._clock() - started)
        self._pause = 0.0
        return answer

    def read(self, partition: str, ours: Iterable[str], now: float) -> Reading:
        """Return what the scheduler would give now.

        Parameters
        ----------
        partition : str
        ours : iterable of str
            Our own jobs; their planned starts end no gap.
        now : float
            Unix time, s.

        Raises
        ------
        SchedulerError
            If a command fails.
        """
        pending = self.ask("squeue", "-h", "-t", "PD", "-o", "%i|%S|%Y|%r|%P|%u")
        promises, unplanned = parse_pending(pending, frozenset(ours), now)
        promises += parse_reservations(self.ask("scontrol", "-o", "show", "reservation"), now)
        nodes = parse_nodes(self.ask("sinfo", "-h", "-N", "-p", partition, "-o", "%N|%T|%C|%m"))
        return Reading(
            parse_partition(self.ask("scontrol", "-o", "show", "partition", partition)),
            read_gaps(nodes, promises),
            # Root sees everything.
            hidden=os.geteuid() != 0 and hides_jobs(self.ask("scontrol", "show", "config")),
            unplanned=unplanned,
            promises=tuple(promises),
        )

    def jobs(self) -> dict[str, Job]:
        """Return our jobs by id, those that ended a while ago (MinJobAge) among them.

        Asked by user and not by id: one id that Slurm has forgotten would fail the whole question.
        """
        text = self.ask("squeue", "-h", "-t", "all", "--me", "-o", "%i|%T|%S|%e|%N|%j")
        return {job.id: job for job in parse_jobs(text)}

    def job_state(self, job: str) -> str | None:
        """Return the state of a job that `squeue` no longer shows, None if Slurm has forgotten it.

        Raises
        ------
        SchedulerError
            If Slurm does not answer.
        """
        try:
            text = self.ask("scontrol", "-o", "show", "job", job, refusal="Invalid job id")
        except SchedulerError as error:
            if "Invalid job id" in str(error):
                return None
            raise
        return _fields(text).get("JobState")

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs; those that have ended are no error.

        Raises
        ------
        SchedulerError
            If Slurm does not answer.
        """
        if jobs:
            self.ask("scancel", *jobs)


def parse_nodes(text: str) -> list[tuple[str, bool, int]]:
    """Return (name, usable, idle cores) from ``sinfo -N -o '%N|%T|%C|%m'``."""
    found = []
    for line in text.splitlines():
        name, state, cpus, *_ = line.split("|")
        found.append((name, state in USABLE, int(cpus.split("/")[1])))
    return found


def parse_pending(text: str, ours: frozenset[str], now: float) -> tuple[list[Promise], int]:
    """Return planned starts, and how many pending jobs have none.

    Parameters
    ----------
    text : str
        Of ``squeue -t PD -o '%i|%S|%Y|%r|%P|%u'``.
    ours : frozenset of str
        Jobs to leave out.
    now : float
        Unix time, s.
    """
    promises, unplanned = [], 0
    for line in text.splitlines():
        job, start, nodes, *_ = line.split("|")
        if job.split("_")[0] in ours:
            continue
        at = parse_time(start)
        if at is None or nodes in ("", "(null)"):
            unplanned += 1
        else:
            promises.append(Promise(expand(nodes), at - now, f"job {job}"))
    return promises, unplanned


def parse_reservations(text: str, now: float) -> list[Promise]:
    """Return the promises of ``scontrol -o show reservation``."""
    found = []
    for line in text.splitlines():
        known = _fields(line)
        start = parse_time(known.get("StartTime", ""))
        nodes = known.get("Nodes", "(null)")
        if start is not None and nodes != "(null)":
            who = f"reservation {known.get('ReservationName', '')}"
            found.append(Promise(expand(nodes), start - now, who))
    return found


def parse_partition(text: str) -> Partition:
    """Return the partition of ``scontrol -o show partition NAME``."""
    known = _fields(text)
    nodes = known.get("MaxNodes", "UNLIMITED")
    return Partition(
        name=known.get("PartitionName", ""),
        max_seconds=parse_duration(known.get("MaxTime", "UNLIMITED")),
        max_nodes=math.inf if nodes == "UNLIMITED" else int(nodes),
        up=known.get("State", "UP") == "UP",
        grace_seconds=float(known.get("GraceTime", 0)),
    )


def hides_jobs(text: str) -> bool:
    """Return whether ``scontrol show config`` says that users see their own jobs only."""
    found = re.search(r"^PrivateData\s*=\s*(\S+)", text, re.MULTILINE)
    return found is not None and bool({"jobs", "all"} & set(found[1].split(",")))


def parse_jobs(text: str) -> list[Job]:
    """Return the jobs of ``squeue -o '%i|%T|%S|%e|%N|%j'``."""
    found = []
    for line in text.splitlines():
        job, state, start, end, nodes, name = line.split("|", 5)
        found.append(Job(job, state, parse_time(start), parse_time(end), expand(nodes), name))
    return found


def parse_time(text: str) -> float | None:
    """Return Unix time of Slurm's local time, None for ``N/A``, ``Unknown``, ``NONE``."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def parse_duration(text: str) -> float:
    """Return the seconds of ``[days-]hours:minutes:seconds``; infinity for ``UNLIMITED``."""
    if text in ("UNLIMITED", "INFINITE", "infinite", "NONE"):
        return math.inf
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = 60 * seconds + float(part)
    return 86400 * float(days or 0) + seconds


def expand(nodes: str) -> tuple[str, ...]:
    """Return the nodes of a list such as ``cn[001-003,7],gpu1``."""
    found: list[str] = []
    for group in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = re.split(r"\[([^\]]*)\]", group)
        choices = [_numbers(p) if i % 2 else [p] for i, p in enumerate(parts)]
        found += ("".join(parts) for parts in itertools.product(*choices))
    return tuple(name for name in found if name and name != "(null)")


def _numbers(ranges: str) -> list[str]:
    found = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        found += [str(n).zfill(len(first)) for n in numbers]
    return found


def _fields(line: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.split() if "=" in part)
