"""Programs of OpenFOAM as child processes: their output as it comes, their end, never an orphan."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apps.simulators.foam.environment import environment

#: Seconds between looks at the clock while a program says nothing.
_TICK = 0.1
#: A program that is told to end has so long before it is killed, s.
_GRACE = 2.0
#: Last lines kept for an error message.
_KEPT = 60


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    """Exit status; negative for a signal."""
    wall: float
    """Wall time, s."""
    cpu: float
    """CPU time of the program and its children, s."""
    tail: str
    """Its last lines."""

    @property
    def trapped(self) -> bool:
        """Whether a floating-point exception ended it."""
        codes = {-signal.SIGFPE, 128 + signal.SIGFPE}
        return self.code in codes or (self.code != 0 and "sigFpe" in self.tail)


def run(
    command: list[str],
    folder: Path,
    *,
    on_line: Callable[[str], None] | None = None,
    on_tick: Callable[[], bool] | None = None,
    trap: bool = True,
) -> Ended:
    """Run a program in a case folder until it ends.

    Parameters
    ----------
    command : list of str
    folder : Path
        The case.
    on_line : callable, optional
        Gets every line of output as it comes.
    on_tick : callable, optional
        Asked ten times a second and after output; the program is killed when it returns False.
    trap : bool
        See `apps.simulators.foam.environment.environment`.

    Raises
    ------
    OSError
        If the program cannot be started.
    """
    began, before = time.perf_counter(), _children()
    tail: deque[str] = deque(maxlen=_KEPT)
    process = subprocess.Popen(
        [*_tied(), *command],
        cwd=folder,
        env=environment(folder, trap),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A group of its own: MPI's processes end with it.
        start_new_session=True,
    )
    try:
        for line in _lines(process, on_tick):
            tail.append(line)
            if on_line is not None:
                on_line(line)
    finally:
        code = _kill(process)
    return Ended(code, time.perf_counter() - began, _children() - before, "\n".join(tail))


def _tied() -> list[str]:
    """Return a prefix that ends a program with this process, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _lines(process: subprocess.Popen[bytes], on_tick: Callable[[], bool] | None) -> Iterator[str]:
    """Yield the lines of a process until it closes its output or the tick says no."""
    assert process.stdout is not None  # noqa: S101 - asked for
    pipe, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while on_tick is None or on_tick():
            if not selector.select(_TICK):
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                # All is said; what is left is to leave.
                process.wait()
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)


def _kill(process: subprocess.Popen[bytes]) -> int:
    """End a process that has not ended, and what is left of its group; return its status."""
    for order, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        # First an order that mpirun can pass on: its processes have groups of their own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, order)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    if process.stdout is not None:
        process.stdout.close()
    return process.returncode


def _children() -> float:
    """Return the CPU seconds of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system
