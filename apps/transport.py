"""How a candidate would travel: whole, or as a delta to the release before.

That settles what serves. What a delta makes is nearly what was trained, and it is what devices will
run: so it, not the trained model, is scored, judged, published and signed. A delta that costs
accuracy is made again with more bits; one that is not worth it is left out.

The candidate's folder keeps ``serving.json`` (what serves, and the base of its delta), and where
there is a delta ``model.delta`` and ``serving.onnx``, what it makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pydantic
from pydantic import Field

from apps.candidates import MODEL, Candidate, read_candidate
from apps.delta import MOST_BITS, Made, make_delta
from apps.errors import ValidationError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Digest
from edge_agent.contracts.storage import write_bytes

SERVING, SERVING_MODEL, DELTA = "serving.json", "serving.onnx", "model.delta"


class DeltaSettings(Contract):
    """When a release has a delta, and how fine it is."""

    bits: Annotated[int, Field(ge=2, le=MOST_BITS)] = 4
    """Bits of a weight's difference before packing; more where these cost too much accuracy."""
    full_every: Annotated[int, Field(ge=1)] = 10
    """Releases of which one is a full file, which also begins a new POD basis; 1: no deltas."""
    worth: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Largest delta, as a share of the full file's bytes."""
    max_loss: Annotated[float, Field(gt=0)] = 0.02
    """Most that rounding may add to the selection RMSE, as a share of it."""
    max_std_change: Annotated[float, Field(gt=0)] = 0.1
    """Most that it may change the standard deviation there, relative L2."""


class Base(Contract):
    """The release that a delta would start from."""

    folder: str
    """Its candidate's folder."""
    version: Annotated[int, Field(ge=1)]
    """Its version."""


class DeltaRecord(Contract):
    """A candidate's delta."""

    base_version: Annotated[int, Field(ge=1)]
    """Release that it starts from."""
    base_sha256: Digest
    """Of that release's model."""
    sha256: Digest
    """Of ``model.delta``."""
    length: int
    """Bytes of ``model.delta``."""
    bits: Annotated[int, Field(ge=2, le=MOST_BITS)]
    """Bits of a weight's difference before packing."""
    loss: float
    """What rounding added to the selection RMSE, as a share of it; negative if it took off."""
    std_change: float
    """What it did to the standard deviation there, relative L2."""


class Serving(Contract):
    """``serving.json``: what a candidate serves as."""

    format: str = Field(default="rbf-serving/1", pattern=r"^rbf-serving/1$")
    """Version of this contract."""
    candidate: Digest
    """Its digest."""
    model_sha256: Digest
    """Of the model that is validated and published."""
    model_length: int
    """Bytes of that model."""
    delta: DeltaRecord | None = None
    """Its delta; none if it goes whole."""
    since_full: Annotated[int, Field(ge=0)] = 0
    """Releases since the last without a delta."""
    whole_because: str | None = None
    """Why there is no delta."""


class Shown(NamedTuple):
    """What a model does on the selection set."""

    rmse: float
    """m/s."""
    std: np.ndarray
    """Standard deviations, m/s."""


class Settled(NamedTuple):
    """What serves."""

    record: Serving
    model: bytes
    """The bytes to validate and publish."""


def settle(
    folder: Path,
    base: Base | None,
    settings: DeltaSettings,
    show: Callable[[bytes], Shown | None],
) -> Settled:
    """Decide how a candidate travels, and write that down in its folder.

    Equal calls write equal records, so a call that was killed is simply repeated.

    Parameters
    ----------
    folder : Path
        The candidate's.
    base : Base, optional
        The release before; none before the first.
    settings : DeltaSettings
    show : callable
        What a model does on the selection set; none if a prediction is not finite.

    Raises
    ------
    ValidationError
        If the candidate's model is not what was trained, or the base's not what was published.
    TrainingError
        If a folder holds no candidate.
    OSError
        If a file cannot be read or written.
    """
    candidate = read_candidate(folder)
    model = trained_model(folder, candidate)
    found = _delta(candidate, model, base, settings, show)
    if isinstance(found, _Found):
        model = found.made.model
        write_bytes(folder / DELTA, found.made.delta)
        write_bytes(folder / SERVING_MODEL, model)
        failpoint("transport.files")
    record = Serving(
        candidate=candidate.digest,
        model_sha256=sha256(model),
        model_length=len(model),
        delta=found.record if isinstance(found, _Found) else None,
        since_full=found.since_full if isinstance(found, _Found) else 0,
        whole_because=found if isinstance(found, str) else None,
    )
    write_bytes(folder / SERVING, record.model_dump_json(indent=1).encode() + b"\n")
    return Settled(record, model)


def full_due(before: Serving, settings: DeltaSettings) -> bool:
    """Return whether the release after `before` is one of those that go whole."""
    return before.since_full + 1 >= settings.full_every


def read_serving(folder: Path) -> Serving:
    """Return what a candidate serves as; as trained, if nothing was settled.

    Raises
    ------
    ValidationError
        If the record cannot be read.
    TrainingError
        If the folder holds no candidate.
    """
    path = folder / SERVING
    try:
        return Serving.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        candidate = read_candidate(folder)
        return Serving(
            candidate=candidate.digest,
            model_sha256=candidate.model_sha256,
            model_length=(folder / MODEL).stat().st_size,
            whole_because="made before there were deltas",
        )
    except pydantic.ValidationError as error:
        msg = f"{path}: cannot be read; validate the candidate again"
        raise ValidationError(msg, file=str(path)) from error


def serving_model(folder: Path) -> bytes:
    """Return the model that a candidate serves as, verified.

    Raises
    ------
    ValidationError
        If it is not what its record says.
    TrainingError
        If the folder holds no candidate.
    """
    record = read_serving(folder)
    path = folder / (MODEL if record.delta is None else SERVING_MODEL)
    return _verified(path, record.model_sha256, "validate the candidate again")


def serving_delta(folder: Path) -> bytes | None:
    """Return a candidate's delta, verified; none if it goes whole. Raises as `serving_model`."""
    record = read_serving(folder)
    if record.delta is None:
        return None
    return _verified(folder / DELTA, record.delta.sha256, "validate the candidate again")


def trained_model(folder: Path, candidate: Candidate) -> bytes:
    """Return the model as trained, verified; raises `ValidationError` if it is another."""
    return _verified(folder / MODEL, candidate.model_sha256, "remove the folder and train again")


class _Found(NamedTuple):
    made: Made
    record: DeltaRecord
    since_full: int


def _delta(
    candidate: Candidate,
    model: bytes,
    base: Base | None,
    settings: DeltaSettings,
    show: Callable[[bytes], Shown | None],
) -> _Found | str:
    """Return the coarsest delta that costs little accuracy, or why there is none."""
    if base is None:
        return "it is the first release"
    before = read_serving(Path(base.folder))
    if full_due(before, settings):
        return f"one release of {settings.full_every} is a full file"
    family = read_candidate(Path(base.folder)).family
    if family != candidate.family:
        return f"the release before is of another family, {family}"
    exact, start = show(model), serving_model(Path(base.folder))
    if exact is None:
        return "a prediction is not finite"
    loss = change = math.inf
    for bits in range(settings.bits, MOST_BITS + 1):
        made = make_delta(start, model, bits)
        share = len(made.delta) / len(model)
        if share > settings.worth:
            return f"with {bits} bits the delta has {share:.0%} of the full file's bytes"
        loss, change = _cost(exact, show(made.model))
        if loss <= settings.max_loss and change <= settings.max_std_change:
            record = DeltaRecord(
                base_version=base.version,
                base_sha256=before.model_sha256,
                sha256=sha256(made.delta),
                length=len(made.delta),
                bits=bits,
                loss=loss,
                std_change=change,
            )
            return _Found(made, record, before.since_full + 1)
    return (
        f"with {MOST_BITS} bits rounding adds {loss:.1%} to the selection RMSE and changes the "
        f"standard deviation by {change:.1%}"
    )


def _cost(exact: Shown, rounded: Shown | None) -> tuple[float, float]:
    """Return what rounding does to RMSE and standard deviation, as shares."""
    if rounded is None:
        return math.inf, math.inf
    change = np.linalg.norm(rounded.std - exact.std) / np.linalg.norm(exact.std)
    return rounded.rmse / exact.rmse - 1, float(change)


def _verified(path: Path, digest: str, advice: str) -> bytes:
    data = path.read_bytes()
    if sha256(data) != digest:
        msg = f"{path}: not what was trained; {advice}"
        raise ValidationError(msg, file=str(path))
    return data
