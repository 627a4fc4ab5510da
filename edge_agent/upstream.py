"""Hands batches upstream, at least once each, on a thread of its own.

Failure of any kind means: the batch stays, wait, try again; the pause doubles up to a bound.
Batches go on being cut meanwhile, for they take a tenth of the room that rows do. Only a batch that
the receiving end refuses for what it is, which no repetition can cure, is set aside.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import ssl
import threading
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog

from edge_agent.backoff import pause
from edge_agent.clock import Clock
from edge_agent.contracts import storage
from edge_agent.contracts.errors import RbfError, UpstreamError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.observation import PackedBatch, batch_name
from edge_agent.outbox import Outbox
from edge_agent.settings import UpstreamSettings

log = structlog.get_logger(__name__)

DIGEST_HEADER = "RBF-Digest"
#: Answers that say that the batch itself is at fault.
REFUSALS = (400, 413, 422)
#: How often to look for something to do, as a share of ``batch_seconds``, and at least, s.
LOOK_SHARE, LOOK_SECONDS = 0.2, 1.0
COMMIT_SECONDS = 60.0


class Transport(Protocol):
    """Where batches go."""

    def send(self, packed: PackedBatch, number: int) -> None:
        """Return once the batch is stored durably at the other end.

        Raises
        ------
        UpstreamError
            With ``.refused`` true if it never will be.
        """
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class FolderTransport:
    """A folder that the receiving end empties.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, packed: PackedBatch, number: int) -> None:
        """Put the batch down, whole and flushed to the disk; see `Transport.send`."""
        try:
            storage.write_bytes(self._folder / batch_name(packed.digest, number), packed.data)
        except OSError as error:
            msg = f"{self._folder}: cannot put batch {number}: {error.strerror or error}"
            raise UpstreamError(msg, refused=False) from error

    def close(self) -> None:
        """Nothing is open."""


class HttpTransport:
    """An HTTP or HTTPS receiver (`workflows.observations`).

    Parameters
    ----------
    url : str
    token : str or None
        Sent as a bearer token.
    timeout : float, s
    """

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        parts = urlsplit(url)
        self._url = url
        self._path = parts.path or "/"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        host = parts.hostname or ""
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def send(self, packed: PackedBatch, number: int) -> None:
        """Post the batch; see `Transport.send`."""
        headers = {
            **self._headers,
            DIGEST_HEADER: packed.digest,
            "Content-Type": "application/vnd.rbf.observations",
        }
        try:
            self._connection.request("POST", self._path, packed.data, headers)
            response = self._connection.getresponse()
            answer = response.read(1000)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            msg = f"{self._url}: batch {number} not delivered: {error or type(error).__name__}"
            raise UpstreamError(msg, refused=False) from error
        if response.status != 200:
            said = answer.decode(errors="replace")[:200]
            msg = f"{self._url}: batch {number}: status {response.status}: {said}"
            raise UpstreamError(msg, refused=response.status in REFUSALS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def make_transport(settings: UpstreamSettings) -> Transport:
    """Return the transport of a configuration.

    Raises
    ------
    UpstreamError
        If the token cannot be read.
    """
    if settings.folder is not None:
        return FolderTransport(settings.folder)
    assert settings.url is not None  # noqa: S101 - the settings are valid
    token = None
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"upstream.token_file: {settings.token_file} cannot be read: {error}"
            raise UpstreamError(msg, refused=False) from error
    return HttpTransport(settings.url, token, settings.timeout_seconds)


class Upstream:
    """Cuts and delivers until closed.

    Parameters
    ----------
    outbox : Outbox
    transport : Transport
    settings : UpstreamSettings
    clock : Clock
    """

    def __init__(
        self, outbox: Outbox, transport: Transport, settings: UpstreamSettings, clock: Clock
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rbf-upstream", daemon=True)
        self._cut_at = clock.monotonic()
        self.delivered = 0
        """Batches handed over since the start."""
        self.failures = 0
        """Failed deliveries in a row."""
        self.trouble: str | None = None
        """What the last failure said; none after a success."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what is not delivered stays in the spool."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._transport.close()

    def status(self) -> dict[str, Any]:
        """Return what waits and how delivery does, as JSON values."""
        with contextlib.suppress(RbfError):
            return {
                "delivered": self.delivered,
                "failures": self.failures,
                "trouble": self.trouble,
                **self._outbox.backlog(),
            }
        return {"delivered": self.delivered, "failures": self.failures, "trouble": self.trouble}

    def step(self) -> bool:
        """Cut what is due and deliver one batch; return whether there was one.

        Raises
        ------
        UpstreamError
            If it could not be delivered; it stays.
        SpoolError
            If the spool cannot be read or written.
        """
        self._cut()
        batch = self._outbox.waiting()
        if batch is None:
            return False
        try:
            self._transport.send(batch.packed, batch.number)
        except UpstreamError as error:
            if not error.refused:
                raise
            log.error("batch refused upstream", number=batch.number, reason=str(error))
            self._outbox.refused(batch.number, str(error)).result(COMMIT_SECONDS)
            return True
        failpoint("upstream.sent")
        self._outbox.delivered(batch.number).result(COMMIT_SECONDS)
        self.delivered += 1
        return True

    def _cut(self) -> None:
        rows, now = self._settings.batch_rows, self._clock.monotonic()
        due = now - self._cut_at >= self._settings.batch_seconds
        while (done := self._outbox.cut(rows, at_least=1 if due else rows)) is not None:
            done.result(COMMIT_SECONDS)
            due = False
            self._cut_at = now
        if due:
            self._cut_at = now

    def _run(self) -> None:
        settings = self._settings
        look = min(LOOK_SECONDS, LOOK_SHARE * settings.batch_seconds)
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                wait = 0.0 if self.step() else look
                self.failures, self.trouble = 0, None
            except Exception as error:  # noqa: BLE001 - delivery must outlive whatever happens
                if not self.failures:
                    log.warning("upstream does not take batches", error=str(error))
                self.failures += 1
                self.trouble = str(error)
                wait = pause(
                    self.failures,
                    settings.retry_seconds,
                    settings.retry_max_seconds,
                    random.random(),  # noqa: S311 - spreads load, hides nothing
                )
