"""Train a surrogate on finished simulations: a candidate folder, whole or not there."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from apps.candidates import (
    CANDIDATE,
    MODEL,
    STATE,
    Candidate,
    Contender,
    environment,
    read_candidate,
    read_state,
    state_bytes,
    write_candidate,
)
from apps.correction import Correction, load_truth
from apps.deadline import Unlimited, require
from apps.errors import TrainingError
from apps.simulators.base import Control
from apps.surrogates.base import Conditions, WarmStart, family, family_settings
from apps.tensors import tensor_values
from apps.transport import serving_model
from edge_agent.contracts.features import FeatureMap, InputVariable, MastLogLaw
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.release import Digest, TrainingData
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState

#: Time to import torch, read the runs and take a step, s: enough to begin or go on with a training
#: that can be stopped.
_START_SECONDS = 15.0


class TrainTask(Contract):
    """What to train, and on what."""

    site: Site
    """Whose wind."""
    family: str | tuple[str, ...] = "pod_regression"
    """Surrogate family; of several, each is trained and the best is taken (`apps.choice`)."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the family that differ from its defaults; by family if there are several."""
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
    previous: Digest | None = None
    """Candidate in the same folder to start from; one that is gone is not missed."""
    served: Digest | None = None
    """Of the model that `previous` serves as: training starts from what devices have, which a delta
    may have rounded; none to start from what was trained."""
    keep_basis: bool = False
    """Whether its POD modes stay and new ones are only added; not without `previous`."""
    selection: tuple[Digest, ...] = ()
    """Selection set, to choose a family by; needed if there are several."""
    latency_limit_ms: Annotated[float, Field(gt=0)] = 5.0
    """Longest time of one answer on one thread of a family that may be chosen, ms."""
    expected_seconds: Annotated[float, Field(ge=0)] = 0.0
    """What the training is expected to take, s; one that cannot go on from a checkpoint is not
    begun in a block that ends before."""

    @property
    def families(self) -> tuple[str, ...]:
        """Every family asked for."""
        return (self.family,) if isinstance(self.family, str) else self.family

    def digest(self) -> str:
        """Return the candidate's name: sha256 over all that determines it, paths left out.

        Raises
        ------
        TrainingError
            If family or settings do not exist.
        """
        until = self.data_until
        known: dict[str, Any] = {
            "site": self.site.content_digest(),
            **_family_digest(self),
            "digests": sorted(self.digests),
            "seed": self.seed,
            "threads": self.threads,
            "data_until": None if until is None else until.isoformat(),
            "correction": None
            if self.correction is None
            else self.correction.model_dump(mode="json"),
        }
        # Candidates without what follows keep their names.
        if self.previous is not None:
            known |= {"previous": self.previous, "keep_basis": self.keep_basis}
            known |= {} if self.served is None else {"served": self.served}
        if self.site_state is not None:
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


def train(task: TrainTask, control: Control | None = None) -> TrainResult:
    """Train a surrogate and write ``candidates/DIGEST/``; what exists is returned as it is.

    The same task gives the same model, byte for byte, however often it was stopped before: nothing
    is drawn but from its seed, and nothing is written before it is whole. Networks go on from their
    checkpoint; what is fitted in closed form within seconds begins anew. Of several families each
    gets a candidate of its own, and the task's is a copy of the best: which that is depends on
    measured latencies too, and is written down once.

    Parameters
    ----------
    task : TrainTask
    control : Control, optional
        Asked before each step (read, fit, export); by default nothing ends the training.

    Raises
    ------
    OutOfTime
        If the next step would not fit; no candidate is written.
    TrainingError
        If there are too few runs, a value is not finite, the export does not fit the model, or of
        several families none can be used.
    DatasetError
        If a simulation cannot be read.
    OSError
        If the disk is full or the folder cannot be written; no half candidate is left.
    """
    digest = task.digest()
    folder = Path(task.candidates) / digest
    if not (folder / CANDIDATE).is_file():
        control = Unlimited() if control is None else control
        if isinstance(task.family, str):
            _train_one(task, task.family, folder, control)
        else:
            _train_several(task, folder, control)
    # Another worker may have been first; then its candidate is the one that counts.
    return _result(folder, read_candidate(folder))


def _train_one(task: TrainTask, name: str, folder: Path, control: Control) -> None:
    from apps.datasets import set_digest
    from apps.surrogates.blas import blas_threads
    from apps.surrogates.export import canonical_bytes, check_parity

    kind, settings = family(name), family_settings(name, task.settings)
    expected = min(task.expected_seconds, _START_SECONDS if kind.resumable else np.inf)
    require(control, expected, "training")
    started = time.monotonic()
    data = load_truth(Path(task.store), sorted(task.digests), task.site, task.correction)
    require(control, expected / 2, "the fit")
    checkpoint = folder.with_name(f".{folder.name}.checkpoint")
    conditions = Conditions(control, checkpoint, task.threads, _warm_start(task, name))
    with blas_threads(task.threads):
        surrogate = kind.fit(data, task.site, settings, task.seed, conditions)
        require(control, 0.0, "the export")
        model = canonical_bytes(surrogate.to_onnx())
        low, high = float(data.wind_speed.min()), float(data.wind_speed.max())
        parity = check_parity(surrogate, model, low, high)
    feature_map = MastLogLaw.for_site(task.site)
    candidate = Candidate(
        digest=task.digest(),
        site=task.site,
        family=name,
        code_version=kind.version,
        settings=settings.model_dump(mode="json"),
        chosen=surrogate.summary(),
        seed=task.seed,
        threads=task.threads,
        simulations=tuple(sorted(task.digests)),
        previous=task.previous,
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
        environment=environment(*kind.packages),
        seconds=time.monotonic() - started,
    )
    write_candidate(folder, model, state_bytes(surrogate.state()), candidate)
    checkpoint.unlink(missing_ok=True)


def _train_several(task: TrainTask, folder: Path, control: Control) -> None:
    from apps.choice import choose

    if not task.selection:
        msg = "to choose among families a selection set is needed; give one, or one family"
        raise TrainingError(msg, families=task.families)
    started = time.monotonic()
    contenders = []
    for name in task.families:
        own = task.model_copy(update={"family": name, "settings": task.settings.get(name, {})})
        try:
            result = train(own, control)
        except TrainingError as error:
            contenders.append(Contender(family=name, candidate=None, reason=str(error)))
            continue
        require(control, 0.0, "the choice of a family")
        contenders.append(_contender(task, name, Path(result.folder)))
    judged = choose(contenders, task.latency_limit_ms)
    best = next(c.candidate for c in judged if c.candidate is not None and not c.reason)
    source = folder.with_name(best)
    candidate = read_candidate(source).model_copy(
        update={
            "digest": task.digest(),
            "contenders": judged,
            "seconds": time.monotonic() - started,
        }
    )
    model, state = ((source / file).read_bytes() for file in (MODEL, STATE))
    write_candidate(folder, model, state, candidate)


def _contender(task: TrainTask, name: str, folder: Path) -> Contender:
    from apps import scores
    from apps.choice import latency_ms
    from apps.surrogates.export import run_onnx

    model = (folder / MODEL).read_bytes()
    truth = load_truth(Path(task.store), sorted(task.selection), task.site, task.correction)
    inputs = np.stack([truth.wind_speed, truth.wind_from_direction], axis=1).astype(np.float32)
    wind, std = run_onnx(model, inputs)
    finite = bool(np.isfinite(wind).all() and np.isfinite(std).all())
    return Contender(
        family=name,
        candidate=folder.name,
        rmse=scores.rmse(truth.wind, wind) if finite else None,
        latency_ms=latency_ms(model, inputs[:1]),
    )


def _warm_start(task: TrainTask, name: str) -> WarmStart | None:
    """Return what the previous candidate left for this family, None if it left nothing."""
    if task.previous is None:
        return None
    folder = Path(task.candidates) / task.previous
    try:
        candidate = read_candidate(folder)
        served, keep = task.served, task.keep_basis
        own = next((c.candidate for c in candidate.contenders if c.family == name), None)
        if candidate.family != name:  # of several it has the best one's state only
            served, keep = None, False
            if own is not None:
                folder = folder.with_name(own)
                candidate = read_candidate(folder)
    except TrainingError:
        return None
    state = read_state(folder)
    if candidate.family != name or state is None:
        return None
    if served is not None:
        state = _as_served(state, folder, served)
    return WarmStart(state, frozenset(candidate.simulations), keep)


def _as_served(state: dict[str, np.ndarray], folder: Path, served: str) -> dict[str, np.ndarray]:
    """Return a state with the tensors of the model that serves, where it has them."""
    model = serving_model(folder)
    if sha256(model) != served:
        msg = f"{folder} serves as another model by now; plan the training anew"
        raise TrainingError(msg, folder=str(folder))
    known = tensor_values(model)
    return state | {k: known[k] for k, v in state.items() if k in known and _is(known[k], v)}


def _is(served: np.ndarray, trained: np.ndarray) -> bool:
    """Tell whether a tensor is the trained one, rounded; an exporter may have turned it round."""
    if served.shape != trained.shape:
        return False
    away = np.linalg.norm(served.astype(float) - trained)
    return bool(away <= 0.3 * np.linalg.norm(trained.astype(float)))


def _family_digest(task: TrainTask) -> dict[str, Any]:
    if isinstance(task.family, str):
        settings = family_settings(task.family, task.settings)
        return {
            "family": task.family,
            "code_version": family(task.family).version,
            "settings": settings.model_dump(mode="json"),
        }
    unknown = sorted(set(task.settings) - set(task.family))
    if unknown:
        msg = f"settings of {', '.join(unknown)}, which is not among the families"
        raise TrainingError(msg, families=task.family)
    return {
        "family": list(task.family),
        "code_version": [family(n).version for n in task.family],
        "settings": {
            n: family_settings(n, task.settings.get(n, {})).model_dump(mode="json")
            for n in task.family
        },
        "selection": sorted(task.selection),
        "latency_limit_ms": task.latency_limit_ms,
    }


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


def _result(folder: Path, candidate: Candidate) -> TrainResult:
    return TrainResult(
        candidate=candidate.digest,
        folder=str(folder),
        seconds=candidate.seconds,
        simulations=len(candidate.simulations),
    )
