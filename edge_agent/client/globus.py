"""An agent behind a Globus Compute endpoint.

A result can get lost on its way: a cut without a reset, an endpoint or a client that ends. So
every call has an identifier under which the agent remembers its outcome, and whoever has no answer
after a while asks again, through a fresh Executor. Nothing is carried out twice.
"""

from __future__ import annotations

import concurrent.futures
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edge_agent.calls.contract import (
    VERSION,
    Outcome,
    joined,
    new_request_id,
    part_id,
    prediction_from,
)
from edge_agent.client.compute import Compute, typed
from edge_agent.client.limits import check_size
from edge_agent.contracts.errors import (
    AgentUnreachable,
    EndpointOffline,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    ProtocolError,
)
from edge_agent.prediction import Prediction

#: Without an answer for so long, s, a call is asked again; then after longer each time.
PATIENCE_SECONDS, PATIENCE_GROWTH, MAX_PATIENCE_SECONDS = 15.0, 1.5, 60.0
#: After a refusal that may pass, s.
PAUSE_SECONDS = 1.0

Request = dict[str, Any]


class GlobusTransport:
    """See `Transport`.

    Parameters
    ----------
    endpoint : str
        Identifier of the endpoint.
    timeout : float, s
        For each call, with all that is done to get its answer.
    functions : mapping, optional
        Name to identifier of the registered functions; looked up in the allow-list by default.

    Raises
    ------
    InvalidConfig
        If the identifier is none, or the SDK is not installed.
    """

    poll_seconds = 2.0

    def __init__(self, endpoint: str, timeout: float, functions: Mapping[str, str] | None) -> None:
        self._compute = Compute(endpoint, functions)
        self._timeout = timeout

    def status(self) -> dict[str, Any]:
        """Return the agent's status."""
        return self._ask("status", [_request()])[0].unwrap()

    def releases(self) -> dict[str, Any]:
        """Return the releases on the device."""
        return self._ask("releases", [_request()])[0].unwrap()

    def predict(
        self,
        rows: np.ndarray,
        columns: tuple[str, ...],
        name: str,  # noqa: ARG002 - an endpoint has one agent, and it one model
        *,
        version: int | None,
        request_id: str | None,
    ) -> Prediction:
        """Predict all rows in one call, or in as few as the limit on results allows."""
        request_id = request_id or new_request_id(time.time())

        def ask(parts: Sequence[np.ndarray]) -> list[Outcome]:
            return self._ask(
                "predict",
                [
                    _request(
                        request_id if len(parts) == 1 else part_id(request_id, i, len(parts)),
                        {"inputs": part.tolist(), "columns": list(columns), "version": version},
                    )
                    for i, part in enumerate(parts)
                ],
            )

        try:
            return prediction_from(ask([rows])[0].unwrap(), rows)
        except PayloadTooLarge as error:
            size, limit = error.data.get("size"), error.data.get("limit")
            if not size or not limit or len(rows) == 1:
                raise
        # The size is that of the whole; a tenth more makes up for parts that deflate less well.
        parts = np.array_split(rows, min(len(rows), math.ceil(1.1 * size / limit)))
        outcomes = zip(ask(parts), parts, strict=True)
        return joined([prediction_from(found.unwrap(), part) for found, part in outcomes])

    def call(self, command: str, arguments: dict[str, Any], request_id: str) -> dict[str, Any]:
        """Have a command carried out once; return its result, or raise its error."""
        return self._ask(command, [_request(request_id, arguments)])[0].unwrap()

    def result(self, request_id: str) -> dict[str, Any] | None:
        """Return the result of an earlier call, or raise its error; none while it is under way."""
        found = self._ask("result", [_request(request_id)])[0].unwrap()
        return None if found == {"state": "begun"} else found

    def close(self) -> None:
        """Let go of the Executor; a later call makes a fresh one."""
        self._compute.close()

    def _ask(self, name: str, requests: Sequence[Request]) -> list[Outcome]:
        """Return the outcomes of requests to one function.

        Raises
        ------
        InvalidInput, PayloadTooLarge, Overloaded
            Before anything is sent.
        RemoteRefused, Unauthorised
            If asking again is useless.
        EndpointOffline, ServiceUnreachable
            If there is no answer in time; ``.request_ids`` are the identifiers to ask again with.
        """
        try:
            check_size(requests)
        except (TypeError, ValueError) as error:
            msg = f"the arguments are not plain JSON: {error}"
            raise InvalidInput(msg) from error
        wait = self._compute.limit.wait()
        if wait > self._timeout:
            msg = f"20 requests in 10 s are all that the service takes: wait {wait:.1f} s"
            raise Overloaded(msg)
        deadline = time.monotonic() + self._timeout
        outcomes: dict[int, Outcome] = {}
        trouble: AgentUnreachable | None = None
        patience = PATIENCE_SECONDS
        while len(outcomes) < len(requests):
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._silence(name, requests, trouble)
            missing = {i: r for i, r in enumerate(requests) if i not in outcomes}
            trouble = self._attempt(name, missing, outcomes, min(patience, left))
            if trouble is None:
                patience = min(patience * PATIENCE_GROWTH, MAX_PATIENCE_SECONDS)
            else:
                time.sleep(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
        return [outcomes[i] for i in range(len(requests))]

    def _attempt(
        self,
        name: str,
        requests: Mapping[int, Request],
        outcomes: dict[int, Outcome],
        patience: float,
    ) -> AgentUnreachable | None:
        """Send requests and put into `outcomes` what comes back; return what went wrong, if told.

        Parameters
        ----------
        patience : float, s
            Longest wait.
        """
        endpoint = self._compute.endpoint
        futures: dict[concurrent.futures.Future[Any], int] = {}
        executors = []
        try:
            for number, request in requests.items():
                executor, future = self._compute.submit(name, request, patience)
                executors.append(executor)
                futures[future] = number
        except AgentUnreachable as error:
            for executor in executors:
                self._compute.give_up(executor)
            return error
        done, late = concurrent.futures.wait(futures, patience)
        trouble: AgentUnreachable | None = None
        for future in done:
            problem: BaseException | None
            try:
                problem = future.exception()
            except concurrent.futures.CancelledError as cancelled:  # with another call's Executor
                problem = cancelled
            if problem is None:
                outcomes[futures[future]] = _outcome(future.result())
                continue
            ours = typed(problem, endpoint, name)
            if not isinstance(ours, AgentUnreachable):
                raise ours from problem
            trouble = ours
        if late or trouble is not None:
            for executor in {id(e): e for e in executors}.values():
                self._compute.give_up(executor)
        return trouble

    def _silence(
        self, name: str, requests: Sequence[Request], trouble: AgentUnreachable | None
    ) -> AgentUnreachable:
        endpoint = self._compute.endpoint
        ids = [request["id"] for request in requests if "id" in request]
        if trouble is not None:
            return type(trouble)(trouble.message, **(trouble.data | {"request_ids": ids}))
        online = self._compute.online(10.0)
        how = {True: "is on, and", False: "is off: start it; it", None: ""}[online]
        msg = f"endpoint {endpoint} {how} did not answer {name} within {self._timeout:.0f} s"
        return EndpointOffline(msg, endpoint=endpoint, function=name, request_ids=ids)


def _request(request_id: str | None = None, arguments: dict[str, Any] | None = None) -> Request:
    request: Request = {"format": VERSION}
    if request_id is not None:
        request["id"] = request_id
    if arguments:
        request["arguments"] = arguments
    return request


def _outcome(answer: object) -> Outcome:
    try:
        return msgspec.convert(answer, Outcome)
    except msgspec.ValidationError as error:
        msg = f"the endpoint's answer is no outcome of a call: {error}"
        raise ProtocolError(msg, status=502) from error
