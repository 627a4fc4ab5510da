"""Publish a candidate: its files, the release manifest, then the index that points to it.

The order is the safety: targets, manifest, index. Files are named by digest and never change, so
whoever reads the index finds everything that it points to, and a publisher killed anywhere leaves
at worst files that nothing points to, which the next call finds in place. The creation time comes
with the task, so a repeated call makes equal bytes.
"""

from __future__ import annotations

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic
from pydantic import Field

from apps.errors import PublishError
from apps.repository import edits
from apps.surrogates.base import WIND, WIND_STD
from apps.train import Candidate, read_candidate
from apps.transport import DELTA, Serving, read_serving, serving_delta, serving_model
from apps.validate import VALIDATION, ValidateResult
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Delta, Golden, OutputVariable, Release, TargetFile
from edge_agent.contracts.repository import (
    INDEX,
    Channel,
    Index,
    ReleaseRef,
    target_file,
)
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import write_bytes

#: What another machine's ONNX Runtime may differ by, m/s; faults are a hundred times larger.
GOLDEN_TOLERANCE = 1e-3
LOCK = "publish.lock"


class PublishTask(Contract):
    """What to publish, and where."""

    site: Site
    """Whose wind; its name is the model's."""
    version: Annotated[int, Field(ge=1)]
    """Only grows; reserved before publishing."""
    candidate: str
    """Folder of the candidate, validated and accepted."""
    repository: str
    """Repository folder."""
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


class IndexWriter:
    """The only one that touches ``metadata/``: signed metadata will take its place.

    Parameters
    ----------
    repository : Path
    name : str
        Model name.
    """

    def __init__(self, repository: Path, name: str) -> None:
        self._path = repository / INDEX
        self._name = name

    def read(self) -> Index:
        """Return the index, empty before the first release.

        Raises
        ------
        PublishError
            If it is not an index, or another model's.
        """
        try:
            index = Index.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Index(name=self._name)
        except pydantic.ValidationError as error:
            msg = f"{self._path}: not a repository's index; restore it from a copy"
            raise PublishError(msg, file=str(self._path)) from error
        if index.name != self._name:
            msg = f"{self._path} is of model {index.name!r}, not {self._name!r}; use another folder"
            raise PublishError(msg, file=str(self._path))
        return index

    def add(self, index: Index, ref: ReleaseRef, channel: Channel) -> None:
        """Replace the index by one that lists `ref` and points `channel` to it."""
        new = edits.promoted(edits.listed(index, ref), ref.version, channel)
        write_bytes(self._path, new.model_dump_json(indent=1).encode() + b"\n")


def publish(task: PublishTask) -> PublishResult:
    """Publish a candidate as a release; a call that finds it published returns it.

    Raises
    ------
    PublishError
        If the candidate is not accepted, the version is taken by another model or below the newest,
        or the repository is another model's.
    ValidationError
        If the model is not what was validated.
    TrainingError
        If the folder holds no candidate.
    OSError
        If the repository cannot be written; what it serves is unchanged.
    """
    folder, repository = Path(task.candidate), Path(task.repository)
    candidate = read_candidate(folder)
    serving, model = read_serving(folder), serving_model(folder)
    validation = _accepted(folder, serving)
    if candidate.site != task.site:
        msg = f"{folder}: trained for another version of site {task.site.name}; train it again"
        raise PublishError(msg, folder=str(folder))
    if task.created.tzinfo is None:
        msg = "created has no time zone; give one"
        raise PublishError(msg, created=task.created)
    with _locked(repository):
        writer = IndexWriter(repository, task.site.name)
        index = writer.read()
        newest = max((r.version for r in index.releases), default=0)
        if task.version <= newest:
            return _published(repository, index, task.version, serving)
        delta = serving_delta(folder)
        if serving.delta and serving.delta.base_version not in {r.version for r in index.releases}:
            delta = None  # nobody has what it starts from
        release, files = _release(task, candidate, validation, serving, model, delta)
        failpoint("publish.targets")
        for target, data in files:
            _store(repository, target, data)
        failpoint("publish.manifest")
        data = release.model_dump_json(indent=1).encode() + b"\n"
        manifest = _target(f"{task.site.name}/{task.version}/release.json", data)
        _store(repository, manifest, data)
        failpoint("publish.index")
        writer.add(index, ReleaseRef(version=task.version, manifest=manifest), task.channel)
    return PublishResult(version=task.version, manifest=manifest, model=release.model)


def golden_inputs(candidate: Candidate) -> np.ndarray:
    """Return inputs to run before serving: corners of the range, and points inside.

    Returns
    -------
    (4, 2) float32
    """
    low = np.array([v.minimum for v in candidate.inputs])
    high = np.array([v.maximum for v in candidate.inputs])
    # Inside, shares that no grid or symmetry axis of a house meets.
    share = np.array([[0.0, 0.0], [1.0, 1.0], [0.31, 0.19], [0.72, 0.64]])
    return np.asarray(low + share * (high - low), dtype=np.float32)


def _accepted(folder: Path, serving: Serving) -> ValidateResult:
    path = folder / VALIDATION
    try:
        validation = ValidateResult.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        msg = f"{path}: the candidate is not validated; validate it first"
        raise PublishError(msg, file=str(path)) from error
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
    from apps.surrogates.export import run_onnx

    base = f"{task.site.name}/{task.version}"
    inputs = golden_inputs(candidate)
    outputs = dict(zip((WIND, WIND_STD), run_onnx(model, inputs), strict=True))
    files = {
        "model.onnx": model,
        **({} if delta is None else {DELTA: delta}),
        "golden_inputs.npy": _npy(inputs),
        **{f"golden_{name}.npy": _npy(value) for name, value in outputs.items()},
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
        outputs=(
            OutputVariable(name="wind", unit="m s-1"),
            OutputVariable(name="wind_std", unit="m s-1"),
        ),
        grid=task.site.grid(),
        sensors=task.site.sensors,
        model=targets["model.onnx"],
        delta=_described(serving, targets.get(DELTA)),
        golden=Golden(
            inputs=targets["golden_inputs.npy"],
            outputs={name: targets[f"golden_{name}.npy"] for name in outputs},
            absolute_tolerance=GOLDEN_TOLERANCE,
        ),
        training=candidate.training,
        site_state=candidate.site_state,
        frozen_sets=validation.frozen_sets,
        scores=validation.scores,
        uncertainty=validation.uncertainty,
        environment=candidate.environment,
    )
    return release, [(targets[name], data) for name, data in files.items()]


def _described(serving: Serving, file: TargetFile | None) -> Delta | None:
    made = serving.delta
    if made is None or file is None:
        return None
    return Delta(
        base_version=made.base_version, base_sha256=made.base_sha256, file=file, bits=made.bits
    )


def _published(repository: Path, index: Index, version: int, serving: Serving) -> PublishResult:
    ref = next((r for r in index.releases if r.version == version), None)
    if ref is None:
        msg = f"version {version} is below the newest, {index.releases[-1].version}; versions grow"
        raise PublishError(msg, version=version)
    path = target_file(repository, ref.manifest)
    try:
        release = Release.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        msg = f"{path}: the manifest of version {version} cannot be read; restore it from a copy"
        raise PublishError(msg, file=str(path)) from error
    if release.model.sha256 != serving.model_sha256:
        msg = f"version {version} is already published with another model; take the next version"
        raise PublishError(msg, version=version)
    return PublishResult(version=version, manifest=ref.manifest, model=release.model)


def _store(repository: Path, target: TargetFile, data: bytes) -> None:
    path = target_file(repository, target)
    # Its name is its digest; only a file of equal bytes may stay.
    if not (path.is_file() and sha256(path.read_bytes()) == target.sha256):
        write_bytes(path, data)


def _target(path: str, data: bytes) -> TargetFile:
    return TargetFile(path=path, sha256=sha256(data), length=len(data))


def _npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
    return buffer.getvalue()


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One publisher at a time; the lock goes with the process that holds it."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
