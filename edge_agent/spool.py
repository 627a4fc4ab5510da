"""Readings and prediction records on disk: SQLite with one writer thread and group commit.

A reading is kept once its commit is on the disk; the future of `append` says so. Its identity is
(sensor, quantity, instant) within the site: equal repeats are dropped, of conflicting ones the
first is kept. Both are counted.

Prediction records are written with the next group, at the latest ``record_seconds`` after they were
made: that, and the commit under way, is what a power cut may cost. Nobody waits for them.

What goes upstream is cut into batches (`edge_agent.outbox`), which stay here until they are
delivered. Bounds on the disk, in this order:

1. Beyond ``max_rows`` readings the oldest that are in a batch already go; their batch has them.
2. Batches beyond ``max_batch_bytes`` are not cut; readings wait as rows.
3. With ``hold``, ``max_rows`` readings that are in no batch refuse new ones, which get no receipt:
   nothing that has a receipt is ever dropped. Without it (nothing goes upstream) the oldest go.
4. Beyond ``max_records`` prediction records the oldest go: readings and release give them again.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.clock import Clock
from edge_agent.contracts.errors import InvalidReading, SpoolError
from edge_agent.contracts.observation import (
    PredictionRecord,
    Reading,
    SpooledReading,
    instant_us,
)
from edge_agent.metrics import Counters
from edge_agent.spool_schema import connect, prepare

__all__ = ["Kept", "Spool", "SpooledReading"]

#: Rows that one commit may hold.
GROUP = 2000

_READINGS = (
    "SELECT sequence, time, sensor, quantity, value, unit, received_at FROM readings "
    "WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
_encode = msgspec.json.Encoder().encode


class Kept(NamedTuple):
    """What became of one `append`."""

    new: int
    """Readings now on disk that were not before."""
    duplicate: int
    """Equal repeats: on disk already."""
    conflicting: int
    """Repeats with another value: not kept."""


class _Job(NamedTuple):
    rows: list[tuple[int, str, str, str, float, str, float]]
    done: Future[Kept]


class _Task(NamedTuple):
    run: Callable[[sqlite3.Connection], None]
    done: Future[None]
    cut_readings: int = 0
    cut_records: int = 0


#: Nothing came in a while.
_TICK = _Task(lambda _: None, Future())


class Spool:
    """The readings of one site.

    Parameters
    ----------
    path : Path
        The SQLite file.
    clock : Clock
    counters : Counters
    max_rows : int
        Readings kept; see the module's bounds.
    max_queue : int
        Appends waiting for the disk; beyond it `append` refuses.
    hold : bool
        Whether readings wait for their batch: something goes upstream.
    max_records : int
        Prediction records kept on disk, and the most that wait in memory for a failing disk.
    record_seconds : float, s
        Longest time that a prediction record waits for its commit.

    Raises
    ------
    SpoolError
        If the file cannot be opened or has another schema version.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        counters: Counters,
        *,
        max_rows: int,
        max_queue: int,
        hold: bool = False,
        max_records: int = 200_000,
        record_seconds: float = 1.0,
    ) -> None:
        self._path = path
        self._clock = clock
        self._counters = counters
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._hold = hold
        self._max_records = max_records
        self._record_seconds = record_seconds
        self._queue: queue.SimpleQueue[_Job | _Task | None] = queue.SimpleQueue()
        self._records: deque[PredictionRecord] = deque(maxlen=max_records)
        self._closed = False
        try:
            self._writer = connect(path)
            self.id = prepare(self._writer, path)
            """Made when the spool was created; part of every batch."""
            self._reader = connect(path)
            self._count()
        except sqlite3.Error as error:
            msg = f"{path}: cannot open the spool: {error}"
            raise SpoolError(msg, path=str(path), reason="disk") from error
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
            (instant_us(t), r.time, r.sensor, r.quantity, float(r.value), r.unit, now)
            for r, t in readings
        ]
        job = _Job(rows, Future())
        self._queue.put(job)
        return job.done

    def record(self, record: PredictionRecord) -> None:
        """Keep a prediction record, in a while; never waits.

        While the disk fails they gather in memory; beyond ``max_records`` the oldest go.
        """
        if len(self._records) == self._max_records:
            self._counters.records_dropped += 1
        self._records.append(record)

    def after(self, sequence: int, limit: int) -> list[SpooledReading]:
        """Return up to `limit` readings after a sequence number, oldest first.

        Raises
        ------
        SpoolError
            If the file cannot be read.
        """
        return [SpooledReading(*row) for row in self.read(_READINGS, sequence, limit)]

    def now(self) -> float:
        """Return the wall time, s since the Unix epoch."""
        return self._clock.now()

    @property
    def uncut_count(self) -> int:
        """Readings that are in no batch yet."""
        return self._uncut

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

    def transact(
        self, run: Callable[[sqlite3.Connection], None], *, readings: int = 0, records: int = 0
    ) -> Future[None]:
        """Run a function on the writer's thread in a transaction of its own.

        Parameters
        ----------
        run : callable
            Takes the connection.
        readings, records : int
            How many it puts into a batch.
        """
        task = _Task(run, Future(), readings, records)
        if self._closed:
            task.done.set_exception(SpoolError("the spool is closed", reason="closed"))
        else:
            self._queue.put(task)
        return task.done

    def read(self, sql: str, *values: int) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises
        ------
        SpoolError
            If the file cannot be read.
        """
        try:
            with self._reading:
                return self._reader.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            msg = f"{self._path}: cannot read the spool: {error}"
            raise SpoolError(msg, path=str(self._path), reason="disk") from error

    def _count(self) -> None:
        self._rows: int
        self._uncut: int
        self._kept_records: int
        self._rows, self._uncut, self._kept_records = self._writer.execute(
            "SELECT (SELECT count(*) FROM readings),"
            " (SELECT count(*) FROM readings"
            "  WHERE sequence > (SELECT value FROM cut WHERE what = 'readings')),"
            " (SELECT count(*) FROM records)"
        ).fetchone()

    def _write_all(self) -> None:
        flushed = time.monotonic()
        ended = False
        while not ended:
            item: _Job | _Task | None = _TICK
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=self._record_seconds)
            jobs: list[_Job] = []
            rows = 0
            while isinstance(item, _Job):
                jobs.append(item)
                rows += len(item.rows)
                full = rows >= GROUP or self._queue.empty()
                item = _TICK if full else self._queue.get()
            ended = item is None
            due = ended or time.monotonic() - flushed >= self._record_seconds
            if jobs or (due and self._records):
                self._commit(jobs)
                flushed = time.monotonic()
            if isinstance(item, _Task) and item is not _TICK:
                self._run(item)

    def _run(self, task: _Task) -> None:
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                task.run(self._writer)
        except Exception as error:  # noqa: BLE001 - must outlive a full disk; callers are told
            msg = f"{self._path}: cannot write the spool: {error}"
            task.done.set_exception(SpoolError(msg, path=str(self._path), reason="disk"))
            return
        self._uncut -= task.cut_readings
        self._kept_records -= task.cut_records
        task.done.set_result(None)

    def _commit(self, jobs: list[_Job]) -> None:
        if self._hold and self._uncut >= self._max_rows:
            self._refuse(jobs, "full", f"{self._uncut} readings wait for upstream")
            jobs = []
        records = [self._records.popleft() for _ in range(len(self._records))]
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                kept = [self._insert(job) for job in jobs]
                new = sum(k.new for k in kept)
                dropped = self._trim(self._rows + new)
                lost = self._insert_records(records)
        except Exception as error:  # noqa: BLE001 - must outlive a full disk; callers are told
            # What was made meanwhile comes after them.
            self._records.extendleft(reversed(records))
            self._refuse(jobs, "disk", f"cannot write the spool: {error}")
            return
        in_batches = self._rows - self._uncut
        self._rows += new - dropped
        self._uncut += new - max(0, dropped - in_batches)
        self._kept_records += len(records) - lost
        counters = self._counters
        counters.readings_accepted += new
        counters.duplicate += sum(k.duplicate for k in kept)
        counters.conflicting += sum(k.conflicting for k in kept)
        counters.readings_dropped += 0 if self._hold else dropped
        counters.records_dropped += lost
        for job, result in zip(jobs, kept, strict=True):
            job.done.set_result(result)

    def _refuse(self, jobs: list[_Job], reason: str, why: str) -> None:
        self._counters.rejected[reason] += sum(len(job.rows) for job in jobs)
        for job in jobs:
            msg = f"{self._path}: {why}"
            job.done.set_exception(SpoolError(msg, path=str(self._path), reason=reason))

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

    def _insert_records(self, records: list[PredictionRecord]) -> int:
        self._writer.executemany(
            "INSERT INTO records (record) VALUES (?)", [(_encode(r),) for r in records]
        )
        excess = self._kept_records + len(records) - self._max_records
        if excess <= 0:
            return 0
        self._writer.execute(
            "DELETE FROM records WHERE sequence IN "
            "(SELECT sequence FROM records ORDER BY sequence LIMIT ?)",
            (excess,),
        )
        return excess

    def _trim(self, rows: int) -> int:
        excess = rows - self._max_rows
        if self._hold:
            excess = min(excess, self._rows - self._uncut)
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
