"""Draws the scenarios of each role from what the ledger holds: a shell round the pure functions.

Frozen sets and pairs come from covers of their own. Training starts with scenarios that are far
from each other; once there is a surrogate, they go where its members disagree and the site's
weather goes (`workflows.acquisition`). Tears come from the list that the tear detector's signatures
need (`apps.signatures`), so the runs are found there again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apps.candidates import MODEL, read_candidate
from apps.scenarios import Scenario
from apps.signatures import signature_scenarios
from apps.surrogates.places import Places
from apps.surrogates.symmetry import symmetries
from edge_agent.contracts.features import SILENT, MastLogLaw
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from workflows.acquisition import (
    choose,
    reach_of,
    relative_cost,
    spread_out,
    state_frequency,
    success,
    weather_frequency,
    worth,
)
from workflows.change import as_series, block_means, run
from workflows.config import Campaign
from workflows.ledger import CandidateRow, Ledger, Role, SimulationRow
from workflows.steering import (
    NO_WEATHER,
    Weather,
    cover,
    from_weather,
    next_scenarios,
    recent_winds,
)
from workflows.tasks import simulation_name
from workflows.variety import Variety

#: Points that are weighed against each other: of a cover, and near past weather.
COVER_POINTS, WEATHER_POINTS = 256, 128
#: Data time that a look at the weather may be behind: a plan is made several times a second.
STALE = timedelta(hours=1)


class Drawn(NamedTuple):
    """Scenarios to plan."""

    planned: list[tuple[int, str, Scenario]]
    """Number in the role's stream, digest, scenario."""
    newest: str | None
    """Data time of the newest reading that they follow; none if they follow none."""


class _Pool(NamedTuple):
    """Scenarios to choose from."""

    scenarios: list[Scenario]
    points: np.ndarray
    between: np.ndarray
    """Distances between them, (n, n)."""
    newest: str | None
    """Data time of the weather that they follow."""


class _Judged(NamedTuple):
    """A surrogate's disagreement over a pool of points."""

    candidate: int
    pool: _Pool
    deviation: np.ndarray
    learnt: frozenset[str]


class Draw:
    """Draws for one campaign.

    Parameters
    ----------
    campaign : Campaign
    site : Site
    ledger : Ledger
    state : callable
        The newest estimate of the state of the house.
    """

    def __init__(
        self,
        campaign: Campaign,
        site: Site,
        ledger: Ledger,
        state: Callable[[], SiteState] = SiteState,
    ) -> None:
        self._campaign = campaign
        self._site = site
        self._ledger = ledger
        self._feature_map = MastLogLaw.for_site(site)
        self._state = state
        self._variety = Variety.of(campaign.scenarios, site)
        self._space = campaign.scenarios.space(site)
        loss = campaign.scenarios.screen_loss_factor
        self._places = Places(
            site=site,
            space=self._space,
            group=symmetries(site),
            speed=campaign.scenarios.wind_speed,
            limits=() if loss is None else ((float(np.log(loss[0])), float(np.log(loss[1]))),),
        )
        self._tears: list[Scenario] | None = None
        self._weather = NO_WEATHER
        self._start: _Pool | None = None
        self._judged: _Judged | None = None
        self.changed_at: str | None = None
        """Data time at which the weather last changed; none if it has not."""

    def next(self, role: Role, count: int) -> Drawn:
        """Return up to `count` scenarios that are not in the ledger; fewer only of tears."""
        rows = self._ledger.simulations()
        known = {row.digest for row in rows}
        first = self._ledger.next_sequence(role)
        if role == "tear":
            return Drawn(self._named(role, first, self._tear_list()[first:][:count], known), None)
        if role == "reference" and (done := _done(rows, "training")):
            return Drawn(self._named(role, first, self._pairs(rows, done, count), known), None)
        if role != "training":
            return Drawn(self._stream(role, first, count, known, None), None)
        weather = self._recent()
        planned: list[tuple[int, str, Scenario]] = []
        if self._campaign.steering.method == "disagreement":
            judged = self._judge(weather)
            best = (
                self._started(weather, rows, count)
                if judged is None
                else self._steered(judged, weather, rows, count)
            )
            planned = self._named(role, first, best, known)
        if len(planned) < count:
            known |= {digest for _, digest, _ in planned}
            rest = first + len(planned)
            planned += self._stream(role, rest, count - len(planned), known, weather)
        return Drawn(planned, weather.newest)

    @property
    def tears(self) -> int:
        """How many scenarios with tears there are to draw."""
        return len(self._tear_list())

    def _stream(
        self, role: Role, number: int, count: int, known: set[str], weather: Weather | None
    ) -> list[tuple[int, str, Scenario]]:
        seed, speeds = self._campaign.seed, self._campaign.scenarios.wind_speed
        explore = self._campaign.steering.explore
        planned: list[tuple[int, str, Scenario]] = []
        while len(planned) < count:
            if weather is None:
                scenario = cover(role, number, 1, seed, speeds, self._variety)[0]
            else:
                variety, state = self._variety, self._state()
                scenario = next_scenarios(
                    number, 1, seed, speeds, weather.winds, explore, variety, state
                )[0]
            # Weather repeats itself: the next number then.
            planned += self._named(role, number, [scenario], known)
            number += 1
        return planned

    def _named(
        self, role: Role, number: int, scenarios: list[Scenario], known: set[str]
    ) -> list[tuple[int, str, Scenario]]:
        """Return the scenarios that are not known yet, numbered; from now on they are."""
        planned = []
        for scenario in scenarios:
            digest = simulation_name(self._campaign, self._site, scenario, role)
            if digest not in known:
                known.add(digest)
                planned.append((number, digest, scenario))
                number += 1
        return planned

    def _tear_list(self) -> list[Scenario]:
        if self._tears is None:
            every = signature_scenarios(self._site)
            rng = np.random.default_rng([self._campaign.seed, *b"tears"])
            self._tears = [every[i] for i in rng.permutation(len(every))]
        return self._tears

    def _recent(self) -> Weather:
        sensor, hours = self._site.mast.sensor, self._campaign.steering.recent_hours
        newest = self._ledger.newest_reading(sensor)
        if newest is None:
            return NO_WEATHER
        end = datetime.fromisoformat(newest)
        seen = self._weather.newest
        if seen is None or (end - datetime.fromisoformat(seen)) >= STALE:
            since = (end - timedelta(hours=hours)).isoformat()
            weather = recent_winds(self._ledger.readings(sensor, since), self._feature_map, hours)
            self._weather = self._since_change(weather)
        return self._weather

    def _since_change(self, weather: Weather) -> Weather:
        test = self._campaign.steering.change
        if test is None or weather.newest is None or not len(weather.winds):
            return weather
        now = datetime.fromisoformat(weather.newest).timestamp()
        seconds = now - weather.age_hours * 3600.0
        means = block_means(seconds, as_series(weather.winds), test.block_hours)
        alarms = run(test, means).alarms
        if not len(alarms):
            return weather
        block = test.block_hours * 3600.0
        began = (seconds[0] // block + alarms[-1]) * block
        self.changed_at = datetime.fromtimestamp(
            began, datetime.fromisoformat(weather.newest).tzinfo
        ).isoformat()
        keep = seconds >= began
        return Weather(weather.winds[keep], weather.age_hours[keep], weather.newest)

    def _judge(self, weather: Weather) -> _Judged | None:
        """Return what the newest surrogate does not know; none without a surrogate."""
        usable = [c for c in self._ledger.candidates() if c.state in {"accepted", "published"}]
        if not usable:
            return None
        newest = usable[-1]
        if self._judged is None or self._judged.candidate != newest.number:
            self._judged = self._look(newest, weather)
        return self._judged

    def _look(self, row: CandidateRow, weather: Weather) -> _Judged | None:
        from apps.surrogates.export import run_onnx

        folder = Path(row.folder or "")
        columns = read_candidate(folder).columns
        pool = self._pool(row.number, weather)
        points = pool.points
        # Interior sensors say nothing of a scenario that nobody has seen.
        silent = np.full((len(points), len(columns) - points.shape[1]), SILENT)
        inputs = np.concatenate([points, silent], axis=1).astype(np.float32)
        std = run_onnx((folder / MODEL).read_bytes(), inputs)[1]
        deviation = np.sqrt((std.reshape(len(points), -1).astype(float) ** 2).mean(axis=1))
        return _Judged(row.number, pool, deviation, frozenset(row.task["digests"]))

    def _pool(self, number: int, weather: Weather) -> _Pool:
        """Return the scenarios that a candidate's doubts are asked for; number nought: none yet."""
        campaign, seed = self._campaign, self._campaign.seed
        speeds, variety, state = campaign.scenarios.wind_speed, self._variety, self._state()
        scenarios = cover("pool", number * COVER_POINTS, COVER_POINTS, seed, speeds, variety)
        if len(weather.winds):
            first = number * WEATHER_POINTS
            scenarios += [
                from_weather(weather.winds, first + i, seed, speeds, variety, state)
                for i in range(WEATHER_POINTS)
            ]
        points = self._points(scenarios)
        return _Pool(scenarios, points, self._places.apart(points, points), weather.newest)

    def _started(self, weather: Weather, rows: list[SimulationRow], count: int) -> list[Scenario]:
        """Return scenarios before there is a surrogate: far from each other, and frequent."""
        if self._start is None or self._start.newest != weather.newest:
            self._start = self._pool(0, weather)
        pool = self._start
        training = [row for row in rows if row.role == "training"]
        best = spread_out(
            self._frequency(pool.points, weather),
            pool.between,
            self._apart(pool.points, training),
            count,
            2 + self._variety.dimensions,
        )
        return [pool.scenarios[i] for i in best]

    def _frequency(self, points: np.ndarray, weather: Weather) -> np.ndarray:
        """Return how often the site sees such weather and such a house, cover mixed in."""
        steering = self._campaign.steering
        frequency = weather_frequency(
            points, weather.winds, weather.age_hours, steering.persistence_hours
        )
        frequency *= state_frequency(points[:, 2:], self._space, self._state())
        return np.asarray(steering.explore + (1.0 - steering.explore) * frequency)

    def _steered(
        self, judged: _Judged, weather: Weather, rows: list[SimulationRow], count: int
    ) -> list[Scenario]:
        training = [row for row in rows if row.role == "training"]
        done = [row for row in training if row.state == "done"]
        points = judged.pool.points
        reach = reach_of(len(judged.learnt), 2 + self._variety.dimensions)
        frequency = self._frequency(points, weather)
        to_done = self._apart(points, done)
        failed = self._apart(points, [row for row in training if row.state == "failed"])
        seconds = np.array([row.seconds or 0.0 for row in done])
        gain = worth(judged.deviation, frequency, self._apart(points, training))
        gain *= success(to_done, failed, reach) / relative_cost(to_done, seconds, reach)
        unlearnt = self._apart(points, [r for r in training if r.digest not in judged.learnt])
        best = choose(gain, judged.pool.between, unlearnt, count, reach)
        return [judged.pool.scenarios[i] for i in best]

    def _pairs(
        self, rows: list[SimulationRow], done: list[SimulationRow], count: int
    ) -> list[Scenario]:
        """Return training scenarios for the dear simulator: far from its runs, and frequent."""
        weather = self._recent()
        scenarios = [row.scenario for row in done]
        points = self._points(scenarios)
        paired = [row for row in rows if row.role == "reference"]
        frequency = weather_frequency(
            points,
            weather.winds,
            weather.age_hours,
            self._campaign.steering.persistence_hours,
        )
        explore = self._campaign.steering.explore
        frequency = explore + (1.0 - explore) * frequency
        gain = worth(np.ones(len(points)), frequency, self._apart(points, paired))
        reach = reach_of(len(paired) + count, 2 + self._variety.dimensions)
        between = self._places.apart(points, points)
        none = np.empty((len(points), 0))
        return [scenarios[i] for i in choose(gain, between, none, count, reach)]

    def _apart(self, points: np.ndarray, rows: list[SimulationRow]) -> np.ndarray:
        return self._places.apart(points, self._points([row.scenario for row in rows]))

    def _points(self, scenarios: list[Scenario]) -> np.ndarray:
        rows = [(s.wind_speed, s.wind_from_direction, *self._space.row(s)) for s in scenarios]
        return np.array(rows, dtype=float).reshape(-1, 2 + len(self._space.columns))


def _done(rows: list[SimulationRow], role: Role) -> list[SimulationRow]:
    return [row for row in rows if row.role == role and row.state == "done"]
