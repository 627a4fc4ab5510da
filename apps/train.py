"""Train a surrogate on finished simulations: a candidate folder, whole or not there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.answers import model_inputs, sensor_weights
from apps.candidates import (
    CANDIDATE,
    MODEL,
    STATE,
    Candidate,
    Contender,
    environment,
    read_candidate,
    state_bytes,
    write_candidate,
)
from apps.correction import discrepancy, load_truth
from apps.deadline import Unlimited, require
from apps.errors import TrainingError
from apps.input_variables import input_variables
from apps.simulators.base import Control
from apps.surrogates.base import Conditions, Surrogate, family, family_settings
from apps.train_task import TrainResult, TrainTask
from apps.transport import serving_model
from apps.warm_start import same_but_state, warm_start
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TrainingData

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet
    from apps.surrogates.served import Served

__all__ = ["TrainResult", "TrainTask", "train"]

#: What families call the error on runs that were left out, in their summaries.
LEFT_OUT = ("leave_one_out_relative_l2", "left_out_relative_l2")
#: Time to import torch, read the runs and take a step, s: enough to begin or go on with a training
#: that can be stopped.
_START_SECONDS = 15.0


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
    from apps.surrogates.blas import blas_threads
    from apps.surrogates.export import canonical_bytes, check_parity

    kind = family(name)
    expected = min(task.expected_seconds, _START_SECONDS if kind.resumable else np.inf)
    require(control, expected, "training")
    started = time.monotonic()
    data = load_truth(
        Path(task.store), sorted(task.digests), task.site, task.correction, task.space
    )
    candidate = _candidate(task, name, data)
    if (again := same_but_state(task, candidate)) is not None:
        _take_over(candidate, *again, folder, started)
        return
    require(control, expected / 2, "the fit")
    checkpoint = folder.with_name(f".{folder.name}.checkpoint")
    conditions = Conditions(control, checkpoint, task.threads, warm_start(task, name))
    settings = family_settings(name, task.settings)
    with blas_threads(task.threads):
        surrogate = kind.fit(data, task.site, settings, task.seed, conditions)
        require(control, 0.0, "the export")
        served = _served(task, data, surrogate)
        model = canonical_bytes(served.to_onnx())
        parity = check_parity(served.predict, model, candidate.inputs)
    chosen = surrogate.summary()
    if task.correction is not None:
        fixed = discrepancy(Path(task.store), task.site, task.correction, task.space)
        chosen |= {"correction": fixed.method, "correction_left_out": fixed.left_out}
    found = {
        "chosen": chosen,
        "model_sha256": sha256(model),
        "parity": parity,
        "seconds": time.monotonic() - started,
    }
    whole = candidate.model_copy(update=found)
    write_candidate(folder, model, state_bytes(surrogate.state()), whole)
    checkpoint.unlink(missing_ok=True)


def _candidate(task: TrainTask, name: str, data: SimulationSet) -> Candidate:
    """Return what is known of a candidate before it is trained."""
    from apps.datasets import set_digest

    kind = family(name)
    return Candidate(
        digest=task.digest(),
        site=task.site,
        family=name,
        code_version=kind.version,
        settings=family_settings(name, task.settings).model_dump(mode="json"),
        chosen={},
        seed=task.seed,
        threads=task.threads,
        simulations=tuple(sorted(task.digests)),
        previous=task.previous,
        correction=task.correction,
        site_state=task.site_state,
        space=task.space,
        readings=task.readings,
        training=TrainingData(
            digest=set_digest(task.digests),
            size=len(task.digests),
            data_until=task.data_until,
            correction=None if task.correction is None else task.correction.content_digest(),
        ),
        feature_map=task.feature_map,
        inputs=input_variables(task.feature_map, data, task.site, task.site_state),
        model_sha256="0" * 64,
        parity=0.0,
        environment=environment(*kind.packages),
        seconds=0.0,
    )


def _take_over(
    candidate: Candidate, before: Candidate, source: Path, folder: Path, started: float
) -> None:
    """Write a candidate that differs from the one before in its state alone: the same model."""
    model = serving_model(source)
    found = {
        "chosen": before.chosen,
        "contenders": before.contenders,
        "model_sha256": sha256(model),
        "parity": before.parity,
        "environment": before.environment,
        "seconds": time.monotonic() - started,
    }
    state = (source / STATE).read_bytes()
    write_candidate(folder, model, state, candidate.model_copy(update=found))


def _served(task: TrainTask, data: SimulationSet, surrogate: Surrogate) -> Served:
    from apps.surrogates.assimilation import Assimilation
    from apps.surrogates.places import Places
    from apps.surrogates.served import Served
    from apps.surrogates.symmetry import symmetries

    assimilation = None
    if task.readings is not None:
        assimilation = Assimilation.of(task.space, task.readings, sensor_weights(task.site))
    return Served(
        surrogate=surrogate,
        places=Places.of(data, task.site, symmetries(task.site)),
        runs=data.inputs,
        shape=task.site.grid().shape,
        assimilation=assimilation,
    )


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
    truth = load_truth(
        Path(task.store), sorted(task.selection), task.site, task.correction, task.space
    )
    columns = read_candidate(folder).columns
    inputs = model_inputs(truth, columns, task.site, task.readings)
    wind, std = run_onnx(model, inputs)
    finite = bool(np.isfinite(wind).all() and np.isfinite(std).all())
    return Contender(
        family=name,
        candidate=folder.name,
        rmse=scores.rmse(truth.wind, wind) if finite else None,
        latency_ms=latency_ms(model, inputs[:1]),
    )


def _result(folder: Path, candidate: Candidate) -> TrainResult:
    return TrainResult(
        candidate=candidate.digest,
        folder=str(folder),
        seconds=candidate.seconds,
        simulations=len(candidate.simulations),
        left_out=next((v for k, v in candidate.chosen.items() if k in LEFT_OUT), None),
        correction_left_out=candidate.chosen.get("correction_left_out"),
    )
