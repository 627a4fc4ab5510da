"""A repository behind a static HTTP or HTTPS server.

One connection is kept open between requests. Redirects are not followed: the address in the
configuration is the repository's.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from edge_agent.contracts.errors import InvalidConfig, UpdateUnavailable
from edge_agent.updates.transport import CHUNK_BYTES, Body, check_path, stopped

#: What a repository may answer for a file that is not there; object stores say 403.
NOT_THERE = (403, 404, 410)
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


class HttpTransport:
    """Reads from a web server; resumes with ``Range``.

    Parameters
    ----------
    url : str
        Of the folder that holds ``metadata/`` and ``targets/``.
    read_seconds : float, s
        Longest silence of the other end.
    token : str, optional
        Sent as a bearer token.
    context : ssl.SSLContext, optional
        For HTTPS; the system's authorities by default.
    """

    def __init__(
        self,
        url: str,
        *,
        read_seconds: float,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self._base = parts.path.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "rbf-edge-agent"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        host = parts.hostname or ""
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = _Https(
                host,
                parts.port,
                timeout=read_seconds,
                context=context or ssl.create_default_context(),
            )
        else:
            self._connection = http.client.HTTPConnection(host, parts.port, timeout=read_seconds)
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False
        self._late = False

    @contextmanager
    def open(self, path: str, *, offset: int = 0, seconds: float) -> Iterator[Body | None]:
        """Ask for a file; see `Transport.open`."""
        check_path(path)
        with self._lock:
            if self._closed:
                raise stopped()
            self._busy, self._late = True, False
        # A socket's own time limit starts anew with every byte; this one does not.
        timer = threading.Timer(seconds, self._too_late)
        timer.daemon = True
        timer.start()
        response = None
        try:
            response = self._ask(path, offset)
            if response.status in NOT_THERE:
                response.read(CHUNK_BYTES)
                yield None
                return
            start = _start(response, offset)
            if start is None:
                msg = f"{self._url}/{path}: status {response.status} {response.reason}"
                raise UpdateUnavailable(msg, reason="status", status=response.status)
            yield Body(start, self._chunks(response, path))
        finally:
            timer.cancel()
            with self._lock:
                self._busy = False
                if self._closed or response is None or not response.isclosed():
                    # What is left of the answer must not meet the next one.
                    self._connection.close()

    def close(self) -> None:
        """End the reading; see `Transport.close`."""
        with self._lock:
            self._closed = True
            if self._busy:
                self._shut()  # its reader closes it
            else:
                self._connection.close()

    def _ask(self, path: str, offset: int) -> http.client.HTTPResponse:
        response = self._request(path, offset)
        if offset and response.status == RANGE_NOT_SATISFIABLE:
            self._connection.close()
            response = self._request(path, 0)
        return response

    def _request(self, path: str, offset: int) -> http.client.HTTPResponse:
        headers = self._headers | ({"Range": f"bytes={offset}-"} if offset else {})
        target = f"{self._base}/{quote(path)}"
        kept = self._connection.sock is not None
        try:
            try:
                return self._send(target, headers)
            except (ConnectionError, http.client.BadStatusLine):
                if not kept:
                    raise
                self._connection.close()  # closed at the other end while it lay idle
                return self._send(target, headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(path, error) from error

    def _send(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("GET", target, headers=headers)
        if self._late or self._closed:  # while it connected, when there was no socket to shut
            raise TimeoutError
        return self._connection.getresponse()

    def _chunks(self, response: http.client.HTTPResponse, path: str) -> Iterator[bytes]:
        while True:
            try:
                chunk = response.read1(CHUNK_BYTES)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._failure(path, error) from error
            if self._closed or self._late:
                raise self._failure(path, TimeoutError())
            if chunk:
                yield chunk
                continue
            if response.length:
                msg = f"{self._url}/{path}: the connection broke"
                raise UpdateUnavailable(msg, reason="unreachable")
            response.close()  # reading it by pieces does not, and only then the connection goes on
            return

    def _failure(self, path: str, error: Exception) -> UpdateUnavailable:
        if isinstance(error, UpdateUnavailable):
            return error
        if self._closed:
            return stopped()
        if self._late or isinstance(error, TimeoutError):
            msg = f"{self._url}/{path}: too slow, stopped"
            return UpdateUnavailable(msg, reason="slow")
        msg = f"{self._url}/{path}: {error or type(error).__name__}"
        return UpdateUnavailable(msg, reason="unreachable")

    def _too_late(self) -> None:
        self._late = True
        self._shut()

    def _shut(self) -> None:
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # Past any TLS, which a second thread must not touch.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Https(http.client.HTTPSConnection):
    """Shows its socket before the handshake, so that a slow one can be ended."""

    _context: ssl.SSLContext

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        secured = self._context.wrap_socket(
            self.sock, server_hostname=self.host, do_handshake_on_connect=False
        )
        self.sock = secured
        secured.do_handshake()


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts an authority's certificate, or the system's.

    Raises
    ------
    InvalidConfig
        If the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ValueError) as error:
        msg = f"updates.ca_file: {ca_file} cannot be used: {error}"
        raise InvalidConfig(msg, field="updates.ca_file") from error


def _start(response: http.client.HTTPResponse, offset: int) -> int | None:
    """Return where the answer's body starts in the file; none if it is no such body."""
    if response.status == http.client.OK:
        return 0
    said = response.headers.get("Content-Range", "")
    if response.status == PARTIAL_CONTENT and said.startswith(f"bytes {offset}-"):
        return offset
    return None
