"""The OpenAPI description, served at ``/openapi.json``; a test compares it with the routes."""

from __future__ import annotations

from typing import Any

from edge_agent.calls.contract import COMMANDS

Json = dict[str, Any]

_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_PARAMETERS = {"type": "object", "description": "Scalars by name."}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def _object(required: tuple[str, ...], **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_IDENTIFIER = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Made by the caller: a UUID of version 7.",
    "schema": {"type": "string", "format": "uuid"},
}
_TENSOR_DATA = {
    "description": "Flat in row-major order, or by rows.",
    "type": "array",
    "items": {"anyOf": [_NUMBER, _list(_NUMBER)]},
}
_READING = _object(
    ("time", "sensor", "quantity", "value", "unit"),
    time=_STRING | {"description": "ISO 8601; without a zone it is UTC."},
    sensor=_STRING,
    quantity=_STRING,
    value=_NUMBER,
    unit=_STRING | {"description": "UDUNITS spelling; the quantity's."},
)

SCHEMAS: Json = {
    "Error": _object(("error",), error=_STRING, kept=_INTEGER),
    "Server": _object(
        ("name", "version", "extensions"),
        name=_STRING,
        version=_STRING,
        extensions=_list(_STRING),
    ),
    "TensorMetadata": _object(
        ("name", "datatype", "shape"),
        name=_STRING,
        datatype={"type": "string", "enum": ["FP32"]},
        shape=_list(_INTEGER),
    ),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_STRING,
        versions=_list(_STRING),
        platform=_STRING,
        inputs=_list(_ref("TensorMetadata")),
        outputs=_list(_ref("TensorMetadata")),
    ),
    "Index": _list(
        _object(
            ("name", "version", "state"),
            name=_STRING,
            version=_STRING,
            state={"type": "string", "enum": ["READY", "UNAVAILABLE"]},
            reason=_STRING,
        )
    ),
    "InferRequest": _object(
        ("inputs",),
        id=_STRING,
        parameters=_object((), columns=_STRING)
        | {"description": "Scalars by name; columns: names of the tensor's columns."},
        inputs=_list(
            _object(
                ("name", "shape", "datatype"),
                name={"type": "string", "enum": ["inputs"]},
                shape=_SHAPE
                | {"description": "Batch and columns: all, or those without a default."},
                datatype={"type": "string", "enum": ["FP32", "FP64"]},
                parameters=_PARAMETERS,
                data=_TENSOR_DATA,
            )
        ),
        outputs=_list(_object(("name",), name=_STRING, parameters=_PARAMETERS)),
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs", "parameters"),
        model_name=_STRING,
        model_version=_STRING,
        id=_STRING,
        parameters=_object(
            ("release_version", "out_of_range", "interval_factor", "wall_time"),
            release_version=_INTEGER,
            out_of_range={"type": "boolean"},
            out_of_range_rows=_STRING,
            columns=_STRING
            | {"description": "Where inputs were left out: all of them, with the default taken."},
            interval_factor=_NUMBER,
            wall_time=_NUMBER,
            staleness_seconds=_NUMBER,
            data_time=_STRING,
        ),
        outputs=_list(
            _object(
                ("name", "datatype", "shape"),
                name=_STRING,
                datatype={"type": "string", "enum": ["FP32"]},
                shape=_SHAPE,
                parameters=_PARAMETERS,
                data=_list(_NUMBER),
            )
        ),
    ),
    "Readings": _object(("readings",), readings=_list(_READING) | {"maxItems": 1000}),
    "ReadingsAnswer": _object(
        ("kept",),
        kept=_INTEGER,
        version=_INTEGER,
        inputs=_list(_NUMBER),
        sensors={
            "type": "object",
            "description": "Expected at each interior sensor before its reading is seen.",
            "additionalProperties": _object(
                ("wind_speed", "wind_speed_std"), wind_speed=_NUMBER, wind_speed_std=_NUMBER
            ),
        },
        silent=_list(_STRING)
        | {"description": "SENSOR/QUANTITY that the model takes and had no reading of."},
        diagnostics={
            "type": "object",
            "description": "What else the model says; null if it is not finite.",
            "additionalProperties": {"type": ["number", "null"]},
        },
        out_of_range={"type": "boolean"},
    ),
    "Receipt": _object(
        ("kept", "new", "duplicate", "conflicting", "rejected"),
        kept=_INTEGER,
        new=_INTEGER,
        duplicate=_INTEGER,
        conflicting=_INTEGER,
        rejected=_list(_object(("reason", "error"), reason=_STRING, error=_STRING)),
    ),
    "KeptReadings": _object(
        ("readings", "next"),
        readings=_list({**_READING, "properties": {**_READING["properties"]}}),
        next=_INTEGER,
    ),
    "Status": _object(
        ("pid", "site", "channel", "ready", "counters", "swaps"),
        pid=_INTEGER,
        site=_STRING,
        channel=_STRING,
        ready={"type": "boolean"},
        columns={"type": ["array", "null"], "items": _STRING},
        defaults={
            "type": ["object", "null"],
            "description": "Taken where these columns are left out.",
            "additionalProperties": _NUMBER,
        },
        counters={"type": "object"},
        swaps={"type": "array"},
    ),
    "Call": _object(
        ("command",),
        command={"type": "string", "enum": sorted(COMMANDS)},
        arguments={"type": "object"},
    ),
    "Outcome": _object(
        ("state",),
        state={"type": "string", "enum": ["begun", "void", "ended"]},
        result={"type": ["object", "null"]},
        failure={"type": ["object", "null"]},
    ),
    "Releases": _object(
        ("active", "held", "releases"),
        active={"type": ["integer", "null"]},
        held={"type": ["integer", "null"]},
        releases=_list(
            _object(
                ("version", "state", "reason", "stored", "loaded", "pinned"),
                version=_INTEGER,
                state=_STRING,
                reason={"type": ["string", "null"]},
                stored={"type": "boolean"},
                loaded={"type": "boolean"},
                pinned={"type": "boolean"},
            )
        ),
    ),
    "Active": _object(("active",), active={"type": ["integer", "null"]}),
}


def openapi(model: str, version: str, *, token: bool) -> Json:
    """Return the description of an agent.

    Parameters
    ----------
    model : str
        The model's name, part of its paths.
    version : str
        Of the agent.
    token : bool
        Whether callers over HTTP must show one.
    """
    base = f"/v2/models/{model}"
    number = {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "The active version or the previous one.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    }
    infer = _operation(
        "Infer; JSON, or JSON followed by binary tensors (Inference-Header-Content-Length).",
        ("400", "404", "413", "415", "503"),
        answer="InferResponse",
        body="InferRequest",
    )
    infer["requestBody"]["content"]["application/octet-stream"] = {}
    infer["responses"]["200"]["content"]["application/octet-stream"] = {}
    metadata = _operation("Metadata of the model.", ("404", "503"), answer="Model")
    ready = _operation("200 once a release serves.", ("404", "503"))
    paths: dict[str, Json] = {
        "/v2": {"get": _operation("Metadata of the server.", (), answer="Server")},
        "/v2/health/live": {"get": _operation("200 while the agent runs.", ())},
        "/v2/health/ready": {"get": ready},
        "/v2/repository/index": {
            "post": _operation(
                "Loaded releases, and those refused.",
                ("400", "413", "415"),
                answer="Index",
                inline=_object((), ready={"type": "boolean"}),
            )
        },
        base: {"get": metadata},
        f"{base}/ready": {"get": ready},
        f"{base}/infer": {"post": infer},
        f"{base}/versions/{{version}}": {"get": metadata, "parameters": [number]},
        f"{base}/versions/{{version}}/ready": {"get": ready, "parameters": [number]},
        f"{base}/versions/{{version}}/infer": {"post": infer, "parameters": [number]},
        "/rbf/v1/status": {
            "get": _operation("What the agent is and has done.", (), answer="Status")
        },
        "/rbf/v1/readings": {
            "get": _operation("Kept readings.", ("400", "503"), answer="KeptReadings")
            | {"parameters": [_query("after"), _query("limit")]},
            "post": _operation(
                "One instant's readings: kept, and answered with the wind at each sensor; 202 if "
                "the model needs none of them.",
                ("202", "400", "413", "415", "503"),
                answer="ReadingsAnswer",
                body="Readings",
            ),
        },
        "/rbf/v1/push": {
            "post": _operation(
                "Readings; the answer is a receipt and comes once they are on the disk.",
                ("400", "413", "415", "503"),
                answer="Receipt",
                body="Readings",
            )
        },
        "/rbf/v1/releases": {
            "get": _operation("Releases on the device, newest first.", (), answer="Releases")
        },
        "/rbf/v1/requests/{id}": {
            "parameters": [_IDENTIFIER],
            "get": _operation(
                "The outcome of a call.", ("202", "400", "404", "410", "503"), answer="Outcome"
            ),
            "put": _operation(
                "Carry a call out once; the outcome again whenever it is asked for. Commands that "
                "change state: Unix socket only.",
                ("400", "403", "410", "413", "415", "503"),
                answer="Outcome",
                body="Call",
            ),
        },
        "/rbf/v1/rollback": {
            "post": _operation(
                "Return to the previous release; Unix socket only.", ("403", "404"), answer="Active"
            )
        },
        "/rbf/v1/pull": {
            "post": _operation(
                "Look for a release now; Unix socket only.", ("403",), answer="Active"
            )
        },
        "/metrics": {"get": _operation("Prometheus metrics.", (), text=True)},
        "/openapi.json": {"get": _operation("This.", (), inline_answer={"type": "object"})},
    }
    found: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Reverse Backfill edge agent",
            "version": version,
            "description": "Open Inference Protocol v2 and the agent's own paths.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
        for operations in paths.values():
            for method, operation in operations.items():
                if method != "parameters":
                    operation["responses"]["401"] = _failure("The token is missing or wrong.")
    return found


_REASONS = {
    "202": "Kept, nothing predicted; or not over yet.",
    "400": "The request cannot be used.",
    "403": "Possible over the Unix socket alone.",
    "404": "There is no such release.",
    "410": "Too old: its outcome is no longer kept.",
    "413": "The body is too large.",
    "415": "Unknown Content-Encoding.",
    "503": "No release yet, or too much is waiting.",
}


def _operation(
    summary: str,
    others: tuple[str, ...],
    *,
    answer: str | None = None,
    inline_answer: Json | None = None,
    text: bool = False,
    body: str | None = None,
    inline: Json | None = None,
) -> Json:
    good: Json = {"description": "Success."}
    schema = _ref(answer) if answer else inline_answer
    if schema is not None:
        good["content"] = {"application/json": {"schema": schema}}
    elif text:
        good["content"] = {"text/plain": {"schema": _STRING}}
    responses = {"200": good} | {code: _failure(_REASONS[code]) for code in others}
    if "202" in responses and answer is not None:
        responses["202"]["content"]["application/json"]["schema"] = _ref(answer)
    operation: Json = {"summary": summary, "responses": responses}
    sent = _ref(body) if body else inline
    if sent is not None:
        operation["requestBody"] = {
            "required": body is not None,
            "content": {"application/json": {"schema": sent}},
        }
    return operation


def _failure(why: str) -> Json:
    return {"description": why, "content": {"application/json": {"schema": _ref("Error")}}}


def _query(name: str) -> Json:
    return {
        "name": name,
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999},
    }
