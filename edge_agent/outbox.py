"""The batches of a spool: cut from what is in none yet, kept until they are delivered.

A batch is cut in one commit: its bytes appear and its readings count as cut together, or neither
does. What it holds is settled then, so that a second delivery has the same digest.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.observation import (
    Batch,
    PackedBatch,
    PredictionRecord,
    SpooledReading,
    as_series,
    pack,
)
from edge_agent.spool import Spool

_record = msgspec.json.Decoder(PredictionRecord).decode


class WaitingBatch(NamedTuple):
    """A batch that is not delivered yet."""

    number: int
    """Grows."""
    packed: PackedBatch
    """What travels."""


class Outbox:
    """What of a spool goes upstream; for one thread.

    Parameters
    ----------
    spool : Spool
    site : str
        Name that the batches carry.
    max_bytes : int
        Batches kept on disk; beyond it none is cut.
    """

    def __init__(self, spool: Spool, site: str, max_bytes: int) -> None:
        self._spool = spool
        self._site = site
        self._max_bytes = max_bytes

    def cut(self, limit: int, *, at_least: int = 1) -> Future[None] | None:
        """Make a batch of up to `limit` readings and as many records that are in none yet.

        Returns
        -------
        Future or None
            Resolves once the batch is on the disk; none if fewer than `at_least` rows wait, or
            the batches on disk are at their bound.

        Raises
        ------
        SpoolError
            If the file cannot be read.
        """
        size = self._spool.read("SELECT coalesce(sum(length(data)), 0) FROM batches")[0][0]
        if size >= self._max_bytes:
            return None
        readings, records = self._uncut(limit)
        if len(readings) + len(records) < max(1, at_least):
            return None
        number = self._next_number()
        batch = Batch(
            site=self._site,
            spool=self._spool.id,
            number=number,
            series=as_series(readings),
            predictions=tuple(r for _, r in records),
        )
        packed = pack(batch)
        at = self._spool.now()

        def run(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO batches (number, digest, data, readings, records, cut_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (number, *packed, len(readings), len(records), at),
            )
            if readings:
                last = readings[-1].sequence
                db.execute("UPDATE cut SET value = ? WHERE what = 'readings'", (last,))
            if records:
                last = records[-1][0]
                db.execute("UPDATE cut SET value = ? WHERE what = 'records'", (last,))
                # A record in a batch has done its duty: nothing else reads it.
                db.execute("DELETE FROM records WHERE sequence <= ?", (last,))
            failpoint("spool.cut")

        return self._spool.transact(run, readings=len(readings), records=len(records))

    def waiting(self) -> WaitingBatch | None:
        """Return the oldest batch that is neither delivered nor refused, or none."""
        rows = self._spool.read(
            "SELECT number, digest, data FROM batches WHERE refused IS NULL ORDER BY number LIMIT 1"
        )
        return WaitingBatch(rows[0][0], PackedBatch(*rows[0][1:])) if rows else None

    def delivered(self, number: int) -> Future[None]:
        """Forget a batch that is stored upstream."""

        def run(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM batches WHERE number = ?", (number,))

        return self._spool.transact(run)

    def refused(self, number: int, reason: str) -> Future[None]:
        """Set a batch aside that upstream will never take; it stays on the disk."""

        def run(db: sqlite3.Connection) -> None:
            db.execute("UPDATE batches SET refused = ? WHERE number = ?", (reason, number))

        return self._spool.transact(run)

    def backlog(self) -> dict[str, Any]:
        """Return what waits: readings in no batch; batches, their bytes and readings; refused."""
        row = self._spool.read(
            "SELECT count(*), coalesce(sum(length(data)), 0), coalesce(sum(readings), 0),"
            " count(refused) FROM batches"
        )[0]
        names = ("batches", "batch_bytes", "batch_readings", "batches_refused")
        return {"uncut": self._spool.uncut_count, **dict(zip(names, row, strict=True))}

    def _uncut(self, limit: int) -> tuple[list[SpooledReading], list[tuple[int, PredictionRecord]]]:
        done = {r[0]: int(r[1]) for r in self._spool.read("SELECT what, value FROM cut")}
        rows = self._spool.read(
            "SELECT sequence, record FROM records WHERE sequence > ? ORDER BY sequence LIMIT ?",
            done["records"],
            limit,
        )
        return self._spool.after(done["readings"], limit), [(n, _record(text)) for n, text in rows]

    def _next_number(self) -> int:
        # Not the highest there is: a delivered one's number must not be given again.
        row = self._spool.read("SELECT seq FROM sqlite_sequence WHERE name = 'batches'")
        return int(row[0][0]) + 1 if row else 1
