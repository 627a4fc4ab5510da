"""Score a candidate on the frozen sets, calibrate its intervals, and let the gate judge it.

``python -m apps.validate RELEASE`` recomputes the scores of a published release from its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pydantic
from pydantic import Field

from apps import baselines, scores
from apps.answers import Answer, answering, sensor_weights
from apps.candidates import read_candidate
from apps.consistency import suspicions
from apps.correction import Correction, load_truth
from apps.errors import ValidationError
from apps.gate import PREVIOUS, GateSettings, Verdict, decide
from apps.surrogates.base import WIND, WIND_STD, Predictor
from apps.transport import Base, DeltaSettings, Serving, Shown, serving_model, settle
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Digest, FrozenSet, ScoreSet, Uncertainty
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import write_bytes

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

VALIDATION = "validation.json"

SetName = Literal["selection", "calibration", "evaluation"]
Scored = Literal["selection", "evaluation"]


class ValidateTask(Contract):
    """What to score, and on what."""

    site: Site
    """Whose wind."""
    candidate: str
    """Folder of the candidate."""
    store: str
    """Folder of simulations."""
    frozen_sets: dict[SetName, tuple[Digest, ...]]
    """Simulations of each frozen set; disjoint, and disjoint from the training set."""
    fidelity: str
    """Simulator and grid that the frozen sets were made with."""
    frozen_corrected: bool = True
    """Whether the candidate's correction is added to the frozen sets; not if the dear solver made
    them."""
    previous: Base | None = None
    """The serving release; none before the first."""
    delta: DeltaSettings = DeltaSettings()
    """When the candidate may travel as a delta to it."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Nominal coverage of the intervals."""
    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share by which the selection RMSE must be below the serving release's."""
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Smallest coverage of the selection set."""
    must_beat: tuple[str, ...] = ("constant_ratio",)
    """Baselines that the first release must beat."""
    state_moved: bool = False
    """Whether the estimated state has moved since the serving release (`apps.gate`, rule 5)."""


class ValidateResult(Contract):
    """``validation.json``: what is known about a candidate's quality."""

    candidate: Digest
    """Its digest."""
    model_sha256: Digest
    """Of the model that was scored: the bytes that will serve, through ONNX Runtime."""
    previous_sha256: Digest | None
    """Of the model that it was compared with."""
    frozen_sets: dict[SetName, FrozenSet]
    """What it was scored on."""
    scores: dict[Scored, ScoreSet]
    """Selection decided; evaluation is only reported. A set with a prediction that is not finite
    has no scores."""
    uncertainty: Uncertainty | None
    """Calibration of the intervals; none if a prediction is not finite."""
    verdict: Verdict
    """What the gate says."""
    serving: Serving
    """How it travels."""


@dataclass(frozen=True)
class Assessment:
    """Scores of one model."""

    scores: dict[Scored, ScoreSet]
    factor: float | None
    limits: dict[str, float]
    """Largest value of each diagnostic on the calibration set."""
    verdict: Verdict


def validate(task: ValidateTask) -> ValidateResult:
    """Settle what a candidate serves as, score that, and write ``validation.json`` into its folder.

    Raises
    ------
    ValidationError
        If the sets are not disjoint or empty, or a model's file is not what was trained.
    DatasetError
        If a simulation cannot be read.
    OSError
        If a file cannot be read or written.
    """
    from apps.datasets import set_digest

    folder = Path(task.candidate)
    candidate = read_candidate(folder)
    check_sets(task.frozen_sets, candidate.simulations)

    def truth(digests: Iterable[str], fix: Correction | None) -> SimulationSet:
        return load_truth(Path(task.store), sorted(digests), task.site, fix, candidate.space)

    def answers(model: bytes, columns: tuple[str, ...]) -> Answer:
        return answering(model, columns, task.site, candidate.readings)

    fix = candidate.correction if task.frozen_corrected else None
    frozen = {name: truth(digests, fix) for name, digests in task.frozen_sets.items()}
    serving, model = settle(
        folder,
        task.previous,
        task.delta,
        lambda model: shown(frozen["selection"], answers(model, candidate.columns)),
    )
    before: Answer | None = None
    previous: bytes | None = None
    if task.previous is not None:
        source = Path(task.previous.folder)
        previous = serving_model(source)
        before = answers(previous, read_candidate(source).columns)
    assessment = assess(
        task.site,
        truth(candidate.simulations, candidate.correction),
        frozen,
        answers(model, candidate.columns),
        before,
        task.level,
        GateSettings(
            min_improvement=task.min_improvement,
            min_coverage=task.min_coverage,
            must_beat=task.must_beat,
            state_moved=task.state_moved,
        ),
        same_solver=task.frozen_corrected,
    )
    factor = assessment.factor
    result = ValidateResult(
        candidate=candidate.digest,
        model_sha256=serving.model_sha256,
        previous_sha256=None if previous is None else sha256(previous),
        frozen_sets={
            name: FrozenSet(
                digest=set_digest(d),
                size=len(d),
                fidelity=task.fidelity,
                corrected=task.frozen_corrected,
            )
            for name, d in task.frozen_sets.items()
        },
        scores=assessment.scores,
        uncertainty=None
        if factor is None
        else Uncertainty(
            method="split_conformal", level=task.level, factor=factor, limits=assessment.limits
        ),
        verdict=assessment.verdict,
        serving=serving,
    )
    write_bytes(folder / VALIDATION, result.model_dump_json(indent=1).encode() + b"\n")
    return result


def assess(
    site: Site,
    training: SimulationSet,
    frozen: Mapping[SetName, SimulationSet],
    answer: Answer,
    previous: Answer | None,
    level: float,
    gate: GateSettings,
    *,
    same_solver: bool = True,
) -> Assessment:
    """Score a model beside the baselines and judge it; the verdict never sees the evaluation set.

    Parameters
    ----------
    site : Site
    training : SimulationSet
        For the baselines.
    frozen : mapping
        The three frozen sets.
    answer, previous : callable
        What a model answers to simulations; the serving release's may be none.
    level : float
        Nominal coverage of the intervals.
    gate : GateSettings
    same_solver : bool
        Whether one solver made training runs and frozen sets.
    """
    calibration = frozen["calibration"]
    found = answer(calibration)
    wind, std = found.pop(WIND), found.pop(WIND_STD)
    factor = None
    limits: dict[str, float] = {}
    if _usable(wind, std):
        factor = scores.conformal_factor(calibration.wind, wind, std, level)
        # Of n values from where the frozen sets are, the next lies beyond in one of n + 1.
        limits = {name: float(values.max()) for name, values in found.items()}
    scored: dict[Scored, ScoreSet] = {}

    def add(name: Scored) -> None:
        if factor is not None:
            one = score_set(site, training, frozen[name], answer, previous, factor)
            if one is not None:
                scored[name] = one

    add("selection")
    doubts = suspicions(site, training, frozen["selection"], same_solver=same_solver)
    verdict = decide(scored.get("selection"), gate, doubts)
    add("evaluation")
    return Assessment(scored, factor, limits, verdict)


def score_set(
    site: Site,
    training: SimulationSet,
    truth: SimulationSet,
    answer: Answer,
    previous: Answer | None,
    factor: float,
) -> ScoreSet | None:
    """Return the scores on one set, or none if a prediction is not finite."""
    found = answer(truth)
    wind, std = found[WIND], found[WIND_STD]
    if not _usable(wind, std):
        return None
    if wind.shape != truth.wind.shape:
        msg = f"the model gives fields of {wind.shape[1:]}, the site's are {truth.wind.shape[1:]}"
        raise ValidationError(msg, shape=wind.shape)
    rivals = {
        "nearest_simulation": baselines.nearest_simulation(training, truth.inputs),
        "constant_ratio": baselines.constant_ratio(
            training, truth.inputs, site.footprint.x_axis_bearing
        ),
    }
    if previous is not None:
        rivals[PREVIOUS] = previous(truth)[WIND]
    return ScoreSet(
        rmse=scores.rmse(truth.wind, wind),
        relative_l2=scores.relative_l2(truth.wind, wind),
        sensor_mae=scores.sensor_mae(truth.wind, wind, sensor_weights(site)),
        coverage=scores.coverage(truth.wind, wind, std, factor),
        baselines={name: scores.rmse(truth.wind, field) for name, field in rivals.items()},
    )


def shown(selection: SimulationSet, answer: Answer) -> Shown | None:
    """Return what a model does on the selection set; none if a prediction is not finite."""
    found = answer(selection)
    wind, std = found[WIND], found[WIND_STD]
    return Shown(scores.rmse(selection.wind, wind), std) if _usable(wind, std) else None


def read_validation(folder: Path) -> ValidateResult:
    """Return what is known of a candidate's quality.

    Raises
    ------
    ValidationError
        If it was not validated.
    """
    path = folder / VALIDATION
    try:
        return ValidateResult.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        msg = f"{path}: the candidate is not validated; validate it first"
        raise ValidationError(msg, file=str(path)) from error


def predictor(model: bytes) -> Predictor:
    """Return an exported model as a function; it runs as it will serve."""
    from apps.surrogates.export import run_onnx

    return lambda inputs: run_onnx(model, inputs)


def check_sets(frozen: Mapping[SetName, tuple[str, ...]], training: tuple[str, ...]) -> None:
    """Refuse frozen sets that are missing, empty, overlapping or trained on.

    Raises
    ------
    ValidationError
        Naming the sets.
    """
    missing = {"selection", "calibration", "evaluation"} - {n for n, d in frozen.items() if d}
    if missing:
        msg = f"frozen sets missing or empty: {', '.join(sorted(missing))}"
        raise ValidationError(msg, sets=tuple(sorted(missing)))
    seen: dict[str, str] = dict.fromkeys(training, "training")
    for name, digests in frozen.items():
        for digest in digests:
            other = seen.setdefault(digest, name)
            if other != name:
                msg = f"simulation {digest} is in both {other} and {name}; they must be disjoint"
                raise ValidationError(msg, sets=(other, name), digest=digest)


def _usable(wind: np.ndarray, std: np.ndarray) -> bool:
    return bool(np.isfinite(wind).all() and np.isfinite(std).all() and (std > 0).all())


if __name__ == "__main__":
    from apps.rescore import main

    main()
