"""Train a surrogate on finished simulations: a candidate folder, whole or not there."""

from __future__ import annotations

import platform
import shutil
import time
import uuid
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from apps.correction import Correction, load_truth
from apps.deadline import Unlimited, require
from apps.errors import TrainingError
from apps.simulators.base import Control
from apps.surrogates.base import family, family_settings
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.features import FeatureMap, InputVariable, MastLogLaw
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.release import Digest, TrainingData
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from edge_agent.contracts.storage import fsync, write_bytes

MODEL = "model.onnx"
CANDIDATE = "candidate.json"


class TrainTask(Contract):
    """What to train, and on what."""

    site: Site
    """Whose wind."""
    family: str = "pod_regression"
    """Surrogate family."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the family that differ from its defaults."""
    digests: tuple[Digest, ...]
    """Training simulations."""
    store: str
    """Folder of simulations."""
    candidates: str
    """Folder that candidates go to."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of every random choice."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of linear algebra; part of the digest, since sums depend on it in the last bit."""
    data_until: datetime | None = None
    """Data time of the newest reading that steered the simulations."""
    correction: Correction | None = None
    """Pairs that correct the simulations; none if they are taken as they are."""
    site_state: SiteState | None = None
    """Estimated state of the house that the simulations were made for; goes into the release."""
    expected_seconds: Annotated[float, Field(ge=0)] = 0.0
    """What the training is expected to take, s; not begun in a block that ends before."""

    def digest(self) -> str:
        """Return the candidate's name: sha256 over all that determines it, paths left out.

        Raises
        ------
        TrainingError
            If family or settings do not exist.
        """
        settings = family_settings(self.family, self.settings)
        until = self.data_until
        known = {
            "site": self.site.content_digest(),
            "family": self.family,
            "code_version": family(self.family).version,
            "settings": settings.model_dump(mode="json"),
            "digests": sorted(self.digests),
            "seed": self.seed,
            "threads": self.threads,
            "data_until": None if until is None else until.isoformat(),
            "correction": None
            if self.correction is None
            else self.correction.model_dump(mode="json"),
        }
        if self.site_state is not None:  # candidates without one keep their names
            known["site_state"] = self.site_state.model_dump(mode="json")
        return sha256(canonical_json(known))


class TrainResult(Contract):
    """A candidate that exists."""

    candidate: Digest
    """Its digest."""
    folder: str
    """Where it lies."""
    seconds: float
    """Wall time that its training took, s."""
    simulations: int
    """Training simulations."""


class Candidate(Contract):
    """``candidate.json``: a trained surrogate that is not (yet) published."""

    format: str = Field(default="rbf-candidate/1", pattern=r"^rbf-candidate/1$")
    """Version of this contract."""
    digest: Digest
    """Of the task."""
    site: Site
    """Whose wind."""
    family: str
    """Surrogate family."""
    code_version: str
    """Declared by the family."""
    settings: dict[str, Any]
    """Complete settings of the family."""
    chosen: dict[str, Any]
    """What training chose: orders, strengths, leave-one-out error."""
    seed: int
    """Of every random choice."""
    threads: int
    """Threads of linear algebra."""
    simulations: tuple[Digest, ...]
    """Training simulations, sorted."""
    correction: Correction | None = None
    """Pairs that corrected them."""
    site_state: SiteState | None = None
    """State of the house that they were made for."""
    training: TrainingData
    """The same in short, as releases carry it."""
    feature_map: FeatureMap
    """How readings become inputs."""
    inputs: tuple[InputVariable, ...]
    """Columns of the input, with the range that training covers."""
    model_sha256: Digest
    """Of ``model.onnx``."""
    parity: float
    """Largest difference of the exported model to the trained one, share of the largest value."""
    environment: dict[str, str]
    """Versions of what made it."""
    seconds: float
    """Wall time of training and export, s."""


def train(task: TrainTask, control: Control | None = None) -> TrainResult:
    """Train a surrogate and write ``candidates/DIGEST/``; what exists is returned as it is.

    The same task gives the same model, byte for byte, however often it was stopped before: nothing
    is drawn but from its seed, and nothing is written before it is whole. The families so far are
    fitted in closed form within seconds, so a training that is stopped begins anew.

    Parameters
    ----------
    task : TrainTask
    control : Control, optional
        Asked before each step (read, fit, export); by default nothing ends the training.

    Raises
    ------
    OutOfTime
        If the next step would not fit; nothing is written.
    TrainingError
        If there are too few runs, a value is not finite, or the export does not fit the model.
    DatasetError
        If a simulation cannot be read.
    OSError
        If the disk is full or the folder cannot be written; no half candidate is left.
    """
    from apps.datasets import set_digest
    from apps.surrogates.blas import blas_threads
    from apps.surrogates.export import canonical_bytes, check_parity

    digest = task.digest()
    folder = Path(task.candidates) / digest
    if (folder / CANDIDATE).is_file():
        return _result(folder, read_candidate(folder))
    control = Unlimited() if control is None else control
    require(control, task.expected_seconds, "training")
    started = time.monotonic()
    kind, settings = family(task.family), family_settings(task.family, task.settings)
    data = load_truth(Path(task.store), sorted(task.digests), task.site, task.correction)
    require(control, task.expected_seconds / 2, "the fit")
    with blas_threads(task.threads):
        surrogate = kind.fit(data, task.site, settings, task.seed)
        require(control, 0.0, "the export")
        model = canonical_bytes(surrogate.to_onnx())
        low, high = float(data.wind_speed.min()), float(data.wind_speed.max())
        parity = check_parity(surrogate, model, low, high)
    feature_map = MastLogLaw.for_site(task.site)
    candidate = Candidate(
        digest=digest,
        site=task.site,
        family=task.family,
        code_version=kind.version,
        settings=settings.model_dump(mode="json"),
        chosen=surrogate.summary(),
        seed=task.seed,
        threads=task.threads,
        simulations=tuple(sorted(task.digests)),
        correction=task.correction,
        site_state=task.site_state,
        training=TrainingData(
            digest=set_digest(task.digests),
            size=len(task.digests),
            data_until=task.data_until,
            correction=None if task.correction is None else task.correction.content_digest(),
        ),
        feature_map=feature_map,
        inputs=input_variables(feature_map, low, high),
        model_sha256=sha256(model),
        parity=parity,
        environment=environment(),
        seconds=time.monotonic() - started,
    )
    _write(folder, model, candidate)
    # Another worker may have been first; then its candidate is the one that counts.
    return _result(folder, read_candidate(folder))


def read_candidate(folder: Path) -> Candidate:
    """Return what is known of a candidate.

    Raises
    ------
    TrainingError
        If the folder holds none, or another version's.
    """
    try:
        return Candidate.model_validate_json((folder / CANDIDATE).read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{folder}: not a candidate ({type(error).__name__}); train it again"
        raise TrainingError(msg, folder=str(folder)) from error


def input_variables(feature_map: FeatureMap, low: float, high: float) -> tuple[InputVariable, ...]:
    """Return the inputs of a model trained on wind speeds from `low` to `high` (m/s).

    Directions are a circle, and its whole is in range: a gap in the runs widens ``wind_std``.
    """
    # Inputs are float32: an end rounded inwards would put its own run out of range.
    down = float(np.nextafter(np.float32(low), np.float32(0)))
    up = float(np.nextafter(np.float32(high), np.float32(np.inf)))
    ranges = {"wind_speed": (down, up), "wind_from_direction": (0.0, 360.0)}
    return tuple(
        InputVariable(name=name, unit=unit, minimum=ranges[name][0], maximum=ranges[name][1])
        for name, unit in feature_map.columns
    )


def environment() -> dict[str, str]:
    """Return the versions of what makes a model."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("numpy", "onnx", "onnxruntime", "reverse-backfill"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _write(folder: Path, model: bytes, candidate: Candidate) -> None:
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        write_bytes(partial / MODEL, model)
        write_bytes(partial / CANDIDATE, candidate.model_dump_json(indent=1).encode() + b"\n")
        failpoint("train.partial")
        try:
            partial.rename(folder)
        except OSError:
            # A folder with files cannot be renamed over: somebody else finished it.
            if not (folder / CANDIDATE).is_file():
                raise
        fsync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _result(folder: Path, candidate: Candidate) -> TrainResult:
    return TrainResult(
        candidate=candidate.digest,
        folder=str(folder),
        seconds=candidate.seconds,
        simulations=len(candidate.simulations),
    )
