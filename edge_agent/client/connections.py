"""HTTP to an agent: connections that are kept, over its Unix socket, TCP or TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from edge_agent.contracts.errors import AgentUnreachable, InvalidConfig, ProtocolError


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    """HTTP status."""
    headers: Message
    """Look-ups ignore case."""
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; raises `ProtocolError` if it is not one."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            msg = f"the agent's answer is not a JSON object: {error}"
            raise ProtocolError(msg, status=self.status) from error


class Connections:
    """Connections to one agent; any number of threads may ask.

    Parameters
    ----------
    address : str
        ``unix:/path/agent.sock``, ``http://HOST:PORT`` or ``https://HOST:PORT``.
    timeout : float, s
        For connecting and for each answer.
    token : str, optional
        What the agent asks for over HTTP.
    ca_file : Path, optional
        Certificates to trust, PEM; the system's by default.

    Raises
    ------
    InvalidConfig
        If the address is none of these, or `ca_file` cannot be read.
    """

    def __init__(
        self, address: str, *, timeout: float, token: str | None, ca_file: Path | None
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._path, self._host, self._port = parse_address(address)
        self._tls = _client_context(ca_file) if address.startswith("https:") else None
        self._always = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the idle ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request; return whatever the agent answers.

        A request that meets a kept connection which the agent has closed meanwhile is sent once
        more on a new one.

        Raises
        ------
        AgentUnreachable
            If nobody answers in time.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, method, path, body, headers)
            except (ConnectionError, http.client.HTTPException):
                kept.close()
            except OSError as error:
                kept.close()
                raise self._unreachable(error) from error
        fresh = self._connect()
        try:
            return self._exchange(fresh, method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise self._unreachable(error) from error

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Reply:
        connection.request(method, path, body, {**self._always, **(headers or {})})
        response = connection.getresponse()
        reply = Reply(response.status, response.msg, response.read())
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return reply

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self) -> http.client.HTTPConnection:
        if self._path is not None:
            return _UnixConnection(self._path, self._timeout)
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _unreachable(self, error: BaseException) -> AgentUnreachable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        msg = f"no agent answers at {self.address}: {reason}; is it running?"
        return AgentUnreachable(msg, address=self.address)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def _client_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        msg = f"ca_file {ca_file} cannot be used: {error}"
        raise InvalidConfig(msg, field="ca_file") from error


def parse_address(address: str) -> tuple[str | None, str, int]:
    """Return (socket path or none, host, port) of an agent's address; raises `InvalidConfig`."""
    if address.startswith("unix:") and len(address) > len("unix:"):
        return address.removeprefix("unix:"), "", 0
    try:
        url = urlsplit(address)
        if url.scheme in ("http", "https") and url.hostname and url.path in ("", "/"):
            return None, url.hostname, url.port or (80 if url.scheme == "http" else 443)
    except ValueError:
        pass
    msg = f"address {address!r} is none of unix:/path, http://host:port, https://host:port"
    raise InvalidConfig(msg, field="address")
