"""The agent's HTTP interface, over its Unix socket or TCP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from edge_agent.calls.contract import Outcome, prediction_from
from edge_agent.client.connections import Connections, Reply
from edge_agent.client.tensors import error_of, infer_request, prediction_of
from edge_agent.contracts.errors import ProtocolError
from edge_agent.prediction import Prediction

_json = msgspec.json.Encoder().encode


class HttpTransport:
    """See `Transport`.

    Parameters
    ----------
    connections : Connections
        To the agent.
    """

    poll_seconds = 0.05

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    def status(self) -> dict[str, Any]:
        """Return the agent's status."""
        return self.ok("GET", "/rbf/v1/status").json()

    def releases(self) -> dict[str, Any]:
        """Return the releases on the device."""
        return self.ok("GET", "/rbf/v1/releases").json()

    def predict(
        self,
        rows: np.ndarray,
        columns: tuple[str, ...],
        name: str,
        *,
        version: int | None,
        request_id: str | None,
    ) -> Prediction:
        """Predict over binary tensors; with an identifier, as a call that is remembered."""
        if request_id is not None:
            arguments = {"inputs": rows.tolist(), "columns": columns, "version": version}
            return prediction_from(self.call("predict", arguments, request_id), rows)
        at = f"/v2/models/{name}" + ("" if version is None else f"/versions/{version}") + "/infer"
        return prediction_of(self.ok("POST", at, *infer_request(rows, columns)), rows)

    def call(self, command: str, arguments: dict[str, Any], request_id: str) -> dict[str, Any]:
        """Have a command carried out once; return its result, or raise its error."""
        return self.outcome(command, arguments, request_id).unwrap()

    def outcome(self, command: str, arguments: dict[str, Any], request_id: str) -> Outcome:
        """Have a command carried out once; return how it ended."""
        body = _json({"command": command, "arguments": arguments})
        return _outcome(self.ok("PUT", f"/rbf/v1/requests/{request_id}", body))

    def result(self, request_id: str) -> dict[str, Any] | None:
        """Return the result of an earlier call, or raise its error; none while it is under way."""
        found = self.found(request_id)
        return None if found is None else found.unwrap()

    def found(self, request_id: str) -> Outcome | None:
        """Return how an earlier call ended; none while it is under way."""
        reply = self.ok("GET", f"/rbf/v1/requests/{request_id}")
        return None if reply.status == 202 else _outcome(reply)

    def close(self) -> None:
        """Close the idle connections."""
        self.connections.close()

    def ok(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request; return the answer if it is no error, and raise it if it is."""
        reply = self.connections.request(method, path, body, headers)
        if reply.status < 300:
            return reply
        raise error_of(reply)


def _outcome(reply: Reply) -> Outcome:
    try:
        return msgspec.json.decode(reply.body, type=Outcome)
    except msgspec.MsgspecError as error:
        msg = f"the agent's answer is no outcome of a call: {error}"
        raise ProtocolError(msg, status=reply.status) from error
