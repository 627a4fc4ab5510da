"""A small JSON server that can be down, or silent."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from .service import Faults

Answer = Callable[[str, str, dict[str, Any], int], Any]


class Problem(Exception):
    """An answer with an error's status, in the service's form."""

    def __init__(self, status: int, reason: str, code: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.body = {
            "status": "Failed",
            "code": code or status,
            "reason": reason,
            "http_status_code": status,
            "error_args": [],
        }


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    answer: Answer
    faults: Faults

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        return not self.faults.down

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of ours."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment
    server: _Server

    def _go(self) -> None:
        faults = self.server.faults
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        while faults.silent:
            time.sleep(0.1)
        if faults.down:  # a connection that was kept from before
            self.close_connection = True
            return
        try:
            status, answer = 200, self._answered(raw)
        except Problem as problem:
            status, answer = problem.status, problem.body
        except Exception as error:  # noqa: BLE001 - the SDK shows it
            traceback.print_exc()
            status, answer = 500, {"reason": repr(error), "code": 500}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _go  # noqa: N815 - the base class's names

    def _answered(self, raw: bytes) -> Any:
        path = urlsplit(self.path).path
        if "x-www-form-urlencoded" in (self.headers.get("content-type") or ""):
            body: Any = dict(parse_qsl(raw.decode()))
        else:
            body = json.loads(raw) if raw else {}
        shown = self.headers.get("authorization", "")
        wanted = "Basic " if path == "/v2/oauth2/token" else "Bearer loopback-"
        if path != "/v2/version" and not shown.startswith(wanted):
            raise Problem(401, "credentials are missing")
        return self.server.answer(self.command, path, body, len(raw))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Web:
    """The server on a thread of its own, loopback alone."""

    def __init__(self, port: int, answer: Answer, faults: Faults) -> None:
        socketserver.TCPServer.allow_reuse_address = True
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.answer = answer
        self._server.faults = faults
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="standin-web", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
