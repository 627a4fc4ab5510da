"""The study's parts in order, each found in the cache or computed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from apps.errors import SimulationError
from apps.simulation_set import joined
from apps.site_state import loss_table
from apps.surrogates.base import family
from benchmarks.study import arrivals, serving
from benchmarks.study.cache import Cache
from benchmarks.study.following import Library, Rules, Version, follow, square_error
from benchmarks.study.learning import Learning, Row, learn
from benchmarks.study.moving import TEAR, true_state
from benchmarks.study.openfoam import Against, compare
from benchmarks.study.readings import Noise, made
from benchmarks.study.runs import Runs
from benchmarks.study.setting import Setting
from benchmarks.study.truth import SITE, TRAINING, Truth, load, replayed
from edge_agent.contracts.site import Site

T = TypeVar("T")

#: The plain noise, and what else is tried: name to noise, silent sensors, rules.
PLAIN = Noise()
UNESTIMATED = "state not estimated"


@dataclass(frozen=True)
class Arm:
    """A chain under other circumstances."""

    noise: Noise = PLAIN
    silent: Mapping[int, float] = field(default_factory=dict)
    """Sensor to the hour from which it says nothing."""
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Rules that differ."""
    draw: int = 0
    """Which draw of the noise."""


ARMS: dict[str, Arm] = {
    "another draw of the noise": Arm(draw=1),
    "a third draw": Arm(draw=2),
    "readings without noise": Arm(Noise(gain=0.0, gusts=0.0, white=0.0)),
    "twice the noise": Arm(Noise(gain=0.10, gusts=0.20, white=0.10)),
    "most telling sensor silent from day 10": Arm(silent={2: 240.0}),
    "mast off by 8 % and 6 degrees": Arm(Noise(mast_speed=0.08, mast_direction=6.0)),
    UNESTIMATED: Arm(rules={"estimated": False}),
}


@dataclass(frozen=True)
class Results:
    """All that the report is written from."""

    setting: Setting
    truth: Truth
    learning: dict[str, Learning]
    chains: dict[str, list[Version]]
    """``plain``, and the arms."""
    arrives: dict[str, np.ndarray]
    """Hour at which each release of the plain chain can serve, by the way it comes."""
    winds: np.ndarray
    """(2, n, 3, nz, ny, nx): the fine truth, and the training solver in the true state, m/s."""
    openfoam: list[Against]
    """Surrogates and baselines beside OpenFOAM on some scenarios."""
    seconds: dict[str, float]
    """Wall time of each part in this run, s."""
    solver_seconds: float
    """Of what was simulated in this run, s."""


def study(setting: Setting, work: Path) -> Results:
    """Compute everything that `work` does not hold yet."""
    site = Site.from_toml(SITE)
    replay, evaluation = load()
    replay = replay.every(setting.every)
    runs = Runs(site, TRAINING, work / "simulations")
    cache = Cache(work / "results")
    seconds: dict[str, float] = {}

    def timed(name: str, make: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = make()
        seconds[name] = time.perf_counter() - began
        print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)
        return result

    sizes = {setting.family: setting.sizes} | dict.fromkeys(setting.others, setting.other_sizes)
    learning = {
        name: timed(
            f"learning, {name}",
            lambda name=name, n=n: _learning(name, n, runs, evaluation, cache, work),
        )
        for name, n in sizes.items()
    }
    winds = timed("training solver in the true state", lambda: _both_truths(runs, replay))
    library = timed("estimator's tables", lambda: _library(setting, runs, work))
    rules = replace(setting.rules, family=setting.family)
    # An arm is only served at once: until the next release.
    short = {"horizon_hours": 2 * rules.cycle_hours}
    seldom = {
        "cycle_hours": setting.served_cycle_hours,
        "horizon_hours": 2 * setting.served_cycle_hours,
    }
    arms = {"plain": Arm()}
    if setting.arms:
        arms |= {n: replace(a, rules=short | dict(a.rules)) for n, a in ARMS.items()}
    for name in (setting.family, *setting.served) if setting.served else ():
        words = f"{name}, a release every {setting.served_cycle_hours:g} h"
        arms[words] = Arm(rules=seldom | {"family": name})
    chains = {
        name: timed(
            f"chain, {name}",
            lambda arm=arm: _chain(arm, rules, setting, library, (replay, winds), site, cache),
        )
        for name, arm in arms.items()
    }
    plain = chains["plain"]
    arrives = timed(
        "arrivals",
        lambda: dict(
            arrivals.schedules([v.hours for v in plain], [v.new for v in plain], setting.seed)
        ),
    )
    openfoam = timed(
        "OpenFOAM", lambda: compare(runs, evaluation, setting.family, max(setting.sizes))
    )
    return Results(
        setting=setting,
        truth=replay,
        learning=learning,
        chains=chains,
        arrives=arrives,
        winds=winds,
        openfoam=openfoam,
        seconds=seconds,
        solver_seconds=runs.solver_seconds,
    )


def _learning(
    name: str, sizes: tuple[int, ...], runs: Runs, truth: Truth, cache: Cache, work: Path
) -> Learning:
    key = {"family": name, "version": family(name).version, "sizes": sizes}
    found = cache.values(
        "learning", key, lambda: learn(runs, truth, work, family=name, sizes=sizes).as_json()
    )
    rows = tuple(Row(**(row | {"reasons": tuple(row["reasons"])})) for row in found["rows"])
    return Learning(found["family"], rows, found["solver_gap"], found["size"])


def _library(setting: Setting, runs: Runs, work: Path) -> Library:
    tables = {
        bool(tears): loss_table(
            runs.site,
            runs.fidelity,
            work / "simulations",
            tears=tears,
            factors=factors,
            speeds=setting.speeds,
            directions=setting.directions,
        )
        for tears, factors in (((), setting.factors), ((TEAR,), setting.factors_torn))
    }
    return Library(runs, tables)


def _chain(
    arm: Arm,
    rules: Rules,
    setting: Setting,
    library: Library,
    truths: tuple[Truth, np.ndarray],
    site: Site,
    cache: Cache,
) -> list[Version]:
    rules = replace(rules, **arm.rules)
    key = {
        "rules": asdict(rules),
        "noise": asdict(arm.noise),
        "silent": {str(k): v for k, v in arm.silent.items()},
        "seed": setting.seed + arm.draw,
        "every": setting.every,
        "table": [setting.factors, setting.factors_torn, setting.directions, setting.speeds],
        "version": family(rules.family).version,
    }
    truth, winds = truths
    readings = made(truth, site, arm.noise, setting.seed + arm.draw, dict(arm.silent))
    end = float(truth.hours[-1])
    return cache.versions("chain", key, lambda: list(follow(library, winds, readings, rules, end)))


def _both_truths(runs: Runs, truth: Truth) -> np.ndarray:
    """Return the fine truth, and the training grid's solver in the true state at every instant."""
    wanted = set(truth.hours.tolist())
    moments = [m for m in replayed(runs.site) if m.hours in wanted]
    sets = []
    for _, same in groupby(moments, key=lambda m: m.site.content_digest()):
        group = list(same)
        here = Runs(group[0].site, runs.fidelity, runs.store, batch=4)
        sets.append(here.take([m.scenario for m in group]))
        runs.solver_seconds += here.solver_seconds
    own = joined(sets).wind
    if own.shape != truth.wind.shape:
        msg = f"{len(own)} of {len(truth.hours)} instants could be solved on the training grid"
        raise SimulationError(msg)
    return np.stack([truth.wind, own])


def served(
    results: Results, against: int
) -> tuple[dict[str, serving.Served], dict[str, np.ndarray]]:
    """Return the ways of serving releases, and the errors of what they are compared with.

    Parameters
    ----------
    results : Results
    against : int
        `serving.FINE` or `serving.OWN`.
    """
    plain, hours = results.chains["plain"], results.truth.hours
    ways = {n: serving.serve(plain, hours, at, against) for n, at in results.arrives.items()}
    others = serving.baselines(plain, hours, results.winds, against)
    first = serving.serve(plain[:1], hours, np.array([plain[0].hours]), against)
    others["first release, frozen"] = first.error
    for name, chain in results.chains.items():
        if name != "plain":
            at_once = np.array([v.hours for v in chain])
            others[name] = serving.serve(chain, hours, at_once, against).error
    if against == serving.FINE:
        others["oracle"] = square_error(*results.winds)
    return ways, others


def true_factor(hours: np.ndarray) -> np.ndarray:
    """Return the true loss factor, for figures."""
    return np.array([true_state(h / 24).screen_loss_factor for h in hours])
