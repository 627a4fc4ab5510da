"""What a call and its outcome look like as JSON; shared by the agent and its clients.

A call is named by an identifier that its caller makes before it asks the first time: a UUID of
version 7 (RFC 9562), which holds the time. Asking again with the same identifier gives the same
outcome and carries nothing out a second time.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid
import zlib
from typing import Any

import msgspec
import numpy as np

from edge_agent.contracts import errors
from edge_agent.contracts.errors import InvalidInput, ProtocolError, RbfError
from edge_agent.prediction import Prediction

#: Version of the calls and of the registered functions; part of their names.
VERSION = 1
#: Commands that change what serves: over the Unix socket (and the functions behind it) alone.
CHANGING = frozenset({"hold", "pin", "promote", "pull", "rollback", "unhold", "unpin"})
COMMANDS = CHANGING | {"predict"}

_json = msgspec.json.Encoder(order="deterministic").encode


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked."""

    command: str
    """One of `COMMANDS`."""
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    """The command's, JSON values."""

    def digest(self) -> bytes:
        """Return what tells this call from another under the same identifier."""
        return hashlib.sha256(_json([self.command, self.arguments])).digest()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error of ours as data."""

    kind: str
    """Name of its class in `edge_agent.contracts.errors`."""
    message: str
    """One line."""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    """Its attributes that are JSON values."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a call ended: with a result or with a failure."""

    result: dict[str, Any] | None = None
    """The command's answer."""
    failure: Failure | None = None
    """Why there is none."""

    def unwrap(self) -> dict[str, Any]:
        """Return the result, or raise the error that the failure stands for."""
        if self.failure is not None:
            raise error_from(self.failure)
        if self.result is None:
            msg = "the agent's answer holds neither a result nor a failure"
            raise ProtocolError(msg, status=502)
        return self.result


def new_request_id(now: float) -> str:
    """Return a fresh identifier: a UUID of version 7.

    Parameters
    ----------
    now : float, s since the Unix epoch
    """
    return _version_7((int(now * 1000) & (2**48 - 1)) << 80 | secrets.randbits(80))


def issued_at(request_id: str) -> float:
    """Return when an identifier was made, s since the Unix epoch on the caller's clock.

    Raises
    ------
    InvalidInput
        If it is no UUID of version 7 in the usual spelling.
    """
    try:
        found = uuid.UUID(request_id)
    except (ValueError, AttributeError, TypeError):
        found = None
    if found is None or found.version != 7 or str(found) != request_id:
        msg = f"{request_id!r} is no request identifier: a UUID of version 7 is wanted"
        raise InvalidInput(msg, name="id")
    return float(found.int >> 80) / 1000


def part_id(request_id: str, part: int, parts: int) -> str:
    """Return the identifier of a part of a call that is too large for one answer."""
    value = uuid.UUID(request_id).int >> 80 << 80
    text = f"{request_id} {part} of {parts}".encode()
    value |= int.from_bytes(hashlib.sha256(text).digest()[:10])
    return _version_7(value)


def failure_of(error: BaseException) -> Failure:
    """Return an error as data; what is none of ours says no more than that."""
    if not isinstance(error, RbfError):
        return Failure(kind="RbfError", message="internal error; the agent's log has the details")
    data = {k: v for k, v in error.data.items() if isinstance(v, str | int | float | bool | None)}
    return Failure(kind=type(error).__name__, message=error.message, data=data)


def error_from(failure: Failure) -> RbfError:
    """Return the error that data stand for; an unknown kind becomes a plain `RbfError`."""
    kind = getattr(errors, failure.kind, RbfError)
    if not (isinstance(kind, type) and issubclass(kind, RbfError)):
        kind = RbfError
    return kind(failure.message, **failure.data)


def prediction_json(found: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON values; the fields as packed text (`pack`)."""
    return {
        "version": found.version,
        "wind": pack(found.wind),
        "wind_std": pack(found.wind_std),
        "inputs": pack(found.inputs),
        "diagnostics": {name: pack(values) for name, values in found.diagnostics.items()},
        "out_of_range": found.out_of_range.tolist(),
        "staleness_seconds": found.staleness_seconds,
        "interval_factor": found.interval_factor,
        "data_time": found.data_time,
        "wall_time": found.wall_time,
    }


def prediction_from(found: dict[str, Any], rows: np.ndarray) -> Prediction:
    """Return the prediction that JSON values stand for.

    Parameters
    ----------
    found : dict
        Of `prediction_json`.
    rows : (batch, k) float32
        What was sent; an agent of an earlier version does not say what its model was given.

    Raises
    ------
    ProtocolError
        If they cannot be read.
    """
    try:
        return Prediction(
            version=int(found["version"]),
            wind=unpack(found["wind"]),
            wind_std=unpack(found["wind_std"]),
            out_of_range=np.array(found["out_of_range"], dtype=bool),
            staleness_seconds=found["staleness_seconds"],
            interval_factor=found["interval_factor"],
            data_time=found["data_time"],
            wall_time=found["wall_time"],
            inputs=unpack(found["inputs"]) if "inputs" in found else rows,
            diagnostics={name: unpack(d) for name, d in found.get("diagnostics", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        msg = f"the agent's prediction cannot be read: {error!r}"
        raise ProtocolError(msg, status=502) from error


def joined(parts: list[Prediction]) -> Prediction:
    """Return predictions of consecutive rows as one; what is one for all is the last part's.

    Raises
    ------
    ProtocolError
        If a swap came between them: a field of two releases is none.
    """
    last = parts[-1]
    if len(parts) == 1:
        return last
    if len({part.version for part in parts}) > 1:
        versions = ", ".join(str(part.version) for part in parts)
        msg = f"the release changed between the parts of this batch ({versions}); ask again"
        raise ProtocolError(msg, status=503)
    return msgspec.structs.replace(
        last,
        wind=np.concatenate([part.wind for part in parts]),
        wind_std=np.concatenate([part.wind_std for part in parts]),
        out_of_range=np.concatenate([part.out_of_range for part in parts]),
        inputs=np.concatenate([part.inputs for part in parts]),
        diagnostics={
            name: np.concatenate([part.diagnostics[name] for part in parts])
            for name in last.diagnostics
        },
    )


def pack(array: np.ndarray) -> dict[str, Any]:
    """Return a float32 array as JSON values: shape, and base64 of its deflated bytes.

    The bytes are put in order of significance first (all first bytes, then all second ones): smooth
    fields deflate to about two thirds then, and not at all otherwise.
    """
    singles = np.ascontiguousarray(array, dtype="<f4")
    planes = singles.view(np.uint8).reshape(-1, 4).T.tobytes()
    return {
        "shape": list(array.shape),
        "data": base64.b64encode(zlib.compress(planes, 1)).decode("ascii"),
    }


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Return the array that `pack` took; raises KeyError, TypeError, ValueError or zlib.error."""
    shape = [int(n) for n in packed["shape"]]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    return np.ascontiguousarray(planes.reshape(4, -1).T).view("<f4").reshape(shape)


def decode_call(body: bytes) -> Call:
    """Return the call in a body.

    Raises
    ------
    InvalidInput
        If it is none, or asks for a command that there is not.
    """
    try:
        call = msgspec.json.decode(body, type=Call)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a call: {error}"
        raise InvalidInput(msg) from error
    if call.command not in COMMANDS:
        msg = f"no command {call.command!r}; there are {', '.join(sorted(COMMANDS))}"
        raise InvalidInput(msg, name="command")
    return call


def _version_7(value: int) -> str:
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
