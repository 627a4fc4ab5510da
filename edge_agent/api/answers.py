"""What every handler needs: callers, answers, errors as answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import msgspec
import structlog

from edge_agent.api.codec import Request, Response
from edge_agent.contracts.errors import (
    InvalidInput,
    InvalidReading,
    NoSuchRelease,
    NoSuchRequest,
    NotReady,
    Overloaded,
    ProtocolError,
    RbfError,
    RequestExpired,
    SpoolError,
    Unauthorised,
)
from edge_agent.metrics import Counters

log = structlog.get_logger(__name__)

Answer = Response | Future[Response]

#: Says which of our errors an error response is, so that a client can raise it again.
ERROR_HEADER = "RBF-Error"
STATUS = {
    InvalidInput: 400,
    InvalidReading: 400,
    Unauthorised: 401,
    NoSuchRelease: 404,
    NoSuchRequest: 404,
    RequestExpired: 410,
    NotReady: 503,
    Overloaded: 503,
    SpoolError: 503,
}
#: Errors that have a counter of their own.
COUNTED = {
    NotReady: "refused_not_ready",
    Overloaded: "refused_overload",
    Unauthorised: "refused_token",
}
_json = msgspec.json.Encoder().encode


class Caller(Protocol):
    """Who asks."""

    local: bool
    """Whether over the Unix socket, which alone may change state."""

    def peer(self) -> str:
        """Return who it is, for the audit record."""
        ...


Handler = Callable[[Request, Caller], Answer]


def ok(value: Any) -> Response:  # noqa: ANN401 - any JSON value
    """Return an answer of JSON."""
    return Response(200, [_json(value)])


def error_response(
    error: BaseException, counters: Counters, *, kept: int | None = None
) -> Response:
    """Return the answer for an error, and count it."""
    name, message = type(error).__name__, str(error)
    if isinstance(error, ProtocolError):
        status = int(error.status)
    else:
        status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 500)
    counter = next((c for kind, c in COUNTED.items() if isinstance(error, kind)), None)
    if counter is None and status < 500:
        counter = "invalid"
    if counter is not None:
        setattr(counters, counter, getattr(counters, counter) + 1)
    if status == 500:
        counters.failed += 1
        log.error("request failed", exc_info=error)
        if not isinstance(error, RbfError):
            name, message = "RbfError", "internal error; the agent's log has the details"
    body: dict[str, Any] = {"error": message}
    if kept is not None:
        body["kept"] = kept
    return Response(status, [_json(body)], headers=[(ERROR_HEADER, name), *_hints(error)])


def _hints(error: BaseException) -> list[tuple[str, str]]:
    if isinstance(error, ProtocolError) and error.status == 405:
        return [("Allow", error.allow)]
    if isinstance(error, Unauthorised):
        return [("WWW-Authenticate", "Bearer")]
    if isinstance(error, Overloaded):
        return [("Retry-After", "1")]
    return []


def when(
    done: Future[Any],
    answer: Callable[[Any], Response],
    failed: Callable[[BaseException], Response],
) -> Future[Response]:
    """Return the future of the answer that `done` leads to."""
    later: Future[Response] = Future()

    def finish(future: Future[Any]) -> None:
        error = future.exception()
        try:
            later.set_result(answer(future.result()) if error is None else failed(error))
        except Exception as problem:  # noqa: BLE001 - an answer must come, or the connection hangs
            later.set_result(failed(problem))

    done.add_done_callback(finish)
    return later
