"""Calls and the list of releases over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edge_agent.agent import EdgeAgent
from edge_agent.api.answers import Answer, Caller, ok, when
from edge_agent.api.codec import Request, Response, decoded_body
from edge_agent.calls.contract import CHANGING, Outcome, decode_call, issued_at
from edge_agent.calls.service import Calls
from edge_agent.contracts.errors import ProtocolError, RequestExpired
from edge_agent.inventory import releases

REQUESTS = "/rbf/v1/requests/"


class Remote:
    """The paths that remote callers use.

    Parameters
    ----------
    agent : EdgeAgent
        Started.
    failed : callable
        Gives the answer for an error.
    """

    def __init__(self, agent: EdgeAgent, failed: Callable[[BaseException], Response]) -> None:
        self._agent = agent
        self._failed = failed
        self._calls: Calls | None = None

    @property
    def calls(self) -> Calls:
        """Made when the first call comes."""
        if self._calls is None:
            self._calls = Calls(self._agent)
        return self._calls

    def close(self) -> None:
        """Finish what is under way."""
        if self._calls is not None:
            self._calls.close()

    def put(self, request: Request, caller: Caller) -> Answer:
        """Carry a call out, or give its outcome again."""
        request_id = _request_id(request.path)
        call = decode_call(decoded_body(request, self._agent.config.max_body_bytes))
        if call.command in CHANGING and not caller.local:
            msg = f"{call.command} changes state: it goes over the agent's Unix socket alone"
            raise ProtocolError(msg, status=403)
        done = self.calls.ask(request_id, call, by=caller.peer())
        return when(done, _outcome, self._failed)

    def get(self, request: Request, _caller: Caller) -> Answer:
        """Give the outcome of a call, or say that it is not over: 202."""
        request_id = _request_id(request.path)
        row = self.calls.find(request_id)
        if row.state == "dropped":
            msg = f"call {request_id} was carried out, and its outcome is no longer kept"
            raise RequestExpired(msg, request_id=request_id)
        if row.outcome is None:
            return Response(202, ok({"state": row.state}).body)
        return _outcome(row.outcome)

    def releases(self, _request: Request, _caller: Caller) -> Answer:
        """List the releases that are here, newest first."""
        promotion = self._agent.promotion
        active = promotion.slots.pair.active
        return ok(
            {
                "active": None if active is None else active.version,
                "held": promotion.state.held,
                "releases": releases(promotion),
            }
        )


def _outcome(outcome: Outcome) -> Response:
    # A failure is an outcome too: it was recorded, and will be the same when asked for again.
    return ok({"state": "ended", **msgspec.to_builtins(outcome)})


def _request_id(path: str) -> str:
    found = path.removeprefix(REQUESTS)
    issued_at(found)
    return found
