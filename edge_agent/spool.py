"""Readings on disk: SQLite with one writer thread and group commit.

A reading is kept once its commit is on the disk; the future of `append` says so. Its identity is
(sensor, quantity, instant) within the site: equal repeats are dropped, of conflicting ones the
first is kept. Both are counted.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from edge_agent.clock import Clock
from edge_agent.contracts.errors import InvalidReading, SpoolError
from edge_agent.contracts.observation import Reading
from edge_agent.metrics import Counters
from edge_agent.prediction import instant

SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instant INTEGER NOT NULL,      -- data time, microseconds since the Unix epoch
    time TEXT NOT NULL,            -- data time as it was sent
    sensor TEXT NOT NULL,
    quantity TEXT NOT NULL,
    value REAL NOT NULL,
    unit TEXT NOT NULL,
    received_at REAL NOT NULL,     -- wall time, s since the Unix epoch
    UNIQUE (sensor, quantity, instant)
)
"""
VERSION = 1
#: Rows that one commit may hold.
GROUP = 2000


class Kept(NamedTuple):
    """What became of one `append`."""

    new: int
    """Readings now on disk that were not before."""
    duplicate: int
    """Equal repeats: on disk already."""
    conflicting: int
    """Repeats with another value: not kept."""


class SpooledReading(NamedTuple):
    """A reading with its place in the spool."""

    sequence: int
    """Grows; never given twice."""
    time: str
    """Data time as it was sent, ISO 8601."""
    sensor: str
    """Sensor name."""
    quantity: str
    """Quantity name."""
    value: float
    """In `unit`."""
    unit: str
    """UDUNITS spelling."""
    received_at: float
    """Wall time, s since the Unix epoch."""


class _Job(NamedTuple):
    rows: list[tuple[int, str, str, str, float, str, float]]
    done: Future[Kept]


class Spool:
    """The readings of one site.

    Parameters
    ----------
    path : Path
        The SQLite file.
    clock : Clock
    counters : Counters
    max_rows : int
        Beyond it the oldest are dropped and counted.
    max_queue : int
        Appends waiting for the disk; beyond it `append` refuses.

    Raises
    ------
    SpoolError
        If the file cannot be opened or has another schema version.
    """

    def __init__(
        self, path: Path, clock: Clock, counters: Counters, *, max_rows: int, max_queue: int
    ) -> None:
        self._path = path
        self._clock = clock
        self._counters = counters
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        try:
            self._writer = _connect(path)
            self._prepare(self._writer)
            self._reader = _connect(path)
            self._rows = int(self._writer.execute("SELECT count(*) FROM readings").fetchone()[0])
        except sqlite3.Error as error:
            msg = f"{path}: cannot open the spool: {error}"
            raise SpoolError(msg, path=str(path)) from error
        self._reading = threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name="rbf-spool", daemon=True)
        self._thread.start()

    def append(self, readings: Sequence[tuple[Reading, datetime]]) -> Future[Kept]:
        """Queue checked readings with their data times; the future resolves after the commit.

        Raises
        ------
        SpoolError
            If too much is waiting already, or the spool is closed.
        InvalidReading
            If a text cannot be stored.
        """
        if self._closed:
            msg = "the spool is closed"
            raise SpoolError(msg, reason="closed")
        if self._queue.qsize() >= self._max_queue:
            msg = f"{self._max_queue} messages wait for the disk; send again later"
            raise SpoolError(msg, reason="full")
        now = self._clock.now()
        for reading, _ in readings:
            _check_text(reading)
        rows = [
            (round(instant(t) * 1e6), r.time, r.sensor, r.quantity, float(r.value), r.unit, now)
            for r, t in readings
        ]
        job = _Job(rows, Future())
        self._queue.put(job)
        return job.done

    def after(self, sequence: int, limit: int) -> list[SpooledReading]:
        """Return up to `limit` readings after a sequence number, oldest first.

        Raises
        ------
        SpoolError
            If the file cannot be read.
        """
        sql = (
            "SELECT sequence, time, sensor, quantity, value, unit, received_at FROM readings "
            "WHERE sequence > ? ORDER BY sequence LIMIT ?"
        )
        try:
            with self._reading:
                return [
                    SpooledReading(*row) for row in self._reader.execute(sql, (sequence, limit))
                ]
        except sqlite3.Error as error:
            msg = f"{self._path}: cannot read the spool: {error}"
            raise SpoolError(msg, path=str(self._path)) from error

    def close(self) -> None:
        """Commit what waits and close; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        with self._reading:
            self._reader.close()
        self._writer.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            msg = f"{self._path}: spool schema {found}, this agent knows {VERSION}"
            raise SpoolError(msg, path=str(self._path))
        connection.execute(SCHEMA)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    def _write_all(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, rows = [job], len(job.rows)
            last = False
            while rows < GROUP and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                jobs.append(more)
                rows += len(more.rows)
            self._commit(jobs)
            if last:
                return

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                kept = [self._insert(job) for job in jobs]
                new = sum(k.new for k in kept)
                dropped = self._trim(self._rows + new)
        except Exception as error:  # noqa: BLE001 - must outlive a full disk; callers are told
            self._counters.rejected["disk"] += sum(len(job.rows) for job in jobs)
            msg = f"{self._path}: cannot write the spool: {error}"
            for job in jobs:
                job.done.set_exception(SpoolError(msg, path=str(self._path), reason="disk"))
            return
        self._rows += new - dropped
        self._counters.readings_accepted += new
        self._counters.duplicate += sum(k.duplicate for k in kept)
        self._counters.conflicting += sum(k.conflicting for k in kept)
        self._counters.readings_dropped += dropped
        for job, result in zip(jobs, kept, strict=True):
            job.done.set_result(result)

    def _insert(self, job: _Job) -> Kept:
        new = duplicate = conflicting = 0
        for row in job.rows:
            cursor = self._writer.execute(
                "INSERT INTO readings (instant, time, sensor, quantity, value, unit, received_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                row,
            )
            if cursor.rowcount:
                new += 1
                continue
            at, _, sensor, quantity, value, unit, _ = row
            held = self._writer.execute(
                "SELECT value, unit FROM readings "
                "WHERE sensor = ? AND quantity = ? AND instant = ?",
                (sensor, quantity, at),
            ).fetchone()
            if held == (value, unit):
                duplicate += 1
            else:
                conflicting += 1
        return Kept(new, duplicate, conflicting)

    def _trim(self, rows: int) -> int:
        excess = rows - self._max_rows
        if excess <= 0:
            return 0
        self._writer.execute(
            "DELETE FROM readings WHERE sequence IN "
            "(SELECT sequence FROM readings ORDER BY sequence LIMIT ?)",
            (excess,),
        )
        return excess


def _check_text(reading: Reading) -> None:
    try:
        f"{reading.time}{reading.sensor}{reading.quantity}{reading.unit}".encode()
    except UnicodeEncodeError as error:  # found here, or it would spoil the commit of others
        msg = f"reading of {reading.sensor!r} is not valid text"
        raise InvalidReading(msg, reason="text") from error


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit: transactions are begun by hand.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection
