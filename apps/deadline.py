"""When a task must end: a file that somebody else writes and may move. Knows no scheduler.

The file holds ``{"ends_at": UNIX_TIME, "stop": false}``. A watcher beside the tasks writes it,
whole or not at all; the tasks only read it. Where it lies is in the environment variable
`VARIABLE`, which whoever starts the workers sets.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from apps.errors import OutOfTime
from apps.simulators.base import Control

#: Names the deadline file of the block that a process runs in.
VARIABLE = "RBF_DEADLINE"


def deadline_file() -> Path | None:
    """Return the deadline file of this process, None if nothing ends it."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


class Unlimited:
    """A control that never ends anything."""

    def remaining(self) -> float:
        """Return infinity."""
        return math.inf

    def stop_requested(self) -> bool:
        """Return False."""
        return False


class FileDeadline:
    """A control that follows a deadline file.

    A missing file means no deadline yet. One that cannot be read leaves what was known before: a
    damaged file must not end work that a good one let run.

    Parameters
    ----------
    path : Path
    clock : callable
        Unix time, s.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._ends_at = math.inf
        self._stop = False

    def remaining(self) -> float:
        """Return the seconds left, infinity without a deadline."""
        self._refresh()
        return self._ends_at - self._clock()

    def stop_requested(self) -> bool:
        """Return whether the file asks to stop, or its end has passed."""
        return self.remaining() <= 0 or self._stop

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            # The inode changes with every atomic replacement, the time may not on coarse clocks.
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return
            content = json.loads(self._path.read_bytes())
            self._ends_at, self._stop = float(content["ends_at"]), bool(content.get("stop", False))
            self._seen = seen
        except (OSError, ValueError, KeyError, TypeError):
            return


def here() -> Control:
    """Return the control of this process."""
    path = deadline_file()
    return Unlimited() if path is None else FileDeadline(path)


def require(control: Control, seconds: float, what: str) -> None:
    """Return if a step still fits before the end.

    Parameters
    ----------
    control : Control
    seconds : float
        That the step is expected to take, s.
    what : str
        The step, for the message.

    Raises
    ------
    OutOfTime
        If not: nothing is lost, the same task runs again in another block.
    """
    left = control.remaining()
    if control.stop_requested() or left < seconds:
        msg = f"{what} needs {seconds:.0f} s, the block ends in {left:.0f} s"
        raise OutOfTime(msg, remaining=left, needed=seconds)
