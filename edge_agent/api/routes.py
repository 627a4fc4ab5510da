"""Requests to answers: which path does what; knows no sockets.

An answer is a `Response`, or a future of one where the disk or a swap must be waited for.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import msgspec

from edge_agent.agent import EdgeAgent
from edge_agent.api.answers import Answer, Caller, Handler, error_response, ok, when
from edge_agent.api.codec import Request, Response
from edge_agent.api.exposition import CONTENT_TYPE, exposition
from edge_agent.api.infer import Inference, Job
from edge_agent.api.openapi import openapi
from edge_agent.api.remote import REQUESTS, Remote
from edge_agent.api.sensors import Sensors
from edge_agent.contracts.errors import ProtocolError, Unauthorised
from edge_agent.golden import output_shapes
from edge_agent.metrics import Stages
from edge_agent.slots import Slot

C = TypeVar("C", bound=Caller)

SERVER_NAME = "rbf-edge-agent"
_VERSION_PATH = re.compile(r"/versions/([0-9]{1,9})(/ready|/infer)?")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_decode_index = msgspec.json.Decoder(_IndexRequest).decode


class Routes:
    """The agent's HTTP interface.

    Parameters
    ----------
    agent : EdgeAgent
        Started.
    token : str, optional
        What a caller from outside must show.
    """

    def __init__(self, agent: EdgeAgent, *, token: str | None = None) -> None:
        self._agent = agent
        self._authorisation = None if token is None else f"Bearer {token}".encode()
        self._inference = Inference(agent)
        self._model = model = f"/v2/models/{agent.config.name}"
        self._remote = Remote(agent, self.error)
        self._requests: dict[str, Handler] = {"GET": self._remote.get, "PUT": self._remote.put}
        sensors = Sensors(agent)
        self._table: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/v2/repository/index": {"POST": self._index},
            model: {"GET": partial(self._metadata, None)},
            f"{model}/ready": {"GET": self._ready},
            f"{model}/infer": {"POST": partial(self._infer, None)},
            "/rbf/v1/status": {"GET": self._status},
            "/rbf/v1/readings": {"GET": sensors.read, "POST": sensors.take},
            "/rbf/v1/push": {"POST": sensors.push},
            "/rbf/v1/releases": {"GET": self._remote.releases},
            "/rbf/v1/rollback": {"POST": self._rollback},
            "/rbf/v1/pull": {"POST": self._pull},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    def endpoints(self) -> set[tuple[str, str]]:
        """Return every (method, path), with the model's name and version as in OpenAPI."""
        found = {(m, path) for path, methods in self._table.items() for m in methods}
        versions = f"{self._model}/versions/{{version}}"
        found |= {("GET", versions), ("GET", f"{versions}/ready"), ("POST", f"{versions}/infer")}
        return found | {(method, f"{REQUESTS}{{id}}") for method in self._requests}

    def close(self) -> None:
        """Finish the calls under way."""
        self._remote.close()

    @property
    def arrived(self) -> float:
        """When the loop's turn began, s (``perf_counter``)."""
        return self._inference.arrived

    @arrived.setter
    def arrived(self, time: float) -> None:
        self._inference.arrived = time

    def __call__(self, request: Request, caller: Caller) -> Answer:
        """Answer a request; never raises."""
        try:
            self._authorise(request, caller)
            return self._handler(request)(request, caller)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes an answer
            return self.error(error)

    def together(
        self, work: Sequence[tuple[C, Request]]
    ) -> Iterator[tuple[tuple[C, Request], Answer]]:
        """Answer requests that wait together; never raises."""
        jobs: list[tuple[tuple[C, Request], Job]] = []
        for item in work:
            caller, request = item
            try:
                self._authorise(request, caller)
                handler = self._handler(request)
                number = self._infers(handler)
                if number is not False:
                    jobs.append((item, self._inference.decode(request, number)))
                    continue
                answer = handler(request, caller)
            except Exception as error:  # noqa: BLE001 - as above
                answer = self.error(error)
            yield item, answer
        left = [item for item, _ in jobs]
        try:
            for response in self._inference.together([job for _, job in jobs]):
                yield left.pop(0), response
        except Exception as error:  # noqa: BLE001 - as above
            for item in left:
                yield item, self.error(error)

    def error(self, error: BaseException) -> Response:
        """Return the answer for an error, and count it."""
        return error_response(error, self._agent.counters)

    def _authorise(self, request: Request, caller: Caller) -> None:
        if self._authorisation is None or caller.local:
            return
        shown = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(shown, self._authorisation):
            msg = "this agent wants its token: Authorization: Bearer TOKEN"
            raise Unauthorised(msg)

    def _handler(self, request: Request) -> Handler:
        path = request.path
        methods = self._table.get(path)
        if methods is None and path.startswith(self._model):
            match = _VERSION_PATH.fullmatch(path, len(self._model))
            if match is not None:
                methods = self._of_version(int(match[1]), match[2])
        elif methods is None and path.startswith(REQUESTS):
            methods = self._requests
        if methods is None:
            msg = f"there is nothing at {path}; this agent serves {self._model}/infer"
            raise ProtocolError(msg, status=404)
        handler = methods.get(request.method)
        if handler is None:
            allow = ", ".join(methods)
            msg = f"{request.method} is not possible at {path}; try {allow}"
            raise ProtocolError(msg, status=405, allow=allow)
        return handler

    def _of_version(self, number: int, tail: str | None) -> dict[str, Handler]:
        def ready(_request: Request, _caller: Caller) -> Answer:
            self._agent.slot(number)
            return Response(200)

        if tail == "/infer":
            return {"POST": partial(self._infer, number)}
        if tail == "/ready":
            return {"GET": ready}
        return {"GET": partial(self._metadata, number)}

    def _infers(self, handler: Handler) -> int | bool | None:
        """Return the version that an infer handler asks for, or false for other handlers."""
        if isinstance(handler, partial) and handler.func == self._infer:
            number: int | None = handler.args[0]
            return number
        return False

    def _infer(self, number: int | None, request: Request, _caller: Caller) -> Answer:
        return self._inference.alone(self._inference.decode(request, number))

    def _server(self, _request: Request, _caller: Caller) -> Answer:
        extensions = ["binary_tensor_data", "model_repository"]
        return ok({"name": SERVER_NAME, "version": package_version(), "extensions": extensions})

    def _live(self, _request: Request, _caller: Caller) -> Answer:
        return Response(200)

    def _ready(self, _request: Request, _caller: Caller) -> Answer:
        self._agent.slot()
        return Response(200)

    def _metadata(self, number: int | None, _request: Request, _caller: Caller) -> Answer:
        slot = self._agent.slot(number)
        return ok(
            {
                "name": self._agent.config.name,
                "versions": [str(v) for v in sorted(self._agent.versions)],
                "platform": "onnxruntime_onnx",
                "inputs": [
                    {"name": "inputs", "datatype": "FP32", "shape": [-1, len(slot.columns.names)]}
                ],
                "outputs": [
                    {"name": name, "datatype": "FP32", "shape": [-1, *shape]}
                    for name, shape in output_shapes(slot.release).items()
                ],
            }
        )

    def _index(self, request: Request, _caller: Caller) -> Answer:
        # The protocol's, with its optional body {"ready": true}.
        try:
            only_ready = bool(request.body) and _decode_index(request.body).ready
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            msg = f'expected nothing or {{"ready": true}}: {error}'
            raise ProtocolError(msg, status=400) from error
        loaded: list[Slot] = self._agent.loaded
        entries: list[dict[str, Any]] = [
            {"name": self._agent.config.name, "version": str(s.version), "state": "READY"}
            for s in loaded
        ]
        if not only_ready:
            known = {s.version for s in loaded}
            entries += [
                {
                    "name": self._agent.config.name,
                    "version": str(refused["version"]),
                    "state": "UNAVAILABLE",
                    "reason": refused["reason"],
                }
                for refused in self._agent.refused
                if refused["version"] not in known
            ]
        return ok(entries)

    def _status(self, _request: Request, _caller: Caller) -> Answer:
        return ok(self._agent.status())

    def _metrics(self, _request: Request, _caller: Caller) -> Answer:
        # Nobody who does not scrape pays for histograms: they begin with the first scrape.
        stages = self._inference.stages
        if stages is None:
            stages = self._inference.stages = Stages()
        text = exposition(self._agent, stages, package_version())
        return Response(200, [text.encode()], CONTENT_TYPE)

    def _openapi(self, _request: Request, _caller: Caller) -> Answer:
        config = self._agent.config
        token = self._authorisation is not None
        return ok(openapi(config.name, package_version(), token=token))

    def _rollback(self, _request: Request, caller: Caller) -> Answer:
        return self._command("rollback", caller, self._agent.rollback)

    def _pull(self, _request: Request, caller: Caller) -> Answer:
        return self._command("pull", caller, self._agent.pull)

    def _command(self, name: str, caller: Caller, command: Callable[..., Any]) -> Answer:
        if not caller.local:
            msg = f"{name} changes state and is possible over the agent's Unix socket alone"
            raise ProtocolError(msg, status=403)
        return when(command(by=caller.peer()), lambda v: ok({"active": v}), self.error)


def package_version() -> str:
    """Return the version of this package."""
    try:
        return version("reverse-backfill")
    except PackageNotFoundError:
        return "unknown"
