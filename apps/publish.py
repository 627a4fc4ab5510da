"""Publish a candidate: its files, its manifest, and the signed index that points to it.

What makes this safe is in `apps.repository.repository`. The creation time comes with the task, so
a repeated call makes an equal release.
"""

from __future__ import annotations

import io
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from apps.candidates import Candidate, read_candidate
from apps.errors import PublishError, ValidationError
from apps.lineage import code_version, read_lineage
from apps.repository import edits
from apps.repository.chain import read_target
from apps.repository.keys import Keyring
from apps.repository.objects import open_store
from apps.repository.repository import Repository
from apps.surrogates.base import WIND, WIND_STD
from apps.transport import DELTA, Serving, read_serving, serving_delta, serving_model
from apps.validate import VALIDATION, ValidateResult, read_validation
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import (
    ROW_DIMS,
    Delta,
    Golden,
    OutputVariable,
    Provenance,
    Release,
    TargetFile,
)
from edge_agent.contracts.repository import Channel, Index, ReleaseRef
from edge_agent.contracts.site import Site

#: What another machine's ONNX Runtime may differ by, in an output's unit; faults are a hundred
#: times larger.
GOLDEN_TOLERANCE = 1e-3
#: What golden outputs are rounded to, in their unit.
GOLDEN_STEP = 2.0**-11


class PublishTask(Contract):
    """What to publish, and where."""

    site: Site
    """Whose wind; its name is the model's."""
    version: Annotated[int, Field(ge=1)]
    """Only grows; reserved before publishing."""
    candidate: str
    """Folder of the candidate, validated and accepted."""
    repository: str
    """Repository: a folder, or the URL of an object store; `rbf-repo init` has made it."""
    keys: str
    """Keyring of the online roles, a folder."""
    created: datetime
    """Wall time of publication, with its time zone."""
    channel: Channel = "stable"
    """Channel that will point to it."""


class PublishResult(Contract):
    """A release that is published."""

    version: int
    """Its version."""
    manifest: TargetFile
    """Its manifest."""
    model: TargetFile
    """Its model."""
    published_at: float | None = None
    """When the repository pointed to it, s since the Unix epoch; none if an earlier call did it."""


def publish(task: PublishTask) -> PublishResult:
    """Publish a candidate as a release; a call that finds it published returns it.

    Raises
    ------
    PublishError
        If the candidate is not accepted, or the version is taken by another model or below the
        newest. Its kinds: `RepositoryConflict`, `RepositoryDamaged`, `SigningError`.
    ValidationError
        If the model is not what was validated.
    TrainingError
        If the folder holds no candidate.
    OSError
        If the repository cannot be written; what it serves is unchanged.
    """
    folder = Path(task.candidate)
    candidate = read_candidate(folder)
    serving, model = read_serving(folder), serving_model(folder)
    validation = _accepted(folder, serving)
    if candidate.site != task.site:
        msg = f"{folder}: trained for another version of site {task.site.name}; train it again"
        raise PublishError(msg, folder=str(folder))
    if task.created.tzinfo is None:
        msg = "created has no time zone; give one"
        raise PublishError(msg, created=task.created)
    repository = Repository(open_store(task.repository), Keyring(Path(task.keys)))
    with repository.exclusive() as state:
        index = repository.index(state, task.site.name)
        newest = max((r.version for r in index.releases), default=0)
        if task.version <= newest:
            return _published(repository, index, task.version, serving)
        delta = serving_delta(folder) if _has_base(repository, index, serving) else None
        release, files = _release(task, candidate, validation, serving, model, delta)
        lineage = _lineage(task, candidate, validation)
        origin = _target(f"{task.site.name}/{task.version}/lineage.json", lineage)
        provenance = Provenance(
            code=code_version(),
            signed_by=tuple(sorted(state.root.signed.roles["targets"].keyids)),
            lineage=origin,
        )
        release = release.model_copy(update={"provenance": provenance})
        data = release.model_dump_json(indent=1).encode() + b"\n"
        manifest = _target(f"{task.site.name}/{task.version}/release.json", data)
        ref = ReleaseRef(version=task.version, manifest=manifest)
        index = edits.promoted(edits.listed(index, ref), task.version, task.channel)
        repository.commit(state, index, {**dict(files), origin: lineage, manifest: data})
    return PublishResult(
        version=task.version, manifest=manifest, model=release.model, published_at=time.time()
    )


def golden_inputs(candidate: Candidate) -> np.ndarray:
    """Return inputs to run before serving: corners of the range, and points inside.

    Returns
    -------
    (4, columns) float32
    """
    from apps.surrogates.export import trial_inputs

    low = np.array([v.minimum for v in candidate.inputs])
    high = np.array([v.maximum for v in candidate.inputs])
    inside = trial_inputs(candidate.inputs, 2)
    return np.concatenate([np.stack([low, high]), inside]).astype(np.float32)


def stored(expected: np.ndarray) -> np.ndarray:
    """Return golden outputs in units of `GOLDEN_STEP`: half the bytes, and small beside a delta.

    Rounding takes a quarter of `GOLDEN_TOLERANCE`.

    Parameters
    ----------
    expected : (n, ...) float32
        An output, m/s or dimensionless.

    Returns
    -------
    (n, ...) int16, or int32 where a value is beyond 16
    """
    units = np.rint(expected / GOLDEN_STEP)
    small = np.abs(units).max() <= np.iinfo(np.int16).max
    return np.asarray(units, np.int16 if small else np.int32)


def _accepted(folder: Path, serving: Serving) -> ValidateResult:
    path = folder / VALIDATION
    try:
        validation = read_validation(folder)
    except ValidationError as error:
        raise PublishError(str(error), file=str(path)) from error
    if validation.model_sha256 != serving.model_sha256:
        msg = f"{path}: of another model; validate the candidate again"
        raise PublishError(msg, file=str(path))
    if not validation.verdict.accepted:
        msg = f"{folder}: refused by the gate: {'; '.join(validation.verdict.reasons)}"
        raise PublishError(msg, folder=str(folder))
    if len(validation.scores) < 2 or validation.uncertainty is None:
        msg = f"{path}: scores are incomplete, a prediction is not finite; train again"
        raise PublishError(msg, file=str(path))
    return validation


def _release(
    task: PublishTask,
    candidate: Candidate,
    validation: ValidateResult,
    serving: Serving,
    model: bytes,
    delta: bytes | None,
) -> tuple[Release, list[tuple[TargetFile, bytes]]]:
    """Return the manifest and the files that it names."""
    from apps.surrogates.export import run_model

    base = f"{task.site.name}/{task.version}"
    inputs = golden_inputs(candidate)
    outputs = run_model(model, inputs)
    files = {
        "model.onnx": model,
        **({} if delta is None else {DELTA: delta}),
        "golden_inputs.npy": _npy(inputs),
        **{f"golden_{name}.npy": _npy(stored(value)) for name, value in outputs.items()},
    }
    targets = {name: _target(f"{base}/{name}", data) for name, data in files.items()}
    if validation.uncertainty is None:
        msg = "unreachable: checked by _accepted"
        raise AssertionError(msg)
    release = Release(
        name=task.site.name,
        version=task.version,
        created=task.created,
        site_digest=task.site.content_digest(),
        family=candidate.family,
        feature_map=candidate.feature_map,
        inputs=candidate.inputs,
        outputs=tuple(_described_output(name) for name in outputs),
        grid=task.site.grid(),
        sensors=task.site.sensors,
        model=targets["model.onnx"],
        delta=_described(serving, targets.get(DELTA)),
        golden=Golden(
            inputs=targets["golden_inputs.npy"],
            outputs={name: targets[f"golden_{name}.npy"] for name in outputs},
            step=GOLDEN_STEP,
            absolute_tolerance=GOLDEN_TOLERANCE,
        ),
        training=candidate.training,
        site_state=candidate.site_state,
        frozen_sets=validation.frozen_sets,
        scores=validation.scores,
        uncertainty=validation.uncertainty,
        reading_errors=candidate.readings,
        environment=candidate.environment,
    )
    return release, [(targets[name], data) for name, data in files.items()]


def _described_output(name: str) -> OutputVariable:
    field = name in (WIND, WIND_STD)
    described = {"unit": "m s-1"} if field else {"unit": "1", "dims": ROW_DIMS}
    return OutputVariable.model_validate({"name": name, **described})


def _lineage(task: PublishTask, candidate: Candidate, validation: ValidateResult) -> bytes:
    run = Path(task.candidate).resolve().parent.parent
    found = read_lineage(
        run,
        task.site.name,
        task.version,
        candidate.simulations,
        candidate.correction,
        validation.frozen_sets,
    )
    return found.canonical_json() + b"\n"


def _described(serving: Serving, file: TargetFile | None) -> Delta | None:
    made = serving.delta
    if made is None or file is None:
        return None
    return Delta(
        base_version=made.base_version, base_sha256=made.base_sha256, file=file, bits=made.bits
    )


def _has_base(repository: Repository, index: Index, serving: Serving) -> bool:
    """Return whether devices have what a delta starts from."""
    made = serving.delta
    ref = index.release(made.base_version) if made else None
    if made is None or ref is None:
        return False
    base = Release.model_validate_json(read_target(repository.store, ref.manifest))
    return base.model.sha256 == made.base_sha256


def _published(
    repository: Repository, index: Index, version: int, serving: Serving
) -> PublishResult:
    ref = index.release(version)
    if ref is None:
        msg = f"version {version} is below the newest, {index.releases[-1].version}; versions grow"
        raise PublishError(msg, version=version)
    release = Release.model_validate_json(read_target(repository.store, ref.manifest))
    if release.model.sha256 != serving.model_sha256:
        msg = f"version {version} is already published with another model; take the next version"
        raise PublishError(msg, version=version)
    return PublishResult(version=version, manifest=ref.manifest, model=release.model)


def _target(path: str, data: bytes) -> TargetFile:
    return TargetFile(path=path, sha256=sha256(data), length=len(data))


def _npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
    return buffer.getvalue()
