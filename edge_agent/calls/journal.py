"""The durable record of calls: identifier to outcome, SQLite.

A call is begun (its row is on the disk) before anything is carried out, and ended (its outcome is
on the disk) before anybody gets the answer. So asking again finds the outcome; and after a crash
what was begun and not ended is known.

Bounds on the disk, in this order:

1. Beyond ``max_bytes`` of outcomes the oldest are dropped. Their identifiers stay: asking again is
   refused with `RequestExpired`, and nothing is carried out twice.
2. Beyond ``max_calls`` identifiers the oldest go. From then on a call that is unknown and was
   issued no later than the newest of those gone is refused in the same way: it might be one.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edge_agent.calls.contract import Call, Outcome, issued_at
from edge_agent.contracts.errors import InvalidInput, NoSuchRequest, RequestExpired, SpoolError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.spool_schema import connect

SCHEMA_VERSION = 1
#: A caller's clock may be ahead of ours by so much, s; beyond it, its calls could block others'.
AHEAD_SECONDS = 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,          -- of command and arguments
    command TEXT NOT NULL,
    issued REAL NOT NULL,          -- the caller's clock, s since the Unix epoch
    state TEXT NOT NULL CHECK (state IN ('begun', 'void', 'ended', 'dropped')),
    executions INTEGER NOT NULL,   -- how often it was begun
    standing BLOB,                 -- what served when it was begun, for commands that change that
    outcome BLOB,                  -- JSON
    begun_at REAL NOT NULL,        -- our clock
    ended_at REAL
);
CREATE TABLE IF NOT EXISTS horizon (issued REAL NOT NULL) STRICT;
"""

_ROWS = (
    "SELECT id, command, state, executions, standing, outcome FROM calls WHERE {} ORDER BY sequence"
)

_decode = msgspec.json.Decoder(Outcome).decode
_encode = msgspec.json.Encoder().encode


class CallRow(NamedTuple):
    """One call as it is on the disk."""

    id: str
    command: str
    state: Literal["begun", "void", "ended", "dropped"]
    """``void``: a crash came before it took effect; the next ask begins it again."""
    executions: int
    """How often it was begun; more than one only after a crash that left it without effect."""
    standing: bytes | None
    outcome: Outcome | None


class CallJournal:
    """The record; any thread may use it.

    Parameters
    ----------
    path : Path
    max_bytes : int
        Outcomes kept, bytes.
    max_calls : int
        Identifiers kept.

    Raises
    ------
    SpoolError
        If the file cannot be opened or has another schema version.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_calls: int) -> None:
        self._max_bytes = max_bytes
        self._max_calls = max_calls
        self._lock = threading.Lock()
        try:
            self._base = connect(path)
            found = self._base.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA_VERSION):
                msg = f"{path}: call journal schema {found}, this agent knows {SCHEMA_VERSION}"
                raise SpoolError(msg, path=str(path), reason="schema")
            self._base.executescript(_SCHEMA)
            self._base.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            query = "SELECT coalesce(sum(length(outcome)), 0), count(*) FROM calls"
            self._bytes, self._calls = self._base.execute(query).fetchone()
            query = "SELECT max(issued) FROM horizon"
            self._horizon: float | None = self._base.execute(query).fetchone()[0]
        except sqlite3.Error as error:
            msg = f"the call journal {path} cannot be opened: {error}"
            raise SpoolError(msg, path=str(path), reason="disk") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    def begin(
        self, request_id: str, call: Call, *, standing: bytes | None, now: float
    ) -> Outcome | None:
        """Record that a call is being carried out; return its outcome if it was already.

        Parameters
        ----------
        request_id : str
        call : Call
        standing : bytes, optional
            What serves now, for a command that changes that.
        now : float, s since the Unix epoch

        Raises
        ------
        InvalidInput
            If the identifier is none or stands for another call, or the caller's clock is far
            ahead.
        RequestExpired
            If it was carried out and its outcome is gone, or that cannot be known any more.
        SpoolError
            If the disk does not take it; it must not be carried out then.
        """
        with self._lock:
            try:
                row = self._known(request_id, call)
                if row is not None and row.state == "ended":
                    return row.outcome
                if row is None:
                    issued = self._issued(request_id, now)
                    self._base.execute(
                        "INSERT INTO calls (id, digest, command, issued, state, executions, "
                        "standing, begun_at) VALUES (?, ?, ?, ?, 'begun', 1, ?, ?)",
                        (request_id, call.digest(), call.command, issued, standing, now),
                    )
                    self._calls += 1
                else:
                    self._base.execute(
                        "UPDATE calls SET state = 'begun', executions = executions + 1, "
                        "standing = ?, begun_at = ? WHERE id = ?",
                        (standing, now, request_id),
                    )
            except sqlite3.Error as error:
                raise _disk(error) from error
        failpoint("calls.begun")
        return None

    def end(self, request_id: str, outcome: Outcome, *, now: float) -> None:
        """Record how a call ended.

        Raises
        ------
        SpoolError
            If the disk does not take it; nobody must get the answer then.
        """
        data = _encode(outcome)
        failpoint("calls.carried_out")
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                self._base.execute(
                    "UPDATE calls SET state = 'ended', outcome = ?, ended_at = ? WHERE id = ?",
                    (data, now, request_id),
                )
                held = self._bytes + len(data)
                held, calls, horizon = self._bound(request_id, held)
                self._base.execute("COMMIT")
            except sqlite3.Error as error:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise _disk(error) from error
            self._bytes, self._calls, self._horizon = held, calls, horizon
        failpoint("calls.ended")

    def void(self, request_id: str) -> None:
        """Record that a call begun before a crash has had no effect."""
        with self._lock:
            self._base.execute(
                "UPDATE calls SET state = 'void', standing = NULL WHERE id = ?", (request_id,)
            )

    def find(self, request_id: str) -> CallRow:
        """Return a call.

        Raises
        ------
        NoSuchRequest
            If there is none of that identifier.
        """
        found = self._select("id = ?", request_id)
        if not found:
            msg = f"no call {request_id} is known here"
            raise NoSuchRequest(msg, request_id=request_id)
        return found[0]

    def begun(self) -> list[CallRow]:
        """Return the calls that were begun and have not ended, oldest first."""
        return self._select("state = 'begun'")

    def rows(self) -> list[CallRow]:
        """Return all calls, oldest first."""
        return self._select("true")

    def _select(self, where: str, *values: object) -> list[CallRow]:
        with self._lock:
            rows = self._base.execute(_ROWS.format(where), values).fetchall()
        return [
            CallRow(
                name, command, state, executions, standing, None if data is None else _decode(data)
            )
            for name, command, state, executions, standing, data in rows
        ]

    def _known(self, request_id: str, call: Call) -> CallRow | None:
        query = "SELECT digest, command, state, executions, standing, outcome FROM calls WHERE id=?"
        row = self._base.execute(query, (request_id,)).fetchone()
        if row is None:
            return None
        digest, command, state, executions, standing, outcome = row
        if digest != call.digest():
            msg = f"the identifier {request_id} stands for another call ({command}); make a new one"
            raise InvalidInput(msg, name="id", request_id=request_id)
        if state == "dropped":
            msg = f"call {request_id} was carried out, and its outcome is no longer kept"
            raise RequestExpired(msg, request_id=request_id)
        decoded = None if outcome is None else _decode(outcome)
        return CallRow(request_id, command, state, executions, standing, decoded)

    def _issued(self, request_id: str, now: float) -> float:
        issued = issued_at(request_id)
        if not issued <= now + AHEAD_SECONDS:
            msg = "the call was issued in the future; set the clocks of caller and device"
            raise InvalidInput(msg, name="id")
        if self._horizon is not None and issued <= self._horizon:
            msg = (
                "the call is older than what is remembered here: whether it was carried out cannot "
                "be told; look at the status, and ask anew if it was not"
            )
            raise RequestExpired(msg, issued=issued)
        return issued

    def _bound(self, latest: str, held: int) -> tuple[int, int, float | None]:
        """Drop what is beyond the bounds; return bytes, calls and horizon as they are then."""
        base, calls, horizon = self._base, self._calls, self._horizon
        while held > self._max_bytes:
            oldest = base.execute(
                "SELECT sequence, length(outcome) FROM calls WHERE state = 'ended' AND id != ? "
                "ORDER BY sequence LIMIT 1",
                (latest,),
            ).fetchone()
            if oldest is None:
                break
            base.execute(
                "UPDATE calls SET state = 'dropped', outcome = NULL WHERE sequence = ?",
                oldest[:1],
            )
            held -= oldest[1]
        if calls > self._max_calls:
            gone = base.execute(
                "DELETE FROM calls WHERE sequence IN (SELECT sequence FROM calls WHERE "
                "state != 'begun' AND id != ? ORDER BY sequence LIMIT ?) "
                "RETURNING issued, coalesce(length(outcome), 0)",
                (latest, calls - self._max_calls),
            ).fetchall()
            if gone:
                held -= sum(size for _, size in gone)
                calls -= len(gone)
                newest = max(issued for issued, _ in gone)
                horizon = newest if horizon is None else max(horizon, newest)
                base.execute("DELETE FROM horizon")
                base.execute("INSERT INTO horizon VALUES (?)", (horizon,))
        return held, calls, horizon


def _disk(error: sqlite3.Error) -> SpoolError:
    msg = f"the call journal cannot be written: {error}; ask again later"
    return SpoolError(msg, reason="disk")
