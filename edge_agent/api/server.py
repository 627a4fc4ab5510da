"""The server round the codec and the routes: asyncio, one thread, TCP and a Unix socket.

Inference runs inline: requests are served one after the other, which on a small device is both the
shortest mean and the shortest tail.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.codec import CONTINUE, Limits, RequestParser, Response, encode_response
from edge_agent.api.routes import Routes
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import InvalidConfig, ProtocolError

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 5.0


class Connection(asyncio.Protocol):
    """One connection: answers in the order of the requests, one at a time."""

    def __init__(self, server: Server, *, local: bool) -> None:
        self._server = server
        self._local = local
        self._parser = RequestParser(server.limits)
        self._transport: asyncio.Transport
        self._waiting: bool | None = None
        """Keep-alive of the request whose answer is awaited; none when idle."""
        self._blocked = False
        self._ended = False
        self._closing = False
        self.since = 0.0
        """Loop time of the last progress."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self.since = self._server.loop.time()
        if not self._server.admit(self):
            error = ProtocolError("too many connections; try again later", status=503)
            self._send(self._server.routes.error(error), keep_alive=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the connection."""
        self._closing = True
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer what is whole."""
        if self._closing:
            return
        if not self._parser.pending:
            self.since = self._server.loop.time()
        self._parser.feed(data)
        self._answer()

    def eof_received(self) -> bool:
        """Finish the answers under way, then close."""
        self._ended = True
        return self._waiting is not None or self._blocked

    def pause_writing(self) -> None:
        """Stop answering a client that does not read."""
        self._blocked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = False
        if self._waiting is None:
            self._resume_reading()
            self._answer()

    def overdue(self, now: float, config: AgentConfig) -> bool:
        """Whether the client takes too long to send, or has been silent for too long."""
        if self._waiting is not None:
            return False
        limit = config.request_seconds if self._parser.pending else config.idle_seconds
        return now - self.since > limit

    def close(self) -> None:
        """Close after what is written has gone out."""
        self._closing = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._waiting is not None

    def _answer(self) -> None:
        while self._waiting is None and not self._blocked and not self._closing:
            try:
                request = self._parser.next_request()
            except ProtocolError as error:
                self._send(self._server.routes.error(error), keep_alive=False)
                return
            if request is None:
                if self._parser.take_continue():
                    self._transport.write(CONTINUE)
                if self._ended:
                    self.close()
                return
            answer = self._server.routes(request, local=self._local)
            if isinstance(answer, Response):
                self._send(answer, keep_alive=request.keep_alive)
            else:
                self._waiting = request.keep_alive
                self._transport.pause_reading()
                answer.add_done_callback(self._later)

    def _later(self, answer: Future[Response]) -> None:
        # The loop may be gone if the agent is stopping.
        with contextlib.suppress(RuntimeError):
            self._server.loop.call_soon_threadsafe(self._finish, answer)

    def _finish(self, answer: Future[Response]) -> None:
        keep_alive, self._waiting = bool(self._waiting), None
        if self._closing:
            return
        self._send(answer.result(), keep_alive=keep_alive)
        if not self._blocked and not self._closing:
            self._resume_reading()
            self._answer()

    def _send(self, response: Response, *, keep_alive: bool) -> None:
        keep = keep_alive and not self._server.stopping
        self._transport.writelines(encode_response(response, keep_alive=keep))
        self.since = self._server.loop.time()
        if not keep:
            self.close()
        if response.after is not None:
            response.after()

    def _resume_reading(self) -> None:
        if not self._ended and not self._closing:
            self._transport.resume_reading()


class Server:
    """Listens for an agent.

    Parameters
    ----------
    agent : EdgeAgent
        Started.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        config = agent.config
        self.routes = Routes(agent)
        self.limits = Limits(config.max_head_bytes, config.max_body_bytes)
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop
        self.http = ""
        """``http://HOST:PORT`` once it listens."""
        self._config = config
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on both sockets.

        Raises
        ------
        InvalidConfig
            If the port is taken or the socket path cannot be used.
        """
        self.loop = asyncio.get_running_loop()
        config = self._config
        path = config.socket_path
        unix = listen_unix(path)
        try:
            tcp = await self.loop.create_server(
                self._factory(local=False), config.host, config.port, backlog=128
            )
        except OSError as error:
            unix.close()
            path.unlink(missing_ok=True)
            msg = f"port: cannot listen on {config.host}:{config.port}: {error.strerror}"
            raise InvalidConfig(msg, field="port") from error
        self._servers = [
            tcp,
            await self.loop.create_unix_server(self._factory(local=True), sock=unix, backlog=128),
        ]
        host, port = tcp.sockets[0].getsockname()[:2]
        self.http = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self, timeout: float = 2.0) -> None:
        """Stop accepting, let answers under way go out, close everything."""
        self.stopping = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        # A connection accepted just now takes asyncio some turns to hand over, and fails if its
        # server is closed meanwhile (cpython#109564): stop accepting, wait, then close.
        for server in self._servers:
            for sock in server.sockets:
                self.loop.remove_reader(sock.fileno())
        for _ in range(5):
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        deadline = self.loop.time() + timeout
        while any(c.busy for c in self._connections) and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close()
        while self._connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        self._config.socket_path.unlink(missing_ok=True)

    def admit(self, connection: Connection) -> bool:
        """Count a connection in; false when there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self._config.max_connections

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    def _factory(self, *, local: bool) -> Callable[[], Connection]:
        return lambda: Connection(self, local=local)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.loop.time()
            for connection in list(self._connections):
                if connection.overdue(now, self._config):
                    connection.abort()


def listen_unix(path: Path) -> socket.socket:
    """Return a socket bound to a path with mode 0660; a dead agent's socket file is removed.

    Raises
    ------
    InvalidConfig
        If somebody listens there already, or the path cannot be used.
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                msg = f"unix_socket: another process listens at {path}"
                raise InvalidConfig(msg, field="unix_socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # On Linux the mode set before bind is the file's from its first instant; changing the
        # umask instead would reach into what other threads create.
        os.fchmod(listener.fileno(), 0o660)
        listener.bind(str(path))
        path.chmod(0o660)
    except OSError as error:
        listener.close()
        msg = f"unix_socket: cannot bind {path}: {error.strerror or error}"
        raise InvalidConfig(msg, field="unix_socket") from error
    return listener
