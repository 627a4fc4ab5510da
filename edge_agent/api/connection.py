"""One connection: bytes to requests, answers to bytes, and when to read, write and close."""

from __future__ import annotations

import socket
import struct
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Protocol

from edge_agent.api.codec import (
    CONTINUE,
    Buffer,
    Limits,
    Request,
    RequestParser,
    Response,
    encode_response,
)
from edge_agent.api.tls import Tls
from edge_agent.contracts.errors import ProtocolError

RECEIVE = 64 * 1024
#: What a client may still send after its last answer before it is cut off, bytes.
LINGER_BYTES = 8 * 2**20
_BROKEN = EPOLLERR | EPOLLHUP


class Owner(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    stopping: bool
    now: float
    """Monotonic time of this turn, s."""

    def watch(self, connection: Connection, mask: int) -> None:
        """Wait for other events of a connection."""
        ...

    def forget(self, connection: Connection) -> None:
        """Drop a closed connection."""
        ...

    def refused(self, error: ProtocolError) -> Response:
        """Return the answer to bytes that are not the protocol."""
        ...


class Connection:
    """A client; its requests are answered in order, one at a time.

    Parameters
    ----------
    owner : Owner
    sock : socket
        Accepted, non-blocking.
    local : bool
        Whether it came over the Unix socket.
    tls : Tls or None
    """

    def __init__(self, owner: Owner, sock: socket.socket, *, local: bool, tls: Tls | None) -> None:
        self._owner = owner
        self._sock = sock
        self._tls = tls
        self._parser = RequestParser(owner.limits)
        self._out = bytearray()
        self._mask = EPOLLIN
        self._ended = False
        """The client sends no more."""
        self._lingering = False
        """The last answer is out; what the client still sends is thrown away."""
        self._lingered = 0
        self._asked = False
        """A request has been handed out and is not answered yet."""
        self.closed = False
        self.local = local
        self.waiting = False
        """An answer is awaited from another thread."""
        self.since = owner.now
        """Monotonic time of the last progress, s."""
        self.descriptor = sock.fileno()

    def peer(self) -> str:
        """Return who the client is: user and process, or address."""
        try:
            if self.local:
                raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, uid, _ = struct.unpack("3i", raw)
                return f"uid {uid}, pid {pid}"
            return "{}:{}".format(*self._sock.getpeername()[:2])
        except OSError:
            return "gone"

    def receive(self, mask: int) -> Request | None:
        """Take what has come; return a request if one is whole."""
        if mask & EPOLLOUT and not self._flush():
            return None
        if not mask & EPOLLIN:
            if mask & _BROKEN:
                self.close()
            return self.following()
        try:
            data = self._sock.recv(RECEIVE)
            if self._lingering:
                self._throw_away(data)
                return None
            if self._tls is not None and data:
                data = self._tls.receive(data)
                self._write([self._tls.outgoing()])
            elif not data:
                self._ended = True
                return self.following()
        except BlockingIOError:
            return None
        except OSError:  # also TLS that is none
            self.close()
            return None
        if not self._parser.pending:
            self.since = self._owner.now
        self._parser.feed(data)
        return self.following()

    def _throw_away(self, data: bytes) -> None:
        self._lingered += len(data)
        if not data or self._lingered > LINGER_BYTES:
            self.close()

    def following(self) -> Request | None:
        """Return the next request that has come, if one may be answered now."""
        if self.closed or self._asked or self._out or self._lingering:
            return None
        try:
            request = self._parser.next_request()
        except ProtocolError as error:
            self.answer(self._owner.refused(error), keep_alive=False)
            return None
        if request is not None:
            self._asked = True
            return request
        if self._parser.take_continue():
            self._write(self._wrapped([CONTINUE]))
        if self._ended:
            self._finish()
        return None

    @property
    def unread(self) -> bool:
        """Whether more than the request just answered has come."""
        return self._parser.pending or self._ended

    def wait(self) -> None:
        """Read nothing until `answer` comes."""
        self.waiting = True
        self._watch(0)

    def answer(self, response: Response, *, keep_alive: bool) -> None:
        """Send an answer."""
        self.waiting = self._asked = False
        if not self.closed:
            keep = keep_alive and not self._owner.stopping
            self._write(self._wrapped(encode_response(response, keep_alive=keep)))
            self.since = self._owner.now
            if not keep:
                self._finish()
            elif not self._out:
                self._watch(EPOLLIN)
        if response.after is not None:
            response.after()

    def overdue(self, request_seconds: float, idle_seconds: float) -> bool:
        """Whether the client takes too long to send or read, or has been silent for too long."""
        if self.waiting:
            return False
        busy = self._parser.pending or self._out or self._lingering
        busy = busy or (self._tls is not None and not self._tls.ready)
        return self._owner.now - self.since > (request_seconds if busy else idle_seconds)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited or not yet out."""
        return self.waiting or bool(self._out)

    def close(self) -> None:
        """Close at once."""
        if not self.closed:
            self.closed = True
            self._owner.forget(self)
            self._sock.close()

    def _finish(self) -> None:
        """Close once everything is out, so that the client gets to read it."""
        self._lingering = True
        if self._out or self.closed:
            return
        # Closing with bytes unread would reset the connection and take the answer with it.
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if self._ended:
            self.close()
        else:
            self._watch(EPOLLIN)

    def _wrapped(self, pieces: list[Buffer]) -> list[Buffer]:
        return pieces if self._tls is None else [self._tls.encrypt(pieces)]

    def _write(self, pieces: list[Buffer]) -> None:
        if self.closed:
            return
        if self._out:
            for piece in pieces:
                self._out += piece
            return
        try:
            sent = self._sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                self._out += memoryview(piece)[sent:]
                sent = 0
        if self._out:
            self._watch(EPOLLOUT)

    def _flush(self) -> bool:
        """Send what is left; return whether requests may be read on."""
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        del self._out[:sent]
        self.since = self._owner.now
        if self._out:
            return False
        if self._lingering:
            self._finish()
            return False
        if not self.waiting:
            self._watch(EPOLLIN)
        return True

    def _watch(self, mask: int) -> None:
        if mask != self._mask and not self.closed:
            self._mask = mask
            self._owner.watch(self, mask)
