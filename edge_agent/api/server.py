"""The server round the codec and the routes: one thread, epoll, TCP and a Unix socket.

Each turn of the loop takes what every client has sent, and answers it. Inference runs inline:
requests are served one after the other, or together where the release's cost says that all are then
answered sooner. Measured against asyncio's protocols in docs/edge-agent.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from select import EPOLLIN

import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.codec import Limits, Request, Response
from edge_agent.api.connection import Connection
from edge_agent.api.routes import Routes
from edge_agent.api.tls import Tls, server_context
from edge_agent.api.token import read_token
from edge_agent.contracts.errors import InvalidConfig, Overloaded, ProtocolError
from edge_agent.watchdog import Watchdog

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
STOP_SECONDS = 2.0
SEND_BUFFER = 2**20
ACCEPTS = 64
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Work = tuple[Connection, Request]


class Server:
    """Listens for an agent.

    Parameters
    ----------
    agent : EdgeAgent
        Started.
    watchdog : Watchdog, optional
        Told that the loop turns.

    Raises
    ------
    InvalidConfig
        If the token or the certificate cannot be read.
    """

    def __init__(self, agent: EdgeAgent, watchdog: Watchdog | None = None) -> None:
        config = agent.config
        self.routes = Routes(agent, token=read_token(config.token_file))
        self._tls = None
        if config.tls_certificate is not None and config.tls_key is not None:
            self._tls = server_context(config.tls_certificate, config.tls_key)
        self._bell: int = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Closed with the last reference, not earlier: a thread that answers late would ring
        # another file's bell.
        weakref.finalize(self, os.close, self._bell)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, EPOLLIN)
        self.limits = Limits(config.max_head_bytes, config.max_body_bytes)
        self.stopping = False
        self.now = time.monotonic()
        self.http = ""
        """``http://HOST:PORT`` (or ``https``) once it listens."""
        self._config = config
        self._watchdog = watchdog or Watchdog({})
        self._listeners: dict[int, socket.socket] = {}
        self._deaf = False
        """No descriptor is left for another client; looked at again at the next sweep."""
        self._connections: dict[int, Connection] = {}
        self._done: deque[tuple[Connection, bool, Future[Response]]] = deque()
        self._following: list[Connection] = []
        self._stop_at: float | None = None
        self._ended = threading.Event()

    def listen(self) -> None:
        """Listen on both sockets.

        Raises
        ------
        InvalidConfig
            If the port is taken or the socket path cannot be used.
        """
        config = self._config
        path = config.socket_path
        unix = listen_unix(path)
        try:
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            tcp = socket.create_server((config.host, config.port), family=family, backlog=128)
        except OSError as error:
            unix.close()
            path.unlink(missing_ok=True)
            msg = f"port: cannot listen on {config.host}:{config.port}: {error.strerror}"
            raise InvalidConfig(msg, field="port") from error
        unix.listen(128)
        for listener in (tcp, unix):
            listener.setblocking(False)
            self._listeners[listener.fileno()] = listener
            self._epoll.register(listener.fileno(), EPOLLIN)
        host, port = tcp.getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        self.http = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def run(self) -> None:
        """Serve on this thread until `stop` is called and what was under way is answered."""
        sweep_at = 0.0
        beat = self._watchdog.interval
        beat_at = 0.0
        pause = SWEEP_SECONDS if beat is None else min(SWEEP_SECONDS, beat)
        try:
            while self._stop_at is None or (self._busy() and self.now < self._stop_at):
                events = self._epoll.poll(0 if self._following else pause)
                self.now = time.monotonic()
                self._turn(events)
                if beat is not None and self.now >= beat_at:
                    self._watchdog.alive()
                    beat_at = self.now + beat
                if self.now >= sweep_at:
                    self._sweep()
                    sweep_at = self.now + SWEEP_SECONDS
                if self.stopping and self._stop_at is None:
                    self._close_listeners()
                    self._stop_at = self.now + STOP_SECONDS
                    pause = 0.01
        finally:
            self._close_all()
            self.routes.close()
            self._ended.set()

    def stop(self) -> None:
        """Make `run` accept no more, finish and return; from any thread or a signal handler."""
        self.stopping = True
        self._ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `run` has returned."""
        return self._ended.wait(timeout)

    def watch(self, connection: Connection, mask: int) -> None:
        """Wait for other events of a connection."""
        self._epoll.modify(connection.descriptor, mask)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is about to close."""
        if self._connections.pop(connection.descriptor, None) is not None:
            self._epoll.unregister(connection.descriptor)

    def refused(self, error: ProtocolError) -> Response:
        """Return the answer to bytes that are not the protocol."""
        return self.routes.error(error)

    def _turn(self, events: list[tuple[int, int]]) -> None:
        self.routes.arrived = time.perf_counter()
        following, self._following = self._following, []
        work: list[Work] = [(c, r) for c in following if (r := c.following()) is not None]
        for descriptor, mask in events:
            connection_or_none = self._connections.get(descriptor)
            if connection_or_none is not None:
                if (request := connection_or_none.receive(mask)) is not None:
                    work.append((connection_or_none, request))
            elif descriptor == self._bell:
                self._answer_done()
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
        if work:
            self._serve(work)

    def _serve(self, work: list[Work]) -> None:
        if len(work) > self._config.max_queue:
            # Refused before anything else is done: whoever must go elsewhere learns it now.
            waiting = self._config.max_queue
            for connection, request in work[waiting:]:
                msg = f"{waiting} requests wait already; try again later"
                self._respond(connection, request, self.routes.error(Overloaded(msg)))
            del work[waiting:]
        if len(work) == 1:
            connection, request = work[0]
            self._respond(connection, request, self.routes(request, connection))
            return
        for (connection, request), answer in self.routes.together(work):
            self._respond(connection, request, answer)

    def _respond(
        self, connection: Connection, request: Request, answer: Response | Future[Response]
    ) -> None:
        if isinstance(answer, Response):
            connection.answer(answer, keep_alive=request.keep_alive)
            if connection.unread and not connection.closed:
                self._following.append(connection)
            return
        connection.wait()
        keep = request.keep_alive

        def done(future: Future[Response]) -> None:
            self._done.append((connection, keep, future))
            self._ring()

        answer.add_done_callback(done)

    def _answer_done(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        while self._done:
            connection, keep, future = self._done.popleft()
            connection.answer(future.result(), keep_alive=keep)
            if connection.unread and not connection.closed:
                self._following.append(connection)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)

    def _accept(self, listener: socket.socket) -> None:
        local = listener.family == socket.AF_UNIX
        for _ in range(ACCEPTS):
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("no more connections can be accepted", reason=str(error))
                self._listen_again(listening=False)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            if not local:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = None if local or self._tls is None else Tls(self._tls)
            connection = Connection(self, sock, local=local, tls=tls)
            self._connections[connection.descriptor] = connection
            self._epoll.register(connection.descriptor, EPOLLIN)
            excess = len(self._connections) - self._config.max_connections
            if excess > 0:
                if tls is not None or excess > ACCEPTS:
                    connection.close()
                    continue
                error_ = Overloaded("too many connections; try again later")
                connection.answer(self.routes.error(error_), keep_alive=False)

    def _sweep(self) -> None:
        config = self._config
        for connection in list(self._connections.values()):
            if connection.overdue(config.request_seconds, config.idle_seconds):
                connection.close()
        if self._deaf:
            self._listen_again(listening=True)

    def _listen_again(self, *, listening: bool) -> None:
        self._deaf = not listening
        for descriptor in self._listeners:
            self._epoll.modify(descriptor, EPOLLIN if listening else 0)

    def _busy(self) -> bool:
        return bool(self._following) or any(c.busy for c in self._connections.values())

    def _close_listeners(self) -> None:
        for descriptor, listener in self._listeners.items():
            self._epoll.unregister(descriptor)
            listener.close()
        self._listeners.clear()
        self._config.socket_path.unlink(missing_ok=True)

    def _close_all(self) -> None:
        self._close_listeners()
        for connection in list(self._connections.values()):
            connection.close()
        self._epoll.close()


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
