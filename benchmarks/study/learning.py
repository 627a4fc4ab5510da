"""Does the error fall as simulations come in? Releases through the real stages, like for like.

Training runs of the campaign's cover come in; at each growth a candidate is trained, validated and
judged by the gate, as in a campaign. The evaluation set is read by no decision. Asked twice:

- *one grid*: training runs, selection and calibration are of the cheap grid: what can be learnt
  from runs. Every candidate is also scored against the fine truth, which no decision sees.
- *two grids*: the frozen sets are of the fine grid, so the gate decides, and the intervals are set,
  by what is true in this study. Pairs of cheap and dear runs correct the training runs; how many
  there are is decided by the campaign's own rule (`workflows.fidelity_choice`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps import scores
from apps.correction import Correction
from apps.scenarios import Scenario
from apps.simulators.base import Fidelity
from apps.space import WIND
from apps.surrogates.places import Places
from apps.surrogates.symmetry import symmetries
from apps.train import TrainResult, TrainTask, train
from apps.transport import Base, DeltaSettings, serving_model
from apps.validate import SetName, ValidateTask, predictor, validate
from benchmarks.study.runs import Runs
from benchmarks.study.truth import FINE, SEED, WIND_SPEED, Truths, frozen
from edge_agent.contracts.site import Site
from workflows.acquisition import choose, reach_of, worth
from workflows.fidelity_choice import Level, pairs_wanted
from workflows.steering import cover

#: Training runs of the candidates: each about 15 % more than the one before.
SIZES = (8, 9, 10, 12, 14, 16, 18, 21, 24, 28, 32, 37, 42, 48, 56, 64, 74, 85, 98, 112, 128)
#: Sizes of the frozen sets of the cheap grid.
SELECTION, CALIBRATION = 32, 64
#: What a dear run costs, in cheap ones (CPU time of batches of eight: 0.22 and 0.59 s).
DEAR_COST = 2.7
#: Most pairs.
MOST_PAIRS = 32


@dataclass(frozen=True)
class Row:
    """One candidate."""

    runs: int
    pairs: int
    """Dear runs that corrected them."""
    version: int | None
    """None: refused."""
    reasons: tuple[str, ...]
    rmse: float
    """On the evaluation set of its frozen sets' grid, m/s."""
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

    @property
    def spent(self) -> float:
        """Cost of all runs, in cheap ones."""
        return self.runs + DEAR_COST * self.pairs


@dataclass(frozen=True)
class Learning:
    """The candidates of one family."""

    family: str
    rows: tuple[Row, ...]
    solver_gap: float
    """RMSE of the cheap solver itself against the fine truth, m/s: no training on it can beat
    it."""
    dear_gap: float
    """The same of the dear one."""
    size: float
    """Root mean square wind of the evaluation set, m/s."""

    @property
    def published(self) -> list[Row]:
        """Those that the gate let through."""
        return [r for r in self.rows if r.version is not None]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Sources:
    """Where runs come from."""

    cheap: Runs
    dear: Runs
    truths: Truths
    work: Path
    """Folder for candidates; those that exist are not trained again."""


def learn(
    sources: Sources,
    *,
    family: str = "pod_regression",
    settings: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = SIZES,
    two_grids: bool = False,
) -> Learning:
    """Run the candidates of one family.

    Parameters
    ----------
    sources : Sources
    family, settings
        Surrogate family, and its settings that differ from the defaults.
    sizes : sequence of int
        Training runs of each candidate.
    two_grids : bool
        Which of the two questions is asked.
    """
    cheap, evaluation = sources.cheap, sources.truths.evaluation
    sets = _fine_sets(sources) if two_grids else _cheap_sets(cheap)
    scenarios = cover("training", 0, max(sizes), SEED, WIND_SPEED)
    training = cheap.digests(scenarios)
    own = cheap.load(cheap.digests(frozen("evaluation")))
    rows: list[Row] = []
    previous: Base | None = None
    paired: list[int] = []
    trained: TrainResult | None = None
    for n in sizes:
        if two_grids and trained is not None:
            paired += _more(cheap.site, scenarios[: rows[-1].runs], paired, trained, rows[-1])
        trained = train(
            TrainTask(
                site=cheap.site,
                family=family,
                settings=dict(settings or {}),
                digests=tuple(training[:n]),
                store=str(cheap.store),
                candidates=str(sources.work / "candidates"),
                seed=SEED,
                correction=_correction(sources.dear, scenarios, training, paired),
            )
        )
        fidelity = FINE if two_grids else cheap.fidelity
        result = validate(
            _task(cheap.site, fidelity, trained.folder, cheap.store, sets, previous, not two_grids)
        )
        wind, std = predictor(serving_model(Path(trained.folder)))(
            evaluation.inputs.astype(np.float32)
        )
        found = result.scores["evaluation"]
        version = None
        if result.verdict.accepted:
            version = 1 + sum(r.version is not None for r in rows)
            previous = Base(folder=trained.folder, version=version)
        factor = result.uncertainty.factor if result.uncertainty else float("nan")
        rows.append(
            Row(
                runs=n,
                pairs=len(paired),
                version=version,
                reasons=result.verdict.reasons,
                rmse=found.rmse,
                relative_l2=found.relative_l2,
                coverage=found.coverage,
                truth_rmse=scores.rmse(evaluation.wind, wind),
                truth_coverage=scores.coverage(evaluation.wind, wind, std, factor),
                nearest=found.baselines["nearest_simulation"],
                ratio=found.baselines["constant_ratio"],
                seconds=trained.seconds,
            )
        )
    dear = sources.dear.take(frozen("evaluation")) if two_grids else None
    return Learning(
        family=family,
        rows=tuple(rows),
        solver_gap=scores.rmse(evaluation.wind, own.wind),
        dear_gap=float("nan") if dear is None else scores.rmse(evaluation.wind, dear.wind),
        size=scores.rmse(own.wind, np.zeros_like(own.wind)),
    )


def _cheap_sets(runs: Runs) -> dict[SetName, tuple[str, ...]]:
    return {
        "selection": tuple(runs.digests(frozen("selection", SELECTION))),
        "calibration": tuple(runs.digests(frozen("calibration", CALIBRATION))),
        "evaluation": tuple(runs.digests(frozen("evaluation"))),
    }


def _fine_sets(sources: Sources) -> dict[SetName, tuple[str, ...]]:
    """Put the shipped frozen sets into the store, as the simulations that they are."""
    fine = Runs(sources.cheap.site, FINE, sources.cheap.store, batch=4)
    names: tuple[SetName, ...] = ("selection", "calibration", "evaluation")
    return {
        name: tuple(fine.restore(frozen(name), getattr(sources.truths, name).wind))
        for name in names
    }


def _more(
    site: Site, scenarios: list[Scenario], paired: list[int], trained: TrainResult, last: Row
) -> list[int]:
    """Return which further training runs get a dear one, as a campaign decides."""
    wanted = pairs_wanted(
        Level(trained.left_out, last.runs, 1.0),
        Level(trained.correction_left_out, last.pairs, DEAR_COST),
        MOST_PAIRS,
    )
    count = wanted - len(paired)
    if count <= 0:
        return []
    places = Places(site, WIND, symmetries(site), WIND_SPEED, ())
    points = np.array([(s.wind_speed, s.wind_from_direction) for s in scenarios])
    gain = worth(np.ones(len(points)), np.ones(len(points)), places.apart(points, points[paired]))
    between = places.apart(points, points)
    return choose(gain, between, np.empty((len(points), 0)), count, reach_of(wanted))


def _correction(
    dear: Runs, scenarios: list[Scenario], training: list[str], paired: list[int]
) -> Correction | None:
    if not paired:
        return None
    high = dear.digests([scenarios[k] for k in paired])
    return Correction(low=tuple(training[k] for k in paired), high=tuple(high))


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
    corrected: bool,
) -> ValidateTask:
    return ValidateTask(
        site=site,
        candidate=folder,
        store=str(store),
        frozen_sets=sets,
        previous=previous,
        delta=DeltaSettings(full_every=1),
        fidelity=str(fidelity),
        frozen_corrected=corrected,
    )
