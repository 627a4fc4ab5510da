"""The leanest possible caller, for measuring: one connection, one request at a time.

`http.client` costs a tenth of a millisecond per request, which would be counted as the agent's.
Understands what our own server sends, no more.
"""

from __future__ import annotations

import re
import socket

from edge_agent.client import parse_address
from edge_agent.contracts.errors import AgentUnreachable

_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) .*?\r\nContent-Length: ([0-9]+)\r\n", re.DOTALL)


class Wire:
    """One kept connection to an agent.

    Parameters
    ----------
    address : str
        ``unix:/path`` or ``http://host:port``.
    timeout : float, s
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._path, self._host, self._port = parse_address(address)
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send one request; return status and body.

        A connection that the agent has closed meanwhile is made anew, once.

        Raises
        ------
        AgentUnreachable
            If no answer comes in time.
        """
        request = (
            f"POST {path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        if self._socket is not None:
            try:
                return self._exchange(self._socket, request)
            except ConnectionError:
                self.close()
            except OSError as error:
                self.close()
                raise self._unreachable(error) from error
        try:
            self._socket = self._connect()
            return self._exchange(self._socket, request)
        except OSError as error:
            self.close()
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, sock: socket.socket, request: bytes) -> tuple[int, bytes]:
        sock.sendall(request)
        data = b""
        while True:
            piece = sock.recv(1 << 18)
            if not piece:
                msg = "the agent closed the connection"
                raise ConnectionResetError(msg)
            data += piece
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                continue
            match = _HEAD.match(data, 0, end)
            if match is None:
                msg = "the answer is not an agent's"
                raise ConnectionResetError(msg)
            length = int(match[2])
            if len(data) >= end + length:
                if b"\r\nConnection: close\r\n" in data[:end]:
                    self.close()
                return int(match[1]), data[end : end + length]

    def _connect(self) -> socket.socket:
        if self._path is None:
            sock = socket.create_connection((self._host, self._port), self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def _unreachable(self, error: OSError) -> AgentUnreachable:
        msg = f"no agent answers at {self._address}: {error.strerror or error}; is it running?"
        return AgentUnreachable(msg, address=self._address)
