"""A chain of releases that follows a truth that moves: estimate, simulate, train, every half day.

Each cycle estimates the screens' loss factor from the interior readings since the one before and
joins it with what was known, simulates some winds in a house with that factor and the holes that
are known, and trains on the runs of this state and of those next to it: old runs and new ones.
Nothing here is told the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from apps import baselines
from apps.errors import StageError
from apps.simulation_set import SimulationSet
from apps.site_state import LossTable, combine, estimate, sensor_gains
from apps.surrogates.base import Surrogate, family, family_settings
from apps.surrogates.blas import blas_threads
from benchmarks.study.moving import Known, known
from benchmarks.study.readings import Readings
from benchmarks.study.runs import Runs, at_level, level_of
from edge_agent.contracts.site_state import SiteState

#: Standard errors of ln f that are assumed: of new screens, of washed ones, and what a hole adds.
NEW_ERROR, WASHED_ERROR, HOLE_ERROR = 0.1, 0.2, 0.3


@dataclass(frozen=True)
class Rules:
    """How the chain works."""

    family: str = "pod_regression"
    settings: Mapping[str, object] = field(default_factory=dict)
    estimated: bool = True
    """Whether the state is estimated; if not, the screens are taken as new for ever."""
    cycle_hours: float = 11.0
    """Between two releases; no multiple of the hours between instants: short delays tell."""
    new_days: float = 2.0
    """From the start: the screens are new, and the sensors' gains are learnt."""
    wanted: int = 48
    """Runs of a training set; simulated until it has them."""
    wanted_torn: int = 96
    """The same with a hole, which costs the house its symmetries."""
    a_cycle: int = 16
    """Runs that a cycle adds while some are wanted."""
    fewest: int = 32
    """Runs of a training set after the first cycle of a new state, if a cycle can."""
    most_a_cycle: int = 48
    """About what four cores can do in a cycle, at 3458 s a run."""
    horizon_hours: float | None = None
    """How long after its data a release is scored; on the whole record, past included, if none."""


@dataclass(frozen=True)
class Version:
    """One release and its errors on the whole replay."""

    number: int
    hours: float
    """Data time of the newest reading behind it, h since the record's start."""
    state: SiteState
    training: int
    """Runs that it learnt from."""
    new: int
    """Of these, simulated for it."""
    error: np.ndarray
    """(2, n) mean square error of the wind vector at each instant, (m/s)^2: against the fine truth,
    and against the training solver in the true state; NaN where it is not scored."""
    nearest: np.ndarray
    """(2, n) the same of the nearest of its runs, scaled."""
    ratio: np.ndarray
    """(2, n) the same of one constant inside/outside ratio, of its runs."""


class Library:
    """Runs and tables by state, shared by all chains; each chain counts for itself."""

    def __init__(self, runs: Runs, tables: Mapping[bool, LossTable]) -> None:
        self.runs = runs
        self.tables = tables
        """Without and with the hole."""

    def take(self, counts: Mapping[tuple[int, bool], int], tears: Known) -> SimulationSet:
        """Return the first so many runs of each state."""
        digests = []
        for (level, torn), count in sorted(counts.items()):
            digests += self.runs.digests(at_level(level, tears.tears if torn else (), 0, count))
        return self.runs.load(digests)


def follow(
    library: Library, winds: np.ndarray, readings: Readings, rules: Rules, end_hours: float
) -> Iterator[Version]:
    """Yield one release after the other.

    Parameters
    ----------
    library : Library
    winds : (2, n, 3, nz, ny, nx) array, m/s
        What releases are scored against: the fine truth, and the training solver in the true state.
    readings : Readings
        All that the chain is given.
    rules : Rules
    end_hours : float
        Of the last release, since the record's start.
    """
    counts: dict[tuple[int, bool], int] = {}
    gains: np.ndarray | None = None
    state = SiteState(log_error=NEW_ERROR)
    for number in range(1, int(end_hours // rules.cycle_hours) + 1):
        now = number * rules.cycle_hours
        news = known(now / 24)
        table = library.tables[bool(news.tears)]
        if gains is None and now >= 24 * rules.new_days:
            seen = readings.hours <= now
            gains = sensor_gains(table, readings.inputs[seen], readings.speed[seen])
        state = told(state, news, now, rules)
        if gains is not None and rules.estimated:
            state = _estimated(state, table, readings, rules, news, now, gains)
        torn = bool(news.tears)
        level = level_of(state.screen_loss_factor)
        near = [(level + step, torn) for step in (-1, 0, 1)]
        pool = sum(counts.get(key, 0) for key in near)
        new = _new(pool, rules, torn)
        counts[level, torn] = counts.get((level, torn), 0) + new
        data = library.take({key: counts[key] for key in near if key in counts}, news)
        model = _fit(data, library, rules, torn)
        yield _scored(
            number, now, state, new, data, model, library, winds, readings, rules.horizon_hours
        )


def _new(pool: int, rules: Rules, torn: bool) -> int:
    wanted = rules.wanted_torn if torn else rules.wanted
    new = max(rules.a_cycle, rules.fewest - pool)
    return int(min(new, max(0, wanted - pool), rules.most_a_cycle))


def told(state: SiteState, news: Known, now: float, rules: Rules) -> SiteState:
    """Return the state after what people have told since the last cycle."""
    state = state.model_copy(update={"tears": news.tears})
    if news.since == 0 or 24 * news.since <= now - rules.cycle_hours:
        return state
    if news.washed:
        return SiteState(log_error=WASHED_ERROR, tears=news.tears)
    # What was estimated while nobody knew of the hole is less certain, and so is what follows it.
    wider = float(np.hypot(state.log_error or 0.0, HOLE_ERROR))
    return state.model_copy(update={"log_error": wider})


def _estimated(
    before: SiteState,
    table: LossTable,
    readings: Readings,
    rules: Rules,
    news: Known,
    now: float,
    gains: np.ndarray,
) -> SiteState:
    """Return the state with the readings since the last cycle, or since the event after it."""
    since = max(24 * news.since, now - rules.cycle_hours)
    seen = (readings.hours > since) & (readings.hours <= now)
    try:
        fresh = estimate(
            table,
            readings.inputs[seen],
            readings.speed[seen],
            gains=gains,
            tears=before.tears,
        )
    except StageError:  # a calm: nothing to go by, and less certain with every day
        fresh = before.model_copy(update={"log_error": None})
    return combine(before, fresh, rules.cycle_hours / 24)


def _fit(data: SimulationSet, library: Library, rules: Rules, torn: bool) -> Surrogate:
    settings = dict(rules.settings) | ({"symmetry": False} if torn else {})
    with blas_threads(1):
        chosen = family_settings(rules.family, settings)
        return family(rules.family).fit(data, library.runs.site, chosen, 0)


def square_error(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mean square length of the error vector of each field, (n,), (m/s)^2."""
    return np.asarray(((predicted - truth) ** 2).sum(axis=1).mean(axis=(1, 2, 3)), float)


def _scored(
    number: int,
    now: float,
    state: SiteState,
    new: int,
    data: SimulationSet,
    model: Surrogate,
    library: Library,
    winds: np.ndarray,
    readings: Readings,
    horizon: float | None,
) -> Version:
    hours = readings.hours
    asked = np.ones(len(hours), bool)
    if horizon is not None:
        asked = (hours >= now) & (hours < now + horizon)
    inputs, winds = readings.inputs[asked], winds[:, asked]
    bearing = library.runs.site.footprint.x_axis_bearing
    with blas_threads(1):
        wind, _ = model.predict(inputs) if asked.any() else (winds[0], None)

    def scored(predicted: np.ndarray) -> np.ndarray:
        found = np.full((len(winds), len(hours)), np.nan)
        found[:, asked] = [square_error(truth, predicted) for truth in winds]
        return found

    return Version(
        number=number,
        hours=now,
        state=state,
        training=len(data.digests),
        new=new,
        error=scored(wind),
        nearest=scored(baselines.nearest_simulation(data, inputs)),
        ratio=scored(baselines.constant_ratio(data, inputs, bearing)),
    )
