"""Named points at which a crash test may kill the process; free when not armed.

``RBF_FAILPOINT=publish.manifest`` kills at the first passage, ``publish.manifest:3`` at the third.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("RBF_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if the point is armed and its turn has come."""
    global _left  # noqa: PLW0603 - one process, one armed point
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
