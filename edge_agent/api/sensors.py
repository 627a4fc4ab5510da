"""Readings over HTTP: kept, answered with a prediction, read back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import parse_qs

import msgspec

from edge_agent.agent import EdgeAgent
from edge_agent.api.answers import Answer, Caller, error_response, ok, when
from edge_agent.api.codec import Request, Response, decoded_body
from edge_agent.contracts.errors import (
    InvalidInput,
    InvalidReading,
    NotReady,
    ProtocolError,
    RbfError,
)
from edge_agent.contracts.observation import Reading
from edge_agent.spool import Kept

MAX_READINGS = 1000


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
_json = msgspec.json.Encoder().encode


class Sensors:
    """The paths under ``/rbf/v1`` that take and give readings.

    Parameters
    ----------
    agent : EdgeAgent
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent

    def take(self, request: Request, _caller: Caller) -> Answer:
        """Keep one instant's readings and answer with the wind at each sensor."""
        started = time.perf_counter()
        agent = self._agent
        content = decoded_body(request, agent.config.max_body_bytes)
        readings, malformed = parse_readings(content)
        agent.counters.rejected["format"] += len(malformed)
        good, bad = agent.check_readings(readings)
        problems: list[RbfError] = [*malformed, *bad]
        if problems:
            kept = agent.keep_readings(good)
            return when(kept, lambda k: self._some_bad(problems, k), self._error)
        if not agent.ready:
            return when(agent.keep_readings(good), self._not_ready, self._error)
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
            return self._error(error, kept=len(good))
        agent.keep_readings(good)
        answer = {
            "version": prediction.version,
            "inputs": prediction.inputs[0].tolist(),
            "sensors": {n: s._asdict() for n, s in prediction.sensors.items()},
            "silent": prediction.silent,
            "diagnostics": {n: d[0].item() for n, d in prediction.diagnostics.items()},
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

    def push(self, request: Request, _caller: Caller) -> Answer:
        """Keep readings; the answer is a receipt: it waits for the commit, and predicts nothing."""
        agent = self._agent
        readings, malformed = parse_readings(decoded_body(request, agent.config.max_body_bytes))
        agent.counters.rejected["format"] += len(malformed)
        good, bad = agent.check_readings(readings)
        problems = [{"reason": e.reason, "error": str(e)} for e in (*malformed, *bad)]

        def receipt(kept: Kept) -> Response:
            body = {"kept": kept.new + kept.duplicate, **kept._asdict(), "rejected": problems}
            return Response(200, [_json(body)], after=lambda: agent.observe(good, None))

        return when(agent.keep_readings(good), receipt, self._error)

    def _some_bad(self, problems: Sequence[RbfError], kept: Kept) -> Response:
        count = kept.new + kept.duplicate
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        msg = f"{problems[0]}{more}; {count} good readings were kept, nothing was predicted"
        return self._error(InvalidReading(msg), kept=count)

    def _not_ready(self, kept: Kept) -> Response:
        count = kept.new + kept.duplicate
        msg = f"no release of {self._agent.config.name!r} is loaded yet; {count} readings kept"
        return self._error(NotReady(msg), kept=count)

    def read(self, request: Request, _caller: Caller) -> Answer:
        """Return kept readings."""
        query = parse_qs(request.query)
        after = _number(query, "after", 0)
        limit = min(_number(query, "limit", MAX_READINGS), MAX_READINGS)
        rows = self._agent.readings(after, limit)
        following = rows[-1].sequence if rows else after
        return ok({"readings": [r._asdict() for r in rows], "next": following})

    def _error(self, error: BaseException, *, kept: int | None = None) -> Response:
        return error_response(error, self._agent.counters, kept=kept)


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


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        msg = f"{name}={text!r} is not a number"
        raise ProtocolError(msg, status=400)
    return int(text)
