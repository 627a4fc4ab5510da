"""A chain of releases that follows a truth that moves: estimate, simulate, train, every half day.

The surrogate takes the screens' loss factor and a tear as inputs, so runs of every state teach it
about every other. Each cycle estimates the factor from the interior readings since the one before
(`workflows.following`, with the surrogate before as its table) and tells the surrogate; while runs
are wanted, some are added near recent weather and the present state, and a few of them are run on
the dear grid too, to correct the others. When a hole is found, runs with that hole are wanted.
A cycle without new runs makes a release all the same: the same model, told another state.
Nothing here is told the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from apps import baselines
from apps.answers import sensor_speeds, sensor_weights
from apps.discrepancy import fit_discrepancy
from apps.scenarios import Scenario, Tear
from apps.simulation_set import SimulationSet
from apps.site_state import sensor_gains
from apps.space import space_of
from apps.surrogates.assimilation import Assimilation
from apps.surrogates.base import Predictor, Surrogate, family, family_settings
from apps.surrogates.blas import blas_threads
from benchmarks.study.moving import instant, log
from benchmarks.study.readings import Readings
from benchmarks.study.runs import Runs
from benchmarks.study.truth import SEED, WIND_SPEED
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site_state import SiteState
from workflows.config import ScenarioRange
from workflows.following import NEW_ERROR, Seen, followed, told
from workflows.maintenance import Known, known
from workflows.steering import next_scenarios
from workflows.variety import Variety

#: Loss factors that are simulated: from screens somewhat cleaner than new to thrice as dense.
LOSS = (0.7, 3.0)
#: Loss factors of the estimator's table.
FACTORS = 9
#: Share of new runs from the cover; the others follow weather and state.
EXPLORE = 0.5
#: Weather counts as recent for so long, h.
RECENT_HOURS = 336.0


@dataclass(frozen=True)
class Rules:
    """How the chain works."""

    family: str = "pod_gp"
    settings: Mapping[str, object] = field(default_factory=dict)
    estimated: bool = True
    """Whether the state is estimated; if not, the screens are taken as new for ever."""
    cycle_hours: float = 11.0
    """Between two releases; no multiple of the hours between instants: short delays tell."""
    new_days: float = 2.0
    """From the start: the screens are new, and the sensors' gains are learnt."""
    wanted: int = 96
    """Runs of the whole house; simulated until there are so many."""
    wanted_torn: int = 48
    """Runs with a hole that is known."""
    a_cycle: int = 16
    """Runs that a cycle adds while some are wanted."""
    pairs: int = 6
    """Each so manyth run is solved on the dear grid too."""
    horizon_hours: float | None = None
    """How long after its data a release is scored; on the whole record, past included, if none."""
    errors: ReadingErrors = field(default_factory=ReadingErrors)
    """What the second signature assumes."""


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
    dear: int
    """Dear runs that were simulated for it."""
    error: np.ndarray
    """(2, n) mean square error of the wind vector at each instant, (m/s)^2: against the fine truth,
    and against the dear solver in the true state; NaN where it is not scored."""
    seen: np.ndarray
    """(2, n) the same with the interior readings of the instant as inputs."""
    nearest: np.ndarray
    """(2, n) the same of the nearest of its runs, scaled."""
    ratio: np.ndarray
    """(2, n) the same of one constant inside/outside ratio, of its runs."""


@dataclass
class _Pool:
    """Scenarios that were simulated."""

    cheap: list[Scenario]
    dear: list[Scenario]

    def torn(self, tears: tuple[Tear, ...]) -> int:
        return sum(s.tears == tears for s in self.cheap)


class Chain:
    """One chain.

    Parameters
    ----------
    cheap, dear : Runs
        Of the same space.
    winds : (2, n, 3, nz, ny, nx) array, m/s
        What releases are scored against: the fine truth, and the dear solver in the true state.
    readings : Readings
        All that the chain is given.
    rules : Rules
    """

    def __init__(
        self, cheap: Runs, dear: Runs, winds: np.ndarray, readings: Readings, rules: Rules
    ) -> None:
        self._cheap, self._dear, self._winds = cheap, dear, winds
        self._readings, self._rules = readings, rules
        site = cheap.site
        self._site = site
        self._space = space_of(site, loss=True, tears=True)
        self._weights = sensor_weights(site)
        self._variety = Variety.of(
            ScenarioRange(wind_speed=WIND_SPEED, screen_loss_factor=LOSS, torn=0.5), site
        )
        self._pool = _Pool([], [])
        self._log = log()

    def follow(self, end_hours: float) -> Iterator[Version]:
        """Yield one release after the other, the last at `end_hours` since the record's start."""
        rules = self._rules
        state, since = SiteState(log_error=NEW_ERROR), 0.0
        model: Surrogate | None = None
        data: SimulationSet | None = None
        gains: np.ndarray | None = None
        for number in range(1, int(end_hours // rules.cycle_hours) + 1):
            now = number * rules.cycle_hours
            news = known(self._log, instant(now))
            state = told(state, news, instant(since))
            if model is not None and rules.estimated:
                gains = self._gains(model, now) if gains is None else gains
                if gains is not None:
                    state = self._estimated(state, model, gains, since, now)
            new, dear = self._simulate(number, state, news, now)
            if new or model is None:
                data = self._data()
                model = self._fit(data)
            if data is None:
                msg = "unreachable: the first cycle simulates"
                raise AssertionError(msg)
            yield self._scored(number, now, state, new, dear, data, model)
            since = now

    def _gains(self, model: Surrogate, now: float) -> np.ndarray | None:
        if now < 24 * self._rules.new_days:
            return None
        seen = self._readings.hours <= now
        table = _Table(model, self._weights, ())
        return sensor_gains(table, self._readings.inputs[seen], self._readings.speed[seen])

    def _estimated(
        self, state: SiteState, model: Surrogate, gains: np.ndarray, since: float, now: float
    ) -> SiteState:
        readings = self._readings
        seen = (readings.hours > since) & (readings.hours <= now)
        table = _Table(model, self._weights, self._space.tear(state.tears))
        times = [instant(float(h)) for h in readings.hours[seen]]
        ends = (times[0], times[-1]) if times else (None, None)
        found = Seen(readings.inputs[seen].astype(float), readings.speed[seen], *ends)
        return followed(state, table, found, gains, (now - since) / 24)

    def _simulate(self, number: int, state: SiteState, news: Known, now: float) -> tuple[int, int]:
        """Add runs while some are wanted; return how many, cheap and dear."""
        rules, pool = self._rules, self._pool
        wanted = rules.wanted_torn if news.tears else rules.wanted
        count = min(rules.a_cycle, max(0, wanted - pool.torn(news.tears)))
        if count == 0:
            return 0, 0
        recent = self._readings.hours <= now
        recent &= self._readings.hours > now - RECENT_HOURS
        told_state = state if rules.estimated else SiteState(tears=state.tears)
        drawn = next_scenarios(
            1000 * number,
            count,
            SEED,
            WIND_SPEED,
            self._readings.inputs[recent].astype(float),
            EXPLORE,
            self._variety,
            told_state,
        )
        # Of the cover's tears only those that are known are worth a run.
        drawn = [s.model_copy(update={"tears": news.tears}) for s in drawn]
        if not rules.estimated:
            drawn = [s.model_copy(update={"screen_loss_factor": 1.0}) for s in drawn]
        dear = drawn[:: rules.pairs]
        pool.cheap += drawn
        pool.dear += dear
        return len(drawn), len(dear)

    def _data(self) -> SimulationSet:
        """Return the runs so far, corrected by the pairs among them."""
        cheap = self._cheap.take(self._pool.cheap)
        low, high = self._cheap.take(self._pool.dear), self._dear.take(self._pool.dear)
        with blas_threads(1):
            return fit_discrepancy(low, high, self._site).apply(cheap)

    def _fit(self, data: SimulationSet) -> Surrogate:
        chosen = family_settings(self._rules.family, dict(self._rules.settings))
        with blas_threads(1):
            return family(self._rules.family).fit(data, self._site, chosen, 0)

    def _scored(
        self,
        number: int,
        now: float,
        state: SiteState,
        new: int,
        dear: int,
        data: SimulationSet,
        model: Surrogate,
    ) -> Version:
        hours, rules = self._readings.hours, self._rules
        asked = np.ones(len(hours), bool)
        if rules.horizon_hours is not None:
            asked = (hours >= now) & (hours < now + rules.horizon_hours)
        inputs = as_told(self._readings.inputs[asked], state, self._space.tear(state.tears))
        winds = self._winds[:, asked]

        def scored(predicted: np.ndarray) -> np.ndarray:
            found = np.full((len(winds), len(hours)), np.nan)
            found[:, asked] = [square_error(truth, predicted) for truth in winds]
            return found

        if not asked.any():
            nothing = np.full((2, len(hours)), np.nan)
            return Version(number, now, state, len(data.digests), new, dear, *[nothing] * 4)
        with blas_threads(1):
            wind, _ = model.predict(inputs)
            seeing = self._seeing(inputs, self._readings.speed[asked], model.predict)
        bearing = self._site.footprint.x_axis_bearing
        return Version(
            number=number,
            hours=now,
            state=state,
            training=len(data.digests),
            new=new,
            dear=dear,
            error=scored(wind),
            seen=scored(seeing),
            nearest=scored(baselines.nearest_simulation(data, inputs)),
            ratio=scored(baselines.constant_ratio(data, inputs, bearing)),
        )

    def _seeing(self, inputs: np.ndarray, speed: np.ndarray, predict: Predictor) -> np.ndarray:
        """Return the wind where the interior readings of each instant are inputs too."""
        taken = Assimilation.of(self._space, self._rules.errors, self._weights)
        read = np.where(np.isfinite(speed), speed, SILENT)
        return taken.answer(np.concatenate([inputs, read], axis=1).astype(np.float32), predict)[0]


@dataclass(frozen=True)
class _Table:
    """What a surrogate expects of the sensors; see `apps.site_state.SpeedTable`."""

    model: Surrogate
    weights: np.ndarray
    tear: Sequence[float]

    @property
    def factors(self) -> np.ndarray:
        return np.geomspace(*LOSS, FACTORS)

    def predict(self, winds: np.ndarray) -> np.ndarray:
        tear = self.tear or (0.0, 0.0, 0.0)
        rows = [(*wind, factor, *tear) for wind in winds for factor in self.factors]
        with blas_threads(1):
            field, _ = self.model.predict(np.array(rows, np.float32).reshape(len(rows), -1))
        return sensor_speeds(field, self.weights).reshape(len(winds), FACTORS, -1)


def as_told(winds: np.ndarray, state: SiteState, tear: Sequence[float]) -> np.ndarray:
    """Return the surrogate's inputs for winds (n, 2) in an estimated state, (n, 6) float32."""
    told_ = np.tile([state.screen_loss_factor, *tear], (len(winds), 1))
    return np.concatenate([winds, told_], axis=1).astype(np.float32)


def square_error(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mean square length of the error vector of each field, (n,), (m/s)^2."""
    return np.asarray(((predicted - truth) ** 2).sum(axis=1).mean(axis=(1, 2, 3)), float)
