"""The ledger: what the campaign has decided and seen, in SQLite.

One writer, write-ahead log, on a local disk. Every decision is written before it is acted on, so a
campaign killed at any instruction goes on from here.

States of a simulation: ``planned`` -> ``done`` | ``failed``. A planned one may be running; after a
restart it is simply run again, or found finished.

States of a candidate: ``training`` -> ``trained`` -> ``accepted`` -> ``published``, or ``refused``
by the gate, or ``failed`` with a reason.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.scenarios import Scenario
from edge_agent.contracts.observation import Reading
from edge_agent.contracts.site_state import SiteState
from workflows.errors import LedgerError
from workflows.ledger_schema import (
    ROLES,
    SCHEMA,
    SCHEMA_VERSION,
    STATES,
    CandidateRow,
    CandidateState,
    Role,
    SimulationRow,
    StateRow,
)

__all__ = ["ROLES", "CandidateRow", "CandidateState", "Ledger", "Role", "SimulationRow", "StateRow"]


class Ledger:
    """The journal of one campaign.

    Parameters
    ----------
    path : Path
        The SQLite file; made if it is not there.
    campaign : str
        Digest of campaign and site; a ledger of another campaign is refused.

    Raises
    ------
    LedgerError
        If the file is of another campaign or schema, is no ledger, or another process writes it.
    """

    def __init__(self, path: Path, campaign: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # A lock file and not SQLite's own lock: others may read the ledger while it is written.
        self._lock = path.with_suffix(".lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            msg = f"{path}: another campaign is running in this folder"
            raise LedgerError(msg, path=str(path)) from error
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                self._open(campaign)
        except sqlite3.DatabaseError as error:
            self.close()
            msg = f"{path}: not a ledger that can be used ({error}); choose another --out"
            raise LedgerError(msg, path=str(path)) from error
        except LedgerError:
            self.close()
            raise

    def _open(self, campaign: str) -> None:
        known = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
        if not known:
            for statement in (SCHEMA + STATES).split(";"):
                self._db.execute(statement)
            for key, value in (
                ("schema_version", str(SCHEMA_VERSION)),
                ("campaign", campaign),
                ("started_at", repr(time.time())),
            ):
                self._db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
            return
        version = self.meta("schema_version")
        if version == "1":  # without estimated states
            self._db.execute(STATES)
            version = str(SCHEMA_VERSION)
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,))
        if version != str(SCHEMA_VERSION):
            msg = f"{self.path}: ledger schema {version}, this program writes {SCHEMA_VERSION}"
            raise LedgerError(msg, path=str(self.path), schema_version=version)
        if self.meta("campaign") != campaign:
            msg = (
                f"{self.path}: belongs to a campaign with other settings; "
                "resume with the same campaign file or choose another --out"
            )
            raise LedgerError(msg, path=str(self.path))

    def close(self) -> None:
        """Release the file."""
        self._db.close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        cursor = self._db.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")

    def meta(self, key: str) -> str:
        """Return an entry of the ledger's head."""
        return str(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def event(self, kind: str, **data: Any) -> None:  # noqa: ANN401 - any JSON value
        """Append to the log of what happened."""
        self._db.execute(
            "INSERT INTO event (at, kind, data) VALUES (?, ?, ?)",
            (time.time(), kind, json.dumps(data)),
        )

    def events(self, *kinds: str) -> list[tuple[float, str, dict[str, Any]]]:
        """Return (wall time, kind, data) of the events of some kinds, oldest first."""
        marks = ",".join("?" * len(kinds))
        rows = self._db.execute(
            f"SELECT at, kind, data FROM event WHERE kind IN ({marks}) ORDER BY sequence",  # noqa: S608
            kinds,
        )
        return [(at, kind, json.loads(data)) for at, kind, data in rows]

    def plan(
        self, role: Role, scenarios: Sequence[tuple[int, str, Scenario]], data_until: str | None
    ) -> int:
        """Write down simulations before they are started.

        Parameters
        ----------
        role : Role
        scenarios : sequence of (sequence number in the role's stream, digest, scenario)
        data_until : str or None
            Data time of the newest reading that steered the choice.

        Returns
        -------
        int
            How many were new; a scenario that is in the ledger already is left as it is.
        """
        with self._transaction() as cursor:
            before = self._db.total_changes
            cursor.executemany(
                "INSERT OR IGNORE INTO simulation"
                " (digest, role, sequence, scenario, state, data_until, planned_at)"
                " VALUES (?, ?, ?, ?, 'planned', ?, ?)",
                [
                    (digest, role, sequence, scenario.model_dump_json(), data_until, time.time())
                    for sequence, digest, scenario in scenarios
                ],
            )
            return self._db.total_changes - before

    def next_sequence(self, role: Role) -> int:
        """Return the first unused number of a role's stream."""
        row = self._db.execute(
            "SELECT coalesce(max(sequence) + 1, 0) FROM simulation WHERE role = ?", (role,)
        ).fetchone()
        return int(row[0])

    def finish(self, digest: str, seconds: float) -> None:
        """Record that a simulation's file exists."""
        self._end(digest, "done", seconds, None)

    def fail(self, digest: str, reason: str) -> None:
        """Record that a simulation cannot be finished."""
        self._end(digest, "failed", None, reason)

    def _end(self, digest: str, state: str, seconds: float | None, reason: str | None) -> None:
        self._db.execute(
            "UPDATE simulation SET state = ?, seconds = ?, reason = ?, ended_at = ?"
            " WHERE digest = ? AND state = 'planned'",
            (state, seconds, reason, time.time(), digest),
        )

    def simulations(self) -> list[SimulationRow]:
        """Return all simulations, frozen roles first, then in the order planned."""
        rows = self._db.execute(
            "SELECT digest, role, sequence, scenario, state, seconds, reason, data_until, ended_at"
            " FROM simulation ORDER BY role = 'training', sequence, role"
        )
        return [
            SimulationRow(r[0], r[1], r[2], Scenario.model_validate_json(r[3]), *r[4:])
            for r in rows
        ]

    def add_candidate(self, task: dict[str, Any]) -> int:
        """Write down a training before it is started; return its number."""
        cursor = self._db.execute(
            "INSERT INTO candidate (task, state, started_at) VALUES (?, 'training', ?)",
            (json.dumps(task), time.time()),
        )
        if cursor.lastrowid is None:
            msg = f"{self.path}: SQLite gave the candidate no number"
            raise LedgerError(msg, path=str(self.path))
        return cursor.lastrowid

    def update_candidate(
        self,
        number: int,
        state: CandidateState,
        *,
        folder: str | None = None,
        **result: Any,  # noqa: ANN401 - any JSON value
    ) -> None:
        """Move a candidate to a state and merge `result` into what is known of it."""
        with self._transaction() as cursor:
            known = json.loads(
                cursor.execute(
                    "SELECT result FROM candidate WHERE number = ?", (number,)
                ).fetchone()[0]
            )
            ended = time.time() if state in ("published", "refused", "failed") else None
            cursor.execute(
                "UPDATE candidate SET state = ?, folder = coalesce(?, folder), result = ?,"
                " ended_at = ? WHERE number = ?",
                (state, folder, json.dumps(known | result), ended, number),
            )

    def reserve_version(self, number: int, created: str) -> int:
        """Give a candidate the next version, once; `created` is its wall time, ISO 8601.

        A second call returns the version it has, so that a publication which was cut off is
        repeated under the same version and with the same bytes.
        """
        with self._transaction() as cursor:
            has = cursor.execute(
                "SELECT version FROM candidate WHERE number = ?", (number,)
            ).fetchone()[0]
            if has is not None:
                return int(has)
            version = int(
                cursor.execute("SELECT coalesce(max(version), 0) + 1 FROM candidate").fetchone()[0]
            )
            cursor.execute(
                "UPDATE candidate SET version = ?, created = ? WHERE number = ?",
                (version, created, number),
            )
            return version

    def candidates(self) -> list[CandidateRow]:
        """Return all candidates, oldest first."""
        rows = self._db.execute(
            "SELECT number, task, state, folder, version, created, result, started_at, ended_at"
            " FROM candidate ORDER BY number"
        )
        return [
            CandidateRow(
                number, json.loads(task), state, folder, version, created, json.loads(result), *at
            )
            for number, task, state, folder, version, created, result, *at in rows
        ]

    def add_state(
        self, state: SiteState, until: str, gains: tuple[float, ...] | None = None
    ) -> None:
        """Write down an estimated state, before anything follows from it."""
        self._db.execute(
            "INSERT INTO site_state (at, until, state, gains) VALUES (?, ?, ?, ?)",
            (
                time.time(),
                until,
                state.model_dump_json(),
                None if gains is None else json.dumps(gains),
            ),
        )

    def states(self) -> list[StateRow]:
        """Return all estimated states, oldest first."""
        rows = self._db.execute("SELECT until, state, gains FROM site_state ORDER BY sequence")
        return [
            StateRow(
                until,
                SiteState.model_validate_json(state),
                None if gains is None else tuple(json.loads(gains)),
            )
            for until, state, gains in rows
        ]

    def store_readings(self, readings: Iterable[Reading]) -> int:
        """Store readings, each once; return how many were new."""
        with self._transaction() as cursor:
            before = self._db.total_changes
            cursor.executemany(
                "INSERT OR IGNORE INTO reading VALUES (?, ?, ?, ?, ?, ?)",
                [(r.sensor, r.quantity, r.time, r.value, r.unit, time.time()) for r in readings],
            )
            return self._db.total_changes - before

    def newest_reading(self, sensor: str) -> str | None:
        """Return the data time of a sensor's newest reading; none without any."""
        row = self._db.execute("SELECT max(time) FROM reading WHERE sensor = ?", (sensor,))
        newest: str | None = row.fetchone()[0]
        return newest

    def oldest_reading(self, sensor: str) -> str | None:
        """Return the data time of a sensor's oldest reading; none without any."""
        row = self._db.execute("SELECT min(time) FROM reading WHERE sensor = ?", (sensor,))
        oldest: str | None = row.fetchone()[0]
        return oldest

    def readings(self, sensor: str, since: str = "") -> list[Reading]:
        """Return a sensor's readings from a data time on, oldest first."""
        rows = self._db.execute(
            "SELECT time, sensor, quantity, value, unit FROM reading"
            " WHERE sensor = ? AND time >= ? ORDER BY time, quantity",
            (sensor, since),
        )
        return [Reading(*row) for row in rows]
