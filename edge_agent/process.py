"""The agent as one process of the system: its state folder, its memory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edge_agent.contracts.errors import InvalidConfig


def hold_state(state: Path) -> int:
    """Take the state folder for this process; return the descriptor that holds it.

    Raises
    ------
    InvalidConfig
        If it cannot be used, or another live agent holds it.
    """
    path = state / "lock"
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        msg = f"state: {state} cannot be used: {error.strerror or error}"
        raise InvalidConfig(msg, field="state") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip() or "?"
        os.close(descriptor)
        msg = (
            f"state: {state} is held by a running agent (pid {holder}): "
            "stop it or choose another folder"
        )
        raise InvalidConfig(msg, field="state") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def resident_bytes() -> int | None:
    """Return the process's resident memory, bytes; none where it cannot be known."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
