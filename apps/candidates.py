"""What a trained candidate is on disk: a folder, whole or not there."""

from __future__ import annotations

import io
import platform
import shutil
import uuid
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from apps.correction import Correction
from apps.errors import TrainingError
from apps.space import WIND, Space
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.features import FeatureMap, InputVariable
from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import Digest, ReadingErrors, TrainingData
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from edge_agent.contracts.storage import fsync, write_bytes

MODEL = "model.onnx"
CANDIDATE = "candidate.json"
#: What a later training can start from (`apps.surrogates.base.Surrogate.state`).
STATE = "state.npz"


class Contender(Contract):
    """A family that was tried."""

    family: str
    """Its name."""
    candidate: Digest | None
    """Its own candidate; none if it could not be trained."""
    rmse: float | None = None
    """On the selection set, m/s; none if a prediction there is not finite."""
    latency_ms: float | None = None
    """Of one answer in ONNX Runtime on one thread, milliseconds: the shortest of many."""
    reason: str = ""
    """Why it was not chosen; empty for the one that was."""


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
    """What training chose: orders, strengths, error on runs left out."""
    seed: int
    """Of every random choice."""
    threads: int
    """Threads of linear algebra."""
    simulations: tuple[Digest, ...]
    """Training simulations, sorted."""
    previous: Digest | None = None
    """Candidate that training started from."""
    contenders: tuple[Contender, ...] = ()
    """Families that it was chosen from, itself included; none if only one was asked for."""
    correction: Correction | None = None
    """Pairs that corrected them."""
    site_state: SiteState | None = None
    """State of the house that they were made for."""
    space: Space = WIND
    """What of the state of the house it takes beside the wind."""
    readings: ReadingErrors | None = None
    """What it assumes of readings; none if it takes no interior sensors."""
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
    """Wall time of training and export, s; of a training in several blocks, that of the last."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(variable.name for variable in self.inputs)


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


def read_state(folder: Path) -> dict[str, np.ndarray] | None:
    """Return what a training can start from, None if there is none or it is damaged."""
    try:
        with np.load(folder / STATE, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def state_bytes(state: dict[str, np.ndarray]) -> bytes:
    """Return a state as a file; equal states are equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(sorted(state.items())))
    return buffer.getvalue()


def write_candidate(folder: Path, model: bytes, state: bytes, candidate: Candidate) -> None:
    """Write a candidate's folder, whole or not at all; one that is there already stays.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; no half candidate is left.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        write_bytes(partial / MODEL, model)
        write_bytes(partial / STATE, state)
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


def environment(*more: str) -> dict[str, str]:
    """Return the versions of what makes a model; `more` names further packages."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("numpy", "onnx", "onnxruntime", "reverse-backfill", *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
