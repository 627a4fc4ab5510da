"""A web server for a folder that can be told to misbehave."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Site:
    """What is served; `tricks` by a part of the path replace the answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tricks: dict[str, Callable[[Handler, bytes], None]] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.bytes_sent = 0
        self.token: str | None = None
        self.gone = threading.Event()
        """Set when the test is over, for tricks that never end."""

    def asked(self, part: str) -> list[tuple[str, str | None]]:
        """The requests whose path contains `part`."""
        return [r for r in self.requests if part in r[0]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site


class Handler(BaseHTTPRequestHandler):
    """GET with byte ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16
    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        path = unquote(urlsplit(self.path).path).lstrip("/")
        asked = self.headers.get("Range")
        site.requests.append((path, asked))
        if site.token and self.headers.get("Authorization") != f"Bearer {site.token}":
            self.answer(401, b"")
            return
        file = site.folder / path
        data = file.read_bytes() if file.is_file() else None
        trick = next((t for part, t in site.tricks.items() if part in path), None)
        if trick is not None and data is not None:
            trick(self, data)
        elif data is None:
            self.answer(404, b"not there")
        elif asked is None:
            self.answer(200, data)
        else:
            first = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if first >= len(data):
                self.answer(416, b"")
            else:
                span = f"bytes {first}-{len(data) - 1}/{len(data)}"
                self.answer(206, data[first:], {"Content-Range": span})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.head(status, len(data), headers)
        self.send(data)

    def head(self, status: int, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()
        self.server.site.bytes_sent += len(data)

    def cut(self) -> None:
        """Break the connection."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):  # the client has gone, as some tests want
            self.close_connection = True

    def finish(self) -> None:
        with suppress(ConnectionError, ValueError):
            super().finish()

    def log_message(self, *_: object) -> None:
        pass


def endless(handler: Handler, data: bytes) -> None:
    """The file, and then more and more."""
    handler.head(200, None)
    handler.send(data)
    while not handler.server.site.gone.is_set():
        handler.send(bytes(2**16))


def trickle(handler: Handler, data: bytes) -> None:
    """A byte now and then, each in time for whoever waits for the next one only."""
    handler.head(200, len(data))
    for i in range(len(data)):
        handler.send(data[i : i + 1])
        if handler.server.site.gone.wait(0.05):
            return


def trickle_head(handler: Handler, _data: bytes) -> None:
    """Headers that never end."""
    handler.close_connection = True
    handler.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.site.gone.wait(0.05):
        handler.send(b"z")


def silent(handler: Handler, _data: bytes) -> None:
    """No answer at all."""
    handler.server.site.gone.wait(60)


@contextmanager
def website(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, Site]]:
    """Serve a folder; yields its address and what can be changed about it."""
    server = Server(("127.0.0.1", 0), Handler)
    server.site = site = Site(folder)
    if context is not None:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    scheme = "http" if context is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{server.server_port}/", site
    finally:
        site.gone.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
