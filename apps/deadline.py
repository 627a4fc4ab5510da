"""When a task must end: a file that somebody else writes and may move. Knows no scheduler.

The file holds ``{"ends_at": UNIX_TIME, "stop": false}``. A watcher beside the tasks writes it,
whole or not at all; the tasks only read it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path


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
