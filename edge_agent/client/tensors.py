"""Requests and answers of the agent's HTTP interface as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_agent.client.connections import Reply
from edge_agent.columns import Columns
from edge_agent.contracts import errors
from edge_agent.contracts.errors import ProtocolError, RbfError
from edge_agent.contracts.observation import Reading
from edge_agent.prediction import Prediction

_json = msgspec.json.Encoder().encode


def readings_body(readings: Sequence[Reading]) -> bytes:
    """Return the body of ``POST /rbf/v1/readings``."""
    return _json({"readings": [r._asdict() for r in readings]})


def infer_request(rows: np.ndarray, columns: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an infer request for (batch, n) float32 rows, binary."""
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
    size = {"Inference-Header-Content-Length": str(len(head))}
    return head + rows.astype("<f4").tobytes(), size


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


def prediction_of(reply: Reply, rows: np.ndarray) -> Prediction:
    """Return the prediction in a binary answer to (batch, k) rows.

    Raises
    ------
    ProtocolError
        If it cannot be read.
    """
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
            wind=arrays.pop("wind"),
            wind_std=arrays.pop("wind_std"),
            out_of_range=outside,
            staleness_seconds=said.get("staleness_seconds"),
            interval_factor=said["interval_factor"],
            data_time=said.get("data_time"),
            wall_time=said["wall_time"],
            inputs=_completed(rows, said["columns"]) if "columns" in said else rows,
            diagnostics=arrays,
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        msg = f"the agent's answer cannot be read: {error!r}"
        raise ProtocolError(msg, status=reply.status) from error


def _completed(rows: np.ndarray, told: str) -> np.ndarray:
    """Return rows with the defaults that the agent says it took; see `Columns.told`."""
    columns = [part.partition("=")[::2] for part in told.split(",")]
    taken = {name: float(value) for name, value in columns if value}
    names = tuple(name for name, _ in columns)
    return Columns(names, taken).completed(rows, [n for n in names if n not in taken])
