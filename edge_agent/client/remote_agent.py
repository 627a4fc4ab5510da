"""`RemoteAgent`: an agent in another process, over its Unix socket or loopback HTTP.

The errors are the agent's own: what `EdgeAgent.predict` raises there is raised here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from edge_agent.client.connections import Connections, Reply
from edge_agent.client.tensors import error_of, prediction_of, readings_body
from edge_agent.contracts.errors import AgentUnreachable, InvalidInput, NotReady
from edge_agent.contracts.observation import Reading
from edge_agent.prediction import Inputs, Prediction, as_rows

MAX_BATCH = 2**20
_json = msgspec.json.Encoder().encode


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
        self._connections = Connections(address, timeout=timeout, token=token, ca_file=ca_file)
        self._known: tuple[str, tuple[str, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

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
        return prediction_of(reply, rows)

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
        """Send one request; return whatever the agent answers. See `Connections.request`."""
        return self._connections.request(method, path, body, headers)

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
