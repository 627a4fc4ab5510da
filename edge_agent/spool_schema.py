"""The spool's file: schema, connection, upgrades."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

from edge_agent.contracts.errors import SpoolError

VERSION = 2
#: The write-ahead log is cut back to this after a burst, bytes.
JOURNAL_BYTES = 16 * 2**20

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
);
CREATE TABLE IF NOT EXISTS records (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    record BLOB NOT NULL           -- PredictionRecord as JSON
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL,            -- as it travels
    readings INTEGER NOT NULL,
    records INTEGER NOT NULL,
    cut_at REAL NOT NULL,          -- wall time, s since the Unix epoch
    refused TEXT                   -- why upstream will never take it
);
CREATE TABLE IF NOT EXISTS cut (   -- last sequence that is in a batch
    what TEXT PRIMARY KEY CHECK (what IN ('readings', 'records')),
    value INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL) STRICT;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file; each commit is on the disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit: transactions are begun by hand.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> str:
    """Make what is missing; return the spool's id. Version 1 had the readings alone.

    Raises
    ------
    SpoolError
        If the file was written by another version.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, 1, VERSION):
        msg = f"{path}: spool schema {found}, this agent knows {VERSION}"
        raise SpoolError(msg, path=str(path), reason="schema")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        for what in ("readings", "records"):
            connection.execute("INSERT OR IGNORE INTO cut VALUES (?, 0)", (what,))
        known = connection.execute("SELECT id FROM identity").fetchone()
        if known is None:
            known = (uuid.uuid4().hex,)
            connection.execute("INSERT INTO identity VALUES (?)", known)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    return str(known[0])
