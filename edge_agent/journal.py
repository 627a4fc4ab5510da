"""What the agent has done, on disk: the state to restart from, and the audit record.

``active.json`` is replaced whole; ``journal.jsonl`` only grows, one event a line, until it is put
aside as ``journal.1.jsonl`` (and that as ``journal.2.jsonl``, and so on). A line torn by a power
cut is skipped.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import ValidationError

from edge_agent.contracts import storage
from edge_agent.contracts.model import Contract

#: The file that says what serves.
ACTIVE = "active.json"
SWAPS_KEPT = 1000
#: Old files kept beside the current one.
OLD_KEPT = 4


class ActiveState(Contract):
    """Which releases were served last."""

    format: Literal["rbf-active/1"] = "rbf-active/1"
    """Version of this file."""
    active: int
    """Version that serves."""
    previous: int | None = None
    """Version that a rollback returns to."""
    held: int | None = None
    """Version that was rolled back from and stays out."""


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the active release; times are s since the Unix epoch."""

    version: int
    """What serves from now on."""
    from_version: int | None
    """What served before; none at a start."""
    reason: Literal["release", "rollback", "restart"]
    """Why."""
    loading_started_at: float
    """When the work began."""
    swapped_at: float
    """When the reference changed."""
    finished_at: float
    """When it was on disk."""


class Journal:
    """The two files.

    Parameters
    ----------
    state : Path
        The agent's state folder.
    max_bytes : int
        Size at which the events are put aside.
    """

    def __init__(self, state: Path, *, max_bytes: int = 4 * 2**20) -> None:
        self._active = state / ACTIVE
        self._events = state / "journal.jsonl"
        self._old = [state / f"journal.{i}.jsonl" for i in range(1, OLD_KEPT + 1)]
        self._max_bytes = max_bytes
        self.swaps: deque[Swap] = deque(self._read_swaps(), maxlen=SWAPS_KEPT)
        """The last swaps, oldest first."""

    def read_active(self) -> ActiveState | None:
        """Return the state of the last run; none if there is none that can be read."""
        try:
            return ActiveState.model_validate_json(self._active.read_bytes())
        except (OSError, ValidationError):
            return None

    def write_active(self, state: ActiveState) -> None:
        """Record what serves; raises OSError if the disk does not take it."""
        storage.write_bytes(self._active, state.canonical_json())

    def swapped(self, swap: Swap) -> None:
        """Append a swap; raises OSError if the disk does not take it."""
        self.swaps.append(swap)
        self.event("swap", **msgspec.structs.asdict(swap))

    def event(self, kind: str, **data: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append an event; raises OSError if the disk does not take it."""
        line = msgspec.json.encode({"event": kind, **data}) + b"\n"
        self._put_aside()
        with self._events.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _put_aside(self) -> None:
        if not self._events.exists() or self._events.stat().st_size < self._max_bytes:
            return
        for older, newer in itertools.pairwise([*self._old[::-1], self._events]):
            if newer.exists():
                newer.replace(older)
        storage.fsync(self._events.parent)

    def _ends_a_line(self) -> bool:
        with self._events.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_swaps(self) -> list[Swap]:
        lines: list[bytes] = []
        for path in (*self._old[::-1], self._events):
            try:
                lines += path.read_bytes().splitlines()
            except OSError:
                continue
        swaps = []
        for line in lines:
            try:
                event = msgspec.json.decode(line, type=dict[str, Any])
                if event.pop("event", None) == "swap":
                    swaps.append(msgspec.convert(event, Swap))
            except msgspec.MsgspecError:
                continue
        return swaps
