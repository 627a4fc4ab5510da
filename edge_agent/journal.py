"""What the agent has done, on disk: the state to restart from, and the record.

``active.json`` is replaced whole; ``journal.jsonl`` only grows, one event a line, until it is put
aside as ``journal.1.jsonl`` (and that as ``journal.2.jsonl``, and so on). Its first line names its
format; a file without one is of the first format and is put aside at the first event. A line torn
by a power cut is skipped.

A transition is a line with the state that it leads to, written before ``active.json`` and before
anything is done: see `edge_agent.lifecycle`. Should ``active.json`` be unreadable, the last
transition stands in for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_agent.contracts import storage
from edge_agent.lifecycle import State, Step

FORMAT = "rbf-journal/2"
#: The file that says what serves.
ACTIVE = "active.json"
SWAPS_KEPT = 1000
#: Old files kept beside the current one.
OLD_KEPT = 4


_encode = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(State).decode


class _ActiveV1(msgspec.Struct):
    """The file as it was before there was a shadow."""

    format: Literal["rbf-active/1"]
    active: int
    previous: int | None = None
    held: int | None = None


_decode_v1 = msgspec.json.Decoder(_ActiveV1).decode


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
    """When all was done."""
    cause: str = ""
    """The transition behind it, in a word; see `edge_agent.lifecycle.Transition`."""


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
        self._known_format = False
        self.swaps: deque[Swap] = deque(maxlen=SWAPS_KEPT)
        """The last swaps, oldest first."""
        self.last: State | None = None
        """The state that the last transition on record leads to; none without a record."""
        for event in self._read_events():
            self._take(event)

    def read_state(self) -> State:
        """Return the state of the last run; an empty one if there is none that can be read."""
        try:
            data = self._active.read_bytes()
        except OSError:
            return self.last or State()
        try:
            return _decode_state(data)
        except msgspec.MsgspecError:
            pass
        try:
            old = _decode_v1(data)
        except msgspec.MsgspecError:
            return self.last or State()
        return State(active=old.active, previous=old.previous, held=old.held)

    def write_state(self, state: State) -> None:
        """Replace the state to restart from; raises OSError if the disk does not take it."""
        storage.write_bytes(self._active, _encode(state))

    def transition(self, step: Step, at: float) -> None:
        """Append a transition before it happens; raises OSError if the disk does not take it."""
        transition = msgspec.structs.asdict(step.transition)
        self.event("transition", **transition, at=at, state=step.state)
        self.last = step.state

    def swapped(self, swap: Swap) -> None:
        """Append a swap; raises OSError if the disk does not take it."""
        self.swaps.append(swap)
        self.event("swap", **msgspec.structs.asdict(swap))

    def event(self, kind: str, /, **data: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append an event; raises OSError if the disk does not take it."""
        line = _encode({"event": kind, **data}) + b"\n"
        self._put_aside()
        if not self._events.exists():
            line = _encode({"event": "format", "format": FORMAT}) + b"\n" + line
        with self._events.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _put_aside(self) -> None:
        try:
            small = self._events.stat().st_size < self._max_bytes
        except FileNotFoundError:
            return
        if small and self._is_of_this_format():
            return
        for older, newer in itertools.pairwise([*self._old[::-1], self._events]):
            if newer.exists():
                newer.replace(older)
        storage.fsync(self._events.parent)

    def _is_of_this_format(self) -> bool:
        if not self._known_format:
            with self._events.open("rb") as file:
                self._known_format = FORMAT.encode() in file.readline(1000)
        return self._known_format

    def _ends_a_line(self) -> bool:
        with self._events.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read_events(self) -> Iterator[dict[str, Any]]:
        for path in (*self._old[::-1], self._events):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines:
                with contextlib.suppress(msgspec.MsgspecError):
                    yield msgspec.json.decode(line, type=dict[str, Any])

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.pop("event", None)
        with contextlib.suppress(msgspec.MsgspecError, KeyError):
            if kind == "swap":
                self.swaps.append(msgspec.convert(event, Swap))
            elif kind == "transition":
                self.last = msgspec.convert(event["state"], State, str_keys=True)
