"""Requests to answers: which path does what; knows no sockets.

An answer is a `Response`, or a future of one where the disk or a swap must be waited for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.codec import Buffer, Request, Response, decoded_body
from edge_agent.api.oip import HEADER_LENGTH, decode_infer, encode_infer
from edge_agent.contracts.errors import (
    InvalidInput,
    InvalidReading,
    NoSuchRelease,
    NotReady,
    ProtocolError,
    RbfError,
    SpoolError,
)
from edge_agent.contracts.observation import Reading
from edge_agent.prediction import Prediction
from edge_agent.spool import Kept

log = structlog.get_logger(__name__)

Answer = Response | Future[Response]
Handler = Callable[[Request, bool], Answer]

#: Says which of our errors an error response is, so that a client can raise it again.
ERROR_HEADER = "RBF-Error"
MAX_READINGS = 1000
STATUS = {
    InvalidInput: 400,
    InvalidReading: 400,
    NoSuchRelease: 404,
    NotReady: 503,
    SpoolError: 503,
}
_json = msgspec.json.Encoder().encode
_VERSION_PATH = re.compile(r"/versions/([0-9]{1,9})(/ready|/infer)?")


class _Reading(msgspec.Struct):
    time: str
    sensor: str
    quantity: str
    value: float
    unit: str


class _Readings(msgspec.Struct):
    readings: list[_Reading]


class _RawReadings(msgspec.Struct):
    readings: list[msgspec.Raw]


_decode_readings = msgspec.json.Decoder(_Readings).decode
_decode_raw = msgspec.json.Decoder(_RawReadings).decode
_decode_one = msgspec.json.Decoder(_Reading).decode


class Routes:
    """The agent's HTTP interface.

    Parameters
    ----------
    agent : EdgeAgent
        Started.
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent
        self._model = f"/v2/models/{agent.config.name}"
        self._table: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            self._model: {"GET": lambda _r, _l: self._metadata(None)},
            f"{self._model}/ready": {"GET": self._ready},
            f"{self._model}/infer": {"POST": lambda r, _l: self._infer(r, None)},
            "/rbf/v1/status": {"GET": lambda _r, _l: _ok(agent.status())},
            "/rbf/v1/readings": {"GET": self._read, "POST": self._readings},
            "/rbf/v1/push": {"POST": self._push},
            "/rbf/v1/rollback": {"POST": self._rollback},
            "/rbf/v1/pull": {"POST": self._pull},
        }

    def __call__(self, request: Request, *, local: bool) -> Answer:
        """Answer a request; never raises.

        Parameters
        ----------
        request : Request
        local : bool
            Whether it came over the Unix socket, which alone may change state.
        """
        try:
            return self._handler(request)(request, local)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes an answer
            return self.error(error)

    def error(self, error: BaseException, *, kept: int | None = None) -> Response:
        """Return the answer for an error, and count it."""
        counters = self._agent.counters
        name, message = type(error).__name__, str(error)
        if isinstance(error, ProtocolError):
            status = int(error.status)
        else:
            status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 500)
        if isinstance(error, NotReady):
            counters.refused_not_ready += 1
        elif status < 500:
            counters.invalid += 1
        elif status == 500:
            counters.failed += 1
            log.error("request failed", exc_info=error)
            if not isinstance(error, RbfError):
                name, message = "RbfError", "internal error; the agent's log has the details"
        body: dict[str, Any] = {"error": message}
        if kept is not None:
            body["kept"] = kept
        headers = [(ERROR_HEADER, name)]
        if status == 405:
            headers.append(("Allow", error.allow))  # type: ignore[attr-defined]
        return Response(status, [_json(body)], headers=headers)

    def _handler(self, request: Request) -> Handler:
        path = request.path
        methods = self._table.get(path)
        if methods is None and path.startswith(self._model):
            match = _VERSION_PATH.fullmatch(path, len(self._model))
            if match is not None:
                methods = self._of_version(int(match[1]), match[2])
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
        def ready(_request: Request, _local: bool) -> Answer:
            self._agent.slot(number)
            return Response(200)

        if tail == "/infer":
            return {"POST": lambda r, _l: self._infer(r, number)}
        if tail == "/ready":
            return {"GET": ready}
        return {"GET": lambda _r, _l: self._metadata(number)}

    def _server(self, _request: Request, _local: bool) -> Answer:
        return _ok(
            {
                "name": "rbf-edge-agent",
                "version": _package_version(),
                "extensions": ["binary_tensor_data"],
            }
        )

    def _live(self, _request: Request, _local: bool) -> Answer:
        return Response(200)

    def _ready(self, _request: Request, _local: bool) -> Answer:
        self._agent.slot()
        return Response(200)

    def _metadata(self, number: int | None) -> Answer:
        slot = self._agent.slot(number)
        shape = [-1, 3, *slot.release.grid.shape]
        return _ok(
            {
                "name": self._agent.config.name,
                "versions": [str(v) for v in sorted(self._agent.versions)],
                "platform": "onnxruntime_onnx",
                "inputs": [
                    {"name": "inputs", "datatype": "FP32", "shape": [-1, len(slot.columns)]}
                ],
                "outputs": [
                    {"name": o.name, "datatype": "FP32", "shape": shape}
                    for o in slot.release.outputs
                ],
            }
        )

    def _infer(self, request: Request, number: int | None) -> Answer:
        started = time.perf_counter()
        agent = self._agent
        slot = agent.slot(number)
        outputs = [o.name for o in slot.release.outputs]
        body = decoded_body(request, agent.config.max_body_bytes)
        asked = decode_infer(body, request.headers.get(HEADER_LENGTH.lower()), outputs)
        if asked.columns is not None and asked.columns != list(slot.columns):
            msg = f"columns {asked.columns}; release {slot.version} takes {list(slot.columns)}"
            raise InvalidInput(msg, name="columns")
        answer = agent.predict(asked.inputs, slot=slot)
        pieces, header_length = encode_infer(
            agent.config.name,
            answer.version,
            asked,
            {"wind": answer.wind, "wind_std": answer.wind_std},
            _parameters(answer),
        )
        agent.counters.latencies.record(time.perf_counter() - started)
        if header_length is None:
            return Response(200, pieces)
        headers = [(HEADER_LENGTH, str(header_length))]
        return Response(200, pieces, "application/octet-stream", headers)

    def _readings(self, request: Request, _local: bool) -> Answer:
        started = time.perf_counter()
        agent = self._agent
        content = decoded_body(request, agent.config.max_body_bytes)
        readings, malformed = parse_readings(content)
        agent.counters.rejected["format"] += len(malformed)
        good, bad = agent.check_readings(readings)
        problems: list[RbfError] = [*malformed, *bad]
        if problems:
            kept = agent.keep_readings(good)
            return _when(kept, lambda k: self._some_bad(problems, k), self.error)
        if not agent.ready:
            return _when(agent.keep_readings(good), self._not_ready, self.error)
        if not agent.needs(readings):
            agent.keep_readings(good)
            return Response(
                202, [_json({"kept": len(good)})], after=lambda: agent.observe(good, None)
            )
        try:
            # Before the readings are queued: waking the spool's thread first would make the answer
            # wait for the interpreter lock.
            prediction = agent.predict_checked(good)
        except InvalidInput as error:
            agent.keep_readings(good)
            return self.error(error, kept=len(good))
        agent.keep_readings(good)
        answer = {
            "version": prediction.version,
            "inputs": prediction.inputs[0].tolist(),
            "sensors": {n: s._asdict() for n, s in prediction.sensors.items()},
            "out_of_range": bool(prediction.out_of_range[0]),
            "staleness_seconds": prediction.staleness_seconds,
            "interval_factor": prediction.interval_factor,
            "data_time": prediction.data_time,
            "wall_time": prediction.wall_time,
            "kept": len(good),
        }
        response = Response(200, [_json(answer)], after=lambda: agent.observe(good, prediction))
        agent.counters.latencies.record(time.perf_counter() - started)
        return response

    def _push(self, request: Request, _local: bool) -> Answer:
        # The answer is a receipt: it waits for the commit, and for no prediction.
        agent = self._agent
        readings, malformed = parse_readings(decoded_body(request, agent.config.max_body_bytes))
        agent.counters.rejected["format"] += len(malformed)
        good, bad = agent.check_readings(readings)
        problems = [{"reason": e.reason, "error": str(e)} for e in (*malformed, *bad)]

        def receipt(kept: Kept) -> Response:
            body = {"kept": kept.new + kept.duplicate, **kept._asdict(), "rejected": problems}
            return Response(200, [_json(body)], after=lambda: agent.observe(good, None))

        return _when(agent.keep_readings(good), receipt, self.error)

    def _some_bad(self, problems: Sequence[RbfError], kept: Kept) -> Response:
        count = kept.new + kept.duplicate
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        msg = f"{problems[0]}{more}; {count} good readings were kept, nothing was predicted"
        return self.error(InvalidReading(msg), kept=count)

    def _not_ready(self, kept: Kept) -> Response:
        count = kept.new + kept.duplicate
        msg = f"no release of {self._agent.config.name!r} is loaded yet; {count} readings kept"
        return self.error(NotReady(msg), kept=count)

    def _read(self, request: Request, _local: bool) -> Answer:
        query = parse_qs(request.query)
        after = _number(query, "after", 0)
        limit = min(_number(query, "limit", MAX_READINGS), MAX_READINGS)
        rows = self._agent.readings(after, limit)
        following = rows[-1].sequence if rows else after
        return _ok({"readings": [r._asdict() for r in rows], "next": following})

    def _rollback(self, _request: Request, local: bool) -> Answer:
        _only_local(local, "rollback")
        return _when(self._agent.rollback(), lambda v: _ok({"active": v}), self.error)

    def _pull(self, _request: Request, local: bool) -> Answer:
        _only_local(local, "pull")
        return _when(self._agent.pull(), lambda v: _ok({"active": v}), self.error)


def parse_readings(body: bytes) -> tuple[list[Reading], list[RbfError]]:
    """Return the readings of a body that can be read, and what is wrong with the others.

    Raises
    ------
    ProtocolError
        If the body as a whole cannot be read, or holds too many readings.
    """
    try:
        found = _decode_readings(body).readings
        readings = [Reading(r.time, r.sensor, r.quantity, r.value, r.unit) for r in found]
        malformed: list[RbfError] = []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        readings, malformed = _one_by_one(body)
    if not 0 < len(readings) + len(malformed) <= MAX_READINGS:
        msg = f"{len(readings)} readings in one body; 1 to {MAX_READINGS} are possible"
        raise ProtocolError(msg, status=400)
    return readings, malformed


def _one_by_one(body: bytes) -> tuple[list[Reading], list[RbfError]]:
    try:
        raw = _decode_raw(body).readings
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f'expected {{"readings": [{{time, sensor, quantity, value, unit}}]}}: {error}'
        raise ProtocolError(msg, status=400) from error
    readings: list[Reading] = []
    malformed: list[RbfError] = []
    for item in raw:
        try:
            r = _decode_one(item)
            readings.append(Reading(r.time, r.sensor, r.quantity, r.value, r.unit))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            malformed.append(InvalidReading(f"malformed reading: {error}", reason="format"))
    return readings, malformed


def _parameters(answer: Prediction) -> dict[str, Any]:
    outside = answer.out_of_range
    parameters: dict[str, Any] = {
        "release_version": answer.version,
        "out_of_range": bool(outside.any()),
        "interval_factor": answer.interval_factor,
        "wall_time": answer.wall_time,
    }
    if parameters["out_of_range"]:
        # Parameters are scalars in the protocol: the rows as text.
        parameters["out_of_range_rows"] = ",".join(str(i) for i in outside.nonzero()[0])
    if answer.staleness_seconds is not None:
        parameters["staleness_seconds"] = answer.staleness_seconds
    if answer.data_time is not None:
        parameters["data_time"] = answer.data_time
    return parameters


def _when(
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


def _ok(value: dict[str, Any]) -> Response:
    body: list[Buffer] = [_json(value)]
    return Response(200, body)


def _only_local(local: bool, what: str) -> None:
    if not local:
        msg = f"{what} changes state and is possible over the agent's Unix socket alone"
        raise ProtocolError(msg, status=403)


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        msg = f"{name}={text!r} is not a number"
        raise ProtocolError(msg, status=400)
    return int(text)


def _package_version() -> str:
    try:
        return version("reverse-backfill")
    except PackageNotFoundError:
        return "unknown"
