"""`RemoteAgent`: an agent in another process, over its Unix socket or loopback HTTP.

The errors are the agent's own: what `EdgeAgent.predict` raises there is raised here.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import numpy as np

from edge_agent.contracts import errors
from edge_agent.contracts.errors import (
    AgentUnreachable,
    InvalidConfig,
    InvalidInput,
    NotReady,
    ProtocolError,
    RbfError,
)
from edge_agent.contracts.observation import Reading
from edge_agent.prediction import Inputs, Prediction, as_rows

MAX_BATCH = 2**20
_json = msgspec.json.Encoder().encode


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


class RemoteAgent:
    """A running agent.

    Connections are kept and reused; any number of threads may call.

    Parameters
    ----------
    address : str
        ``unix:/path/agent.sock``, ``http://127.0.0.1:8470`` or ``https://HOST:PORT``.
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
        self,
        address: str,
        *,
        timeout: float = 10.0,
        token: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._path, self._host, self._port = parse_address(address)
        self._tls = _client_context(ca_file) if address.startswith("https:") else None
        self._always = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._known: tuple[str, tuple[str, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return the agent's status; see docs/edge-agent.md."""
        return self._ok("GET", "/rbf/v1/status").json()

    def ready(self) -> bool:
        """Whether the agent is there and serves a release."""
        try:
            return self.request("GET", "/v2/health/ready").status == 200
        except AgentUnreachable:
            return False

    def predict(self, inputs: Inputs, *, version: int | None = None) -> Prediction:
        """Predict, over binary tensors; see `EdgeAgent.predict` for inputs and errors.

        Raises
        ------
        InvalidInput, NotReady, NoSuchRelease
            As there.
        AgentUnreachable
            If nobody answers.
        """
        name, columns = self._model()
        rows = as_rows(inputs, columns, MAX_BATCH)
        head = _json(
            {
                "inputs": [
                    {
                        "name": "inputs",
                        "shape": rows.shape,
                        "datatype": "FP32",
                        "parameters": {"binary_data_size": rows.nbytes},
                    }
                ],
                "parameters": {"binary_data_output": True, "columns": ",".join(columns)},
            }
        )
        at = f"/v2/models/{name}" + ("" if version is None else f"/versions/{version}") + "/infer"
        size = {"Inference-Header-Content-Length": str(len(head))}
        try:
            reply = self._ok("POST", at, head + rows.astype("<f4").tobytes(), size)
        except InvalidInput:
            self._known = None  # the release may take other columns by now
            raise
        return _prediction(reply, rows)

    def post_readings(self, readings: Sequence[Reading]) -> dict[str, Any]:
        """Send one instant's readings; return the agent's answer to them.

        Raises
        ------
        NotReady
            Before the first release; ``.kept`` says how many are on its disk.
        InvalidReading
            If a reading is bad; ``.kept`` says how many good ones are kept.
        SpoolError
            If the agent cannot keep readings now.
        AgentUnreachable
            If nobody answers.
        """
        return self._ok("POST", "/rbf/v1/readings", readings_body(readings)).json()

    def readings(self, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Return kept readings after a sequence number, oldest first, at most 1000 at once."""
        answer = self._ok("GET", f"/rbf/v1/readings?after={after}&limit={limit}").json()
        found: list[dict[str, Any]] = answer["readings"]
        return found

    def rollback(self) -> int:
        """Return to the previous release; return its version. Unix socket only.

        Raises
        ------
        NoSuchRelease
            If there is none.
        ProtocolError
            Over TCP.
        """
        self.close()  # on a fresh connection, which is never repeated: once is once
        return int(self._ok("POST", "/rbf/v1/rollback", b"").json()["active"])

    def pull(self) -> int | None:
        """Make the agent look for a release now; return what serves then. Unix socket only."""
        version = self._ok("POST", "/rbf/v1/pull", b"").json()["active"]
        return None if version is None else int(version)

    def wait_serving(self, version: int = 1, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until a release of at least `version` serves; return the status.

        Raises
        ------
        NotReady
            If it does not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        seen: int | AgentUnreachable | None = None
        while True:
            try:
                status = self.status()
                active: int | None = status["active"]
                if active is not None and active >= version:
                    return status
                seen = active
            except AgentUnreachable as error:
                seen = error
            if time.monotonic() >= deadline:
                msg = f"{self.address} does not serve version {version} yet; last seen: {seen}"
                raise NotReady(msg, version=version)
            time.sleep(0.05)

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

    def _ok(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        reply = self.request(method, path, body, headers)
        if reply.status < 300:
            return reply
        raise error_of(reply)

    def _model(self) -> tuple[str, tuple[str, ...]]:
        if self._known is None:
            status = self.status()
            if status["columns"] is None:
                msg = f"no release of {status['site']!r} is loaded yet; try again later"
                raise NotReady(msg, name=status["site"])
            self._known = (status["site"], tuple(status["columns"]))
        return self._known

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


def readings_body(readings: Sequence[Reading]) -> bytes:
    """Return the body of ``POST /rbf/v1/readings``."""
    return _json({"readings": [r._asdict() for r in readings]})


def error_of(reply: Reply) -> RbfError:
    """Return the error that an answer stands for."""
    try:
        body = reply.json()
    except ProtocolError:
        body = {}
    message = str(body.pop("error", f"the agent answered with status {reply.status}"))
    name = reply.headers.get("RBF-Error") or "ProtocolError"
    kind = getattr(errors, name, ProtocolError)
    if not (isinstance(kind, type) and issubclass(kind, RbfError)):
        kind = ProtocolError
    return kind(message, status=reply.status, **{k: v for k, v in body.items() if k == "kept"})


def _prediction(reply: Reply, rows: np.ndarray) -> Prediction:
    try:
        split = int(reply.headers["Inference-Header-Content-Length"])
        head = msgspec.json.decode(memoryview(reply.body)[:split])
        arrays: dict[str, np.ndarray] = {}
        at = split
        for output in head["outputs"]:
            size = output["parameters"]["binary_data_size"]
            piece = memoryview(reply.body)[at : at + size]
            arrays[output["name"]] = np.frombuffer(piece, "<f4").reshape(output["shape"])
            at += size
        said = head["parameters"]
        outside = np.zeros(len(rows), dtype=bool)
        outside[[int(i) for i in said.get("out_of_range_rows", "").split(",") if i]] = True
        return Prediction(
            version=said["release_version"],
            wind=arrays["wind"],
            wind_std=arrays["wind_std"],
            out_of_range=outside,
            staleness_seconds=said.get("staleness_seconds"),
            interval_factor=said["interval_factor"],
            data_time=said.get("data_time"),
            wall_time=said["wall_time"],
            inputs=rows,
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        msg = f"the agent's answer cannot be read: {error!r}"
        raise ProtocolError(msg, status=reply.status) from error


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
