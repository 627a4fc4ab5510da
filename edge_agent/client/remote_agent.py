"""`RemoteAgent`: an agent in another process, on this machine or in a field.

The errors are the agent's own: what `EdgeAgent.predict` raises there is raised here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from edge_agent.calls.contract import issued_at, new_request_id
from edge_agent.client.connections import Connections, Reply
from edge_agent.client.http import HttpTransport
from edge_agent.client.tensors import readings_body
from edge_agent.client.transport import Transport
from edge_agent.columns import Columns, Inputs, as_given
from edge_agent.contracts.errors import AgentUnreachable, InvalidInput, NotReady, ProtocolError
from edge_agent.contracts.observation import Reading
from edge_agent.prediction import Prediction

MAX_BATCH = 2**20
GLOBUS = "globus:"
#: Time for a call, s: over a socket, and through Globus Compute.
TIMEOUT, GLOBUS_TIMEOUT = 10.0, 120.0


class RemoteAgent:
    """A running agent.

    Any number of threads may call.

    Parameters
    ----------
    address : str
        ``unix:/path/agent.sock``, ``http://127.0.0.1:8470``, ``https://HOST:PORT``, or
        ``globus:ENDPOINT_ID`` for an agent behind a Globus Compute endpoint.
    timeout : float, optional, s
        For connecting and for each answer; 10 by default, 120 through Globus Compute.
    token : str, optional
        What the agent asks for over HTTP.
    ca_file : Path, optional
        Certificates to trust, PEM; the system's by default.
    functions : mapping, optional
        Through Globus Compute: the registered functions, name to identifier; by default they are
        looked up in the endpoint's allow-list.

    Raises
    ------
    InvalidConfig
        If the address is none of these, or `ca_file` cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        token: str | None = None,
        ca_file: Path | None = None,
        functions: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self._http: HttpTransport | None = None
        self._over: Transport
        if address.startswith(GLOBUS):
            from edge_agent.client.globus import GlobusTransport

            endpoint = address.removeprefix(GLOBUS)
            self._over = GlobusTransport(endpoint, timeout or GLOBUS_TIMEOUT, functions)
        else:
            connections = Connections(
                address, timeout=timeout or TIMEOUT, token=token, ca_file=ca_file
            )
            self._over = self._http = HttpTransport(connections)
        self._known: tuple[str, Columns] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections; a later call makes new ones."""
        self._over.close()

    @property
    def poll_seconds(self) -> float:
        """How often it is reasonable to look for a change, s."""
        return self._over.poll_seconds

    def status(self) -> dict[str, Any]:
        """Return the agent's status; see docs/edge-agent.md."""
        return self._over.status()

    def releases(self) -> dict[str, Any]:
        """Return the releases on the device, newest first; see docs/globus.md."""
        return self._over.releases()

    def ready(self) -> bool:
        """Whether the agent is there and serves a release."""
        try:
            if self._http is None:
                return bool(self.status()["ready"])
            return self.request("GET", "/v2/health/ready").status == 200
        except AgentUnreachable:
            return False

    def predict(
        self, inputs: Inputs, *, version: int | None = None, request_id: str | None = None
    ) -> Prediction:
        """Predict; see `EdgeAgent.predict` for inputs and errors.

        Parameters
        ----------
        inputs : mapping or array
        version : int, optional
            A loaded version other than the active one.
        request_id : str, optional
            Of `request_id`: asking again with it gives the same answer, also from another process.

        Raises
        ------
        InvalidInput, NotReady, NoSuchRelease
            As there.
        AgentUnreachable
            If nobody answers.
        """
        if request_id is not None:
            issued_at(request_id)
        name, rows, given = self._rows(inputs)
        try:
            return self._over.predict(rows, given, name, version=version, request_id=request_id)
        except InvalidInput:
            self._known = None  # the release may take other columns by now
            raise

    def pull(self, *, request_id: str | None = None) -> int | None:
        """Make the agent look for a release now; return what serves then. Not over TCP."""
        return self._state("pull", request_id)

    def rollback(self, *, request_id: str | None = None) -> int:
        """Return to the previous release; return its version. Not over TCP.

        Raises
        ------
        NoSuchRelease
            If there is none.
        ProtocolError
            Over TCP.
        """
        return int(self._call("rollback", {}, request_id)["active"])

    def promote(self, version: int, *, request_id: str | None = None) -> int:
        """Let a release on the device serve now, whatever its trial has shown. Not over TCP.

        Raises
        ------
        NoSuchRelease
            If it is not on the device.
        ReleaseError
            If it is withdrawn, damaged or fails its golden examples, or another one is pinned.
        ProtocolError
            Over TCP.
        """
        return int(self._call("promote", {"version": version}, request_id)["active"])

    def pin(self, version: int, *, request_id: str | None = None) -> int:
        """Let a release on the device serve, and stay; see `promote`."""
        return int(self._call("pin", {"version": version}, request_id)["active"])

    def unpin(self, *, request_id: str | None = None) -> int | None:
        """Let the device follow its channel again; return what serves. Not over TCP."""
        return self._state("unpin", request_id)

    def hold(self, *, request_id: str | None = None) -> int | None:
        """Stop updates; return what serves. Not over TCP."""
        return self._state("hold", request_id)

    def unhold(self, *, request_id: str | None = None) -> int | None:
        """Let updates go on; return what serves. Not over TCP."""
        return self._state("unhold", request_id)

    def result(self, request_id: str) -> dict[str, Any] | None:
        """Return what an earlier call gave, as JSON values; none while it is under way.

        Raises
        ------
        RbfError
            The call's own error, if it ended with one.
        NoSuchRequest
            If the agent knows no such call.
        RequestExpired
            If its outcome is no longer kept.
        """
        issued_at(request_id)
        return self._over.result(request_id)

    @staticmethod
    def request_id() -> str:
        """Return a fresh identifier for a call: keep it to ask again after a crash of your own."""
        return new_request_id(time.time())

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
        ProtocolError
            Through Globus Compute, which is no way for readings.
        AgentUnreachable
            If nobody answers.
        """
        return self._direct().ok("POST", "/rbf/v1/readings", readings_body(readings)).json()

    def readings(self, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Return kept readings after a sequence number, oldest first, at most 1000 at once."""
        path = f"/rbf/v1/readings?after={after}&limit={limit}"
        found: list[dict[str, Any]] = self._direct().ok("GET", path).json()["readings"]
        return found

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
            time.sleep(self.poll_seconds)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one HTTP request; return whatever the agent answers. See `Connections.request`."""
        return self._direct().connections.request(method, path, body, headers)

    def _state(self, command: str, request_id: str | None) -> int | None:
        version = self._call(command, {}, request_id)["active"]
        return None if version is None else int(version)

    def _call(
        self, command: str, arguments: dict[str, Any], request_id: str | None
    ) -> dict[str, Any]:
        if request_id is None:
            request_id = self.request_id()
        issued_at(request_id)
        return self._over.call(command, arguments, request_id)

    def _direct(self) -> HttpTransport:
        if self._http is None:
            msg = f"{self.address}: this needs a socket or HTTP address; Globus Compute is no way"
            raise ProtocolError(msg, status=405)
        return self._http

    def _rows(self, inputs: Inputs) -> tuple[str, np.ndarray, tuple[str, ...]]:
        """Return the model's name, and inputs as they are sent."""
        if self._known is not None:
            name, columns = self._known
            try:
                return name, *as_given(inputs, columns, MAX_BATCH)
            except InvalidInput:
                self._known = None  # as below
        name, columns = self._model()
        return name, *as_given(inputs, columns, MAX_BATCH)

    def _model(self) -> tuple[str, Columns]:
        if self._known is None:
            status = self.status()
            if status["columns"] is None:
                msg = f"no release of {status['site']!r} is loaded yet; try again later"
                raise NotReady(msg, name=status["site"])
            columns = Columns(tuple(status["columns"]), status.get("defaults") or {})
            self._known = (status["site"], columns)
        return self._known
