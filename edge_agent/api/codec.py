"""HTTP/1.1 without sockets: bytes in, requests out; responses in, bytes out.

Strict where laxness is dangerous: CRLF line ends only, no folded headers, at most one
Content-Length, no chunked bodies, everything bounded. Anything else is a `ProtocolError` with the
HTTP status to answer before closing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from edge_agent.contracts.errors import ProtocolError

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]{1,8000}) HTTP/(\d)\.(\d)")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,15}")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may weigh, bytes."""

    head: int = 16 * 1024
    """Request line and headers."""
    body: int = 4 * 2**20
    """Body."""


class Head(NamedTuple):
    """A request without its body."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Lower-case names."""
    keep_alive: bool
    length: int
    """Of the body, bytes."""


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Lower-case names."""
    keep_alive: bool
    """Whether the connection stays open after the answer."""
    body: bytes


Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; the body comes in pieces so that arrays are not copied twice."""

    status: int
    body: Sequence[Buffer] = ()
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = field(default=())
    """Further headers."""
    after: Callable[[], None] | None = None
    """What to do once the answer has gone out."""


class RequestParser:
    """Cuts a stream of bytes into requests.

    `feed` bytes as they come, then call `next_request` until it gives none. The requests do not
    depend on how the stream was cut. After a `ProtocolError` the connection is to be closed.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        # A request that came whole is read where it lies; only what is cut is gathered.
        self._data: bytes | bytearray = b""
        self._at = 0
        self._head: Head | None = None
        self._announced = False

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        if self._at == len(self._data):
            self._data, self._at = data, 0
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(memoryview(self._data)[self._at :])
            self._data += data
            self._at = 0

    @property
    def pending(self) -> bool:
        """Whether part of a request has come."""
        return self._at < len(self._data) or self._head is not None

    def take_continue(self) -> bool:
        """Whether the client waits to be told to send its body; true once per request."""
        head = self._head
        if head is None or self._announced or head.headers.get("expect") is None:
            return False
        self._announced = True
        return len(self._data) - self._at < head.length

    def next_request(self) -> Request | None:
        """Return the next whole request, or none.

        Raises
        ------
        ProtocolError
            With the HTTP status in ``.status``.
        """
        head = self._head
        if head is None:
            head = self._head = self._next_head()
            self._announced = False
            if head is None:
                return None
        end = self._at + head.length
        if len(self._data) < end:
            return None
        body = bytes(self._data[self._at : end])
        self._skip_to(end)
        self._head = None
        return Request(head.method, head.path, head.query, head.headers, head.keep_alive, body)

    def _next_head(self) -> Head | None:
        data = self._data
        while data.startswith(b"\r\n", self._at):  # RFC 9112 section 2.2: empty lines before
            self._at += 2
        limit = self._limits.head
        end = data.find(b"\r\n\r\n", self._at, self._at + limit)
        if end < 0:
            if len(data) - self._at >= limit:
                raise _error(431, f"request line and headers exceed {limit} bytes")
            return None
        head = _parse_head(bytes(data[self._at : end]))
        if head.length > self._limits.body:
            raise _error(413, f"body of {head.length} bytes; at most {self._limits.body}")
        self._skip_to(end + 4)
        return head

    def _skip_to(self, at: int) -> None:
        if isinstance(self._data, bytearray):
            del self._data[:at]
            self._at = 0
        else:
            self._at = at


def encode_response(response: Response, *, keep_alive: bool) -> list[Buffer]:
    """Return the bytes of a response, in pieces."""
    body = response.body
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n" % (
        _status_line(response.status),
        sum(len(piece) for piece in body),
    )
    if body:
        head += b"Content-Type: %b\r\n" % response.content_type.encode("latin-1")
    for name, value in response.headers:
        head += f"{name}: {value}\r\n".encode("latin-1")
    if not keep_alive:
        head += b"Connection: close\r\n"
    if not body:
        return [head + b"\r\n"]
    # Head and first piece, both short, as one: fewer pieces for the kernel to gather.
    return [b"".join((head, b"\r\n", body[0])), *body[1:]]


def decoded_body(request: Request, limit: int) -> bytes:
    """Return the body with its Content-Encoding (gzip, deflate) undone.

    Raises
    ------
    ProtocolError
        For another encoding, broken data, or more than `limit` bytes.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return request.body
    if encoding not in ("gzip", "deflate"):
        raise _error(415, f"content encoding {encoding!r}; gzip, deflate and identity are known")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        data = inflater.decompress(request.body, limit + 1)
    except zlib.error as error:
        raise _error(400, f"the body is not {encoding}: {error}") from error
    if len(data) > limit:
        raise _error(413, f"the body inflates to more than {limit} bytes")
    if not inflater.eof:
        raise _error(400, f"the {encoding} body is truncated")
    return data


# Clients repeat themselves: the same head is parsed once.
@lru_cache(maxsize=256)
def _parse_head(data: bytes) -> Head:
    first, *lines = data.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise _error(400, "malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise _error(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if not target.startswith(b"/"):
        raise _error(400, "the request target must be a path")
    headers = _parse_headers(lines)
    if minor == b"1" and "host" not in headers:
        raise _error(400, "the Host header is missing")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (minor == b"1" or "keep-alive" in connection)
    path, _, query = target.decode("ascii").partition("?")
    length = _body_length(headers)
    return Head(method.decode("ascii"), path, query, headers, keep_alive, length)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise _error(400, "malformed header line")
        name = match[1].decode("ascii").lower()
        if name in headers:
            if name in ("content-length", "host", "inference-header-content-length"):
                raise _error(400, f"header {name} is given twice")
            headers[name] += ", " + match[2].decode("latin-1")
        else:
            headers[name] = match[2].decode("latin-1")
    return headers


def _body_length(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None:
            raise _error(400, "both Content-Length and Transfer-Encoding are given")
        raise _error(411, "chunked bodies are not accepted: send Content-Length")
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise _error(400, f"Content-Length {length!r} is not a number of bytes")
    return int(length)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"{status} {phrase}".encode("latin-1")


def _error(status: int, message: str) -> ProtocolError:
    return ProtocolError(message, status=status)
