"""Infer requests: decoded, run alone or together, encoded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_agent.agent import EdgeAgent
from edge_agent.api.codec import Request, Response, decoded_body
from edge_agent.api.oip import HEADER_LENGTH, InferRequest, decode_infer, encode_infer
from edge_agent.batching import batch_size
from edge_agent.columns import as_rows
from edge_agent.metrics import Stages
from edge_agent.prediction import Prediction
from edge_agent.slots import Slot

_HEADER = HEADER_LENGTH.lower()
_BINARY = "application/octet-stream"


class Job(NamedTuple):
    """A decoded infer request."""

    slot: Slot
    asked: InferRequest
    rows: np.ndarray
    """(batch, n) float32, checked and complete."""
    columns: str | None
    """What the columns are, if some were left out; see `Columns.told`."""
    began: float
    """When its decoding began, s (``perf_counter``)."""
    decoded: float
    """When it ended."""


class Inference:
    """Answers infer requests.

    Parameters
    ----------
    agent : EdgeAgent
    """

    def __init__(self, agent: EdgeAgent) -> None:
        self._agent = agent
        self._name = agent.config.name
        self._max_body = agent.config.max_body_bytes
        self._max_batch = agent.config.max_batch
        self._objective = agent.config.latency_objective_ms / 1e3
        self.stages: Stages | None = None
        """Histograms, once somebody has asked for metrics."""
        self.arrived = 0.0
        """When the loop's turn began, s (``perf_counter``)."""

    def decode(self, request: Request, version: int | None) -> Job:
        """Read a request.

        Raises
        ------
        ProtocolError, InvalidInput, NotReady, NoSuchRelease
            If it cannot be answered.
        """
        began = time.perf_counter()
        slot = self._agent.slot(version)
        headers = request.headers
        body = decoded_body(request, self._max_body)
        asked = decode_infer(body, headers.get(_HEADER), slot.outputs)
        columns, given = slot.columns, asked.columns
        partial = columns.defaults and asked.inputs.shape[-1] != len(columns.names)
        if given == columns.names and not partial:
            given = None
        rows = as_rows(asked.inputs, columns, self._max_batch, given)
        told = columns.told(given or columns.required) if partial else None
        return Job(slot, asked, rows, told, began, time.perf_counter())

    def alone(self, job: Job) -> Response:
        """Run and answer one request."""
        return self._encode(job, self._agent.predict_rows(job.slot, job.rows))

    def together(self, jobs: Sequence[Job]) -> Iterator[Response]:
        """Run requests in order; those of one release in one run where that is sooner for all."""
        for slot, group in groupby(jobs, key=lambda job: job.slot):
            same = list(group)
            rows = [len(job.rows) for job in same]
            while same:
                size = 1
                if max(rows) == 1:
                    waiting = min(len(same), self._max_batch)
                    size = batch_size(waiting, slot.cost, self._objective)
                if size == 1:
                    yield self.alone(same[0])
                else:
                    yield from self._batch(slot, same[:size])
                del same[:size], rows[:size]

    def _batch(self, slot: Slot, jobs: Sequence[Job]) -> Iterator[Response]:
        found = self._agent.predict_rows(slot, np.concatenate([job.rows for job in jobs]))
        self._agent.counters.answered += len(jobs) - 1
        self._agent.counters.batched += len(jobs)
        for i, job in enumerate(jobs):
            part = slice(i, i + 1)
            one = msgspec.structs.replace(
                found,
                wind=found.wind[part],
                wind_std=found.wind_std[part],
                out_of_range=found.out_of_range[part],
                inputs=job.rows,
                diagnostics={n: d[part] for n, d in found.diagnostics.items()},
            )
            yield self._encode(job, one)

    def _encode(self, job: Job, answer: Prediction) -> Response:
        ran = time.perf_counter()
        tensors = {"wind": answer.wind, "wind_std": answer.wind_std}
        if answer.diagnostics:
            tensors |= answer.diagnostics
        parameters = _parameters(answer)
        if job.columns is not None:
            parameters["columns"] = job.columns
        pieces, header_length = encode_infer(
            self._name, answer.version, job.asked, tensors, parameters
        )
        now = time.perf_counter()
        self._agent.counters.latencies.record(now - job.began)
        stages = self.stages
        if stages is not None:
            stages.record(job.began - self.arrived, job.decoded - job.began, ran - job.decoded)
            stages.encode.record(now - ran)
        if header_length is None:
            return Response(200, pieces)
        return Response(200, pieces, _BINARY, ((HEADER_LENGTH, str(header_length)),))


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
