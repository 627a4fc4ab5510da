"""The receiving end of the spools: each batch once by digest, each reading once by identity.

    python -m workflows.observations --store obs.sqlite --folder inbox
    python -m workflows.observations --store obs.sqlite --listen 127.0.0.1:8480

A sender repeats a batch until it hears that it is stored; a batch that came before changes nothing.
The answer goes out after the commit. Two batches may hold the same reading (a sensor repeated it
after the edge had forgotten it): the first is kept, another value is counted as conflicting.
"""

from __future__ import annotations

import contextlib
import hmac
import signal
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import msgspec
import structlog
import typer

from edge_agent.contracts import storage
from edge_agent.contracts.errors import InvalidBatch, InvalidReading, RbfError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.observation import (
    SUFFIX,
    Batch,
    PackedBatch,
    Reading,
    check_reading,
    digest_of_name,
    instant_us,
    unpack,
)
from workflows.errors import ObservationError

log = structlog.get_logger(__name__)

SCHEMA_VERSION = 1
MAX_BODY = 16 * 2**20
LOOK_SECONDS = 0.2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
    digest TEXT PRIMARY KEY,
    site TEXT NOT NULL,
    spool TEXT NOT NULL,
    number INTEGER NOT NULL,
    readings INTEGER NOT NULL,     -- in the batch
    new INTEGER NOT NULL,          -- of these, not known before
    stored_at REAL NOT NULL        -- wall time, s since the Unix epoch
) STRICT;
CREATE TABLE IF NOT EXISTS reading (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    site TEXT NOT NULL,
    sensor TEXT NOT NULL,
    quantity TEXT NOT NULL,
    instant INTEGER NOT NULL,      -- data time, microseconds since the Unix epoch
    time TEXT NOT NULL,            -- data time as it was sent
    value REAL NOT NULL,
    unit TEXT NOT NULL,
    received_at REAL NOT NULL,     -- by the edge, wall time, s since the Unix epoch
    UNIQUE (site, sensor, quantity, instant)
) STRICT;
CREATE TABLE IF NOT EXISTS prediction (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL REFERENCES batch (digest),
    record TEXT NOT NULL           -- PredictionRecord as JSON
) STRICT;
"""


class Stored(NamedTuple):
    """What became of one batch."""

    repeated: bool
    """It was stored before; all counts are zero."""
    new: int
    """Readings that were not known."""
    duplicate: int
    """Readings that were, with the same value."""
    conflicting: int
    """Readings that were, with another value; the first is kept."""
    invalid: int
    """Readings that the contract does not allow; not stored."""


class ObservationStore:
    """All observations that came upstream, in SQLite; any number of threads may use it.

    Parameters
    ----------
    path : Path
        Made if it is not there.

    Raises
    ------
    ObservationError
        If it cannot be opened or is of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=10.0
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA_VERSION):
                msg = f"{path}: observation schema {found}, this program writes {SCHEMA_VERSION}"
                raise ObservationError(msg, path=str(path))
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            msg = f"{path}: cannot be used for observations: {error}"
            raise ObservationError(msg, path=str(path)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def store(self, packed: PackedBatch) -> Stored:
        """Store a batch unless it is stored already; it is on the disk when this returns.

        Raises
        ------
        InvalidBatch
            If it cannot be read or does not have its digest.
        ObservationError
            If the disk fails; nothing of it is stored then.
        """
        batch = unpack(packed)
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                result = self._insert(packed.digest, batch)
                failpoint("observations.commit")
        except sqlite3.Error as error:
            msg = f"{self.path}: cannot store batch {batch.number} of {batch.site}: {error}"
            raise ObservationError(msg, path=str(self.path)) from error
        if result.conflicting or result.invalid:
            log.warning("readings not stored", digest=packed.digest, **result._asdict())
        failpoint("observations.stored")
        return result

    def readings(self, after: int = 0, limit: int = 1000) -> list[tuple[int, Reading]]:
        """Return up to `limit` readings after a sequence number, with theirs, oldest first."""
        sql = (
            "SELECT sequence, time, sensor, quantity, value, unit FROM reading"
            " WHERE sequence > ? ORDER BY sequence LIMIT ?"
        )
        with self._lock:
            return [(n, Reading(*row)) for n, *row in self._db.execute(sql, (after, limit))]

    def counts(self) -> dict[str, int]:
        """Return how many batches, readings and prediction records are stored."""
        with self._lock:
            row = self._db.execute(
                "SELECT (SELECT count(*) FROM batch), (SELECT count(*) FROM reading),"
                " (SELECT count(*) FROM prediction)"
            ).fetchone()
        return dict(zip(("batches", "readings", "predictions"), row, strict=True))

    def _insert(self, digest: str, batch: Batch) -> Stored:
        known = self._db.execute("SELECT 1 FROM batch WHERE digest = ?", (digest,)).fetchone()
        if known:
            return Stored(True, 0, 0, 0, 0)
        new = duplicate = conflicting = invalid = 0
        rows = batch.readings()
        for row in rows:
            reading = Reading(row.time, row.sensor, row.quantity, row.value, row.unit)
            try:
                at = instant_us(check_reading(reading))
            except InvalidReading:
                invalid += 1
                continue
            identity = (batch.site, row.sensor, row.quantity, at)
            cursor = self._db.execute(
                "INSERT INTO reading (site, sensor, quantity, instant, time, value, unit,"
                " received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*identity, row.time, row.value, row.unit, row.received_at),
            )
            if cursor.rowcount:
                new += 1
                continue
            held = self._db.execute(
                "SELECT value, unit FROM reading"
                " WHERE site = ? AND sensor = ? AND quantity = ? AND instant = ?",
                identity,
            ).fetchone()
            duplicate += held == (row.value, row.unit)
            conflicting += held != (row.value, row.unit)
        self._db.execute(
            "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)",
            (digest, batch.site, batch.spool, batch.number, len(rows), new, time.time()),
        )
        self._db.executemany(
            "INSERT INTO prediction (digest, record) VALUES (?, ?)",
            [(digest, msgspec.json.encode(p).decode()) for p in batch.predictions],
        )
        return Stored(False, new, duplicate, conflicting, invalid)


def take_folder(store: ObservationStore, folder: Path) -> list[Stored]:
    """Store the batches that lie in a folder, in their order, and remove their files.

    A file that is no batch goes to ``refused/`` in it: it is kept, and in nobody's way.

    Raises
    ------
    ObservationError
        If the disk of the store fails; the files stay.
    OSError
        If the folder cannot be read or written.
    """
    done = []
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
        try:
            done.append(store.store(PackedBatch(digest_of_name(path.name), path.read_bytes())))
        except FileNotFoundError:
            continue  # another receiver took it
        except InvalidBatch as error:
            log.error("batch refused", file=path.name, reason=str(error))
            aside = folder / "refused"
            aside.mkdir(exist_ok=True)
            path.replace(aside / path.name)
            continue
        path.unlink(missing_ok=True)
    return done


class Receiver:
    """Takes batches over HTTP, on threads of its own.

    TLS belongs to the reverse proxy in front; it listens on loopback.

    Parameters
    ----------
    store : ObservationStore
    port : int
        0 takes any free one.
    token : str or None
        Asked of every sender if given.
    host : str
    """

    def __init__(
        self, store: ObservationStore, port: int = 0, *, token: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        handler = type("_Bound", (_Handler,), {"store": store, "token": token})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self.url = f"http://{host}:{self._server.server_port}/rbf/v1/observations"
        """Where batches are posted."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: ObservationStore
    token: str | None
    protocol_version = "HTTP/1.1"
    timeout = 30
    # One segment an answer: with two, Nagle's algorithm and delayed acknowledgements cost 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Store one batch."""
        if not self._length_ok():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = self.headers.get("Authorization", "")
        if self.token is not None and not hmac.compare_digest(
            said.encode(), f"Bearer {self.token}".encode()
        ):
            self._answer(401, {"error": "a token is needed"})
            return
        packed = PackedBatch(self.headers.get("RBF-Digest", ""), body)
        try:
            result = self.store.store(packed)
        except InvalidBatch as error:
            self._answer(422, {"error": str(error)})
        except RbfError as error:
            log.error("batch not stored", error=str(error))
            self._answer(503, {"error": "not stored; send it again"})
        else:
            self._answer(200, result._asdict())

    def _length_ok(self) -> bool:
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()):
            self._answer(411, {"error": "Content-Length is needed"}, close=True)
            return False
        if int(text) > MAX_BODY:
            self._answer(413, {"error": f"at most {MAX_BODY} bytes"}, close=True)
            return False
        return True

    def _answer(self, status: int, body: dict[str, Any], *, close: bool = False) -> None:
        data = msgspec.json.encode(body)
        self.close_connection = self.close_connection or close
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the store logs what matters."""


def _main(
    store: Annotated[Path, typer.Option(help="SQLite file of the observations.")],
    folder: Annotated[Path | None, typer.Option(help="Folder to empty.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to take batches at.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Token asked of senders.")] = None,
    url_file: Annotated[Path | None, typer.Option(help="Written once it listens.")] = None,
) -> None:
    """Receive observations until SIGTERM or Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        observations = stack.enter_context(ObservationStore(store))
        if listen is not None:
            host, _, port = listen.rpartition(":")
            token = None if token_file is None else token_file.read_text().strip()
            receiver = stack.enter_context(
                Receiver(observations, int(port), token=token, host=host)
            )
            typer.echo(f"listening at {receiver.url}", err=True)
            if url_file is not None:
                storage.write_bytes(url_file, receiver.url.encode())
        while not stop.wait(LOOK_SECONDS):
            if folder is not None:
                take_folder(observations, folder)


if __name__ == "__main__":
    typer.run(_main)
