"""Does the error fall as simulations come in? Releases through the real stages, like for like.

Training runs of the campaign's cover come in; at each growth a candidate is trained, validated and
judged by the gate, as in a campaign. The evaluation set is read by no decision. Every candidate,
the refused ones too, is scored twice on the same 128 scenarios: against the training runs' own
solver and grid (what can be learnt) and against the fine truth (what is true in this study).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps import scores
from apps.simulators.base import Fidelity
from apps.train import TrainTask, read_candidate, train
from apps.transport import Base, DeltaSettings, serving_model
from apps.validate import SetName, ValidateTask, predictor, validate
from benchmarks.study.runs import Runs
from benchmarks.study.truth import SEED, WIND_SPEED, Truth, frozen
from edge_agent.contracts.site import Site
from workflows.steering import cover

#: Training runs of the candidates: each about 15 % more than the one before.
SIZES = (8, 9, 10, 12, 14, 16, 18, 21, 24, 28, 32, 37, 42, 48, 56, 64, 74, 85, 98, 112, 128)
SELECTION, CALIBRATION = 32, 64


@dataclass(frozen=True)
class Row:
    """One candidate."""

    runs: int
    version: int | None
    """None: refused."""
    reasons: tuple[str, ...]
    rmse: float
    """On the evaluation set of the training runs' solver, m/s."""
    relative_l2: float
    coverage: float
    """Of the 90 % intervals there."""
    truth_rmse: float
    """Against the fine truth on the same scenarios, m/s."""
    truth_coverage: float
    nearest: float
    """RMSE of the nearest simulation, on the evaluation set, m/s."""
    ratio: float
    """RMSE of the constant ratio, on the evaluation set, m/s."""
    seconds: float
    """Of the training, s."""


@dataclass(frozen=True)
class Learning:
    """The candidates of one family."""

    family: str
    rows: tuple[Row, ...]
    solver_gap: float
    """RMSE of the training solver itself against the fine truth, m/s: no training can beat it."""
    size: float
    """Root mean square wind of the evaluation set, m/s."""

    @property
    def published(self) -> list[Row]:
        """Those that the gate let through."""
        return [r for r in self.rows if r.version is not None]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def learn(
    runs: Runs,
    truth: Truth,
    work: Path,
    *,
    family: str = "pod_regression",
    settings: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = SIZES,
) -> Learning:
    """Run the candidates of one family.

    Parameters
    ----------
    runs : Runs
    truth : Truth
        The frozen evaluation set, finely solved.
    work : Path
        Folder for candidates; those that exist are not trained again.
    family, settings
        Surrogate family, and its settings that differ from the defaults.
    sizes : sequence of int
        Training runs of each candidate.
    """
    site, fidelity = runs.site, runs.fidelity
    sets: dict[SetName, tuple[str, ...]] = {
        "selection": tuple(runs.digests(cover("selection", 0, SELECTION, SEED, WIND_SPEED))),
        "calibration": tuple(runs.digests(cover("calibration", 0, CALIBRATION, SEED, WIND_SPEED))),
        "evaluation": tuple(runs.digests(frozen(len(truth.inputs)))),
    }
    evaluation = runs.load(sets["evaluation"])
    training = runs.digests(cover("training", 0, max(sizes), SEED, WIND_SPEED))
    rows: list[Row] = []
    previous: Base | None = None
    for n in sizes:
        trained = train(
            TrainTask(
                site=site,
                family=family,
                settings=dict(settings or {}),
                digests=tuple(training[:n]),
                store=str(runs.store),
                candidates=str(work / "candidates"),
                seed=SEED,
            )
        )
        result = validate(_task(site, fidelity, trained.folder, runs.store, sets, previous))
        folder = Path(trained.folder)
        wind, std = predictor(serving_model(folder))(truth.inputs.astype(np.float32))
        own = result.scores["evaluation"]
        version = None
        if result.verdict.accepted:
            version = 1 + sum(r.version is not None for r in rows)
            previous = Base(folder=trained.folder, version=version)
        factor = result.uncertainty.factor if result.uncertainty else float("nan")
        rows.append(
            Row(
                runs=n,
                version=version,
                reasons=result.verdict.reasons,
                rmse=own.rmse,
                relative_l2=own.relative_l2,
                coverage=own.coverage,
                truth_rmse=scores.rmse(truth.wind, wind),
                truth_coverage=scores.coverage(truth.wind, wind, std, factor),
                nearest=own.baselines["nearest_simulation"],
                ratio=own.baselines["constant_ratio"],
                seconds=read_candidate(folder).seconds,
            )
        )
    return Learning(
        family=family,
        rows=tuple(rows),
        solver_gap=scores.rmse(truth.wind, evaluation.wind),
        size=scores.rmse(evaluation.wind, np.zeros_like(evaluation.wind)),
    )


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def beaten_from(rows: Sequence[Row], name: str) -> int | None:
    """Return the version from which on a baseline is always beaten; none if it never is."""
    published = [r for r in rows if r.version is not None]
    for k, row in enumerate(published):
        if all(r.rmse < getattr(r, name) for r in published[k:]):
            return row.version
    return None


def _task(
    site: Site,
    fidelity: Fidelity,
    folder: str,
    store: Path,
    sets: dict[SetName, tuple[str, ...]],
    previous: Base | None,
) -> ValidateTask:
    return ValidateTask(
        site=site,
        candidate=folder,
        store=str(store),
        frozen_sets=sets,
        previous=previous,
        delta=DeltaSettings(full_every=1),
        fidelity=str(fidelity),
    )
