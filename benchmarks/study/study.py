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
from apps.space import space_of
from apps.surrogates.base import family
from benchmarks.study import arrivals, serving
from benchmarks.study.cache import Cache
from benchmarks.study.following import Chain, Rules, Version, square_error
from benchmarks.study.learning import Learning, Row, Sources, learn
from benchmarks.study.moving import true_state
from benchmarks.study.openfoam import Against, compare
from benchmarks.study.readings import Noise, made
from benchmarks.study.runs import Runs
from benchmarks.study.setting import Setting
from benchmarks.study.truth import DEAR, SITE, TRAINING, Truth, load, replayed
from edge_agent.contracts.release import ReadingErrors
from edge_agent.contracts.site import Site

T = TypeVar("T")

#: The plain noise, and what else is tried: name to noise, silent sensors, rules.
PLAIN = Noise()
UNESTIMATED = "state not estimated"
#: Added to the name of a way of serving that takes the interior readings as inputs.
SENSORS = ", sensors in"


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
    "twice the noise": Arm(
        Noise(gain=0.10, gusts=0.20, white=0.10),
        rules={"errors": ReadingErrors(sensor_relative=0.24, sensor_absolute=0.1)},
    ),
    "most telling sensor silent from day 10": Arm(silent={2: 240.0}),
    "mast off by 8 % and 6 degrees": Arm(
        Noise(mast_speed=0.08, mast_direction=6.0),
        rules={"errors": ReadingErrors(mast_speed=0.08, mast_direction=6.0)},
    ),
    UNESTIMATED: Arm(rules={"estimated": False}),
}


@dataclass(frozen=True)
class Results:
    """All that the report is written from."""

    setting: Setting
    truth: Truth
    learning: dict[str, Learning]
    """Of each family, on one grid."""
    two_grids: Learning
    """Of the first family, on two grids and against the fine truth."""
    chains: dict[str, list[Version]]
    """``plain``, and the arms."""
    arrives: dict[str, np.ndarray]
    """Hour at which each release of the plain chain can serve, by the way it comes."""
    winds: np.ndarray
    """(2, n, 3, nz, ny, nx): the fine truth, and the dear solver in the true state, m/s."""
    openfoam: list[Against]
    """Surrogates and baselines beside OpenFOAM on some scenarios."""
    seconds: dict[str, float]
    """Wall time of each part in this run, s."""
    solver_seconds: float
    """Of what was simulated in this run, s."""


def study(setting: Setting, work: Path) -> Results:
    """Compute everything that `work` does not hold yet."""
    site = Site.from_toml(SITE)
    truths = load()
    replay = truths.replay.every(setting.every)
    store = work / "simulations"
    cheap, dear = Runs(site, TRAINING, store), Runs(site, DEAR, store)
    sources = Sources(cheap, dear, truths, work)
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
        name: timed(f"learning, {name}", lambda name=name, n=n: _learning(sources, cache, name, n))
        for name, n in sizes.items()
    }
    two_grids = timed(
        "learning, two grids",
        lambda: _learning(sources, cache, setting.family, setting.sizes, two_grids=True),
    )
    winds = timed("dear solver in the true state", lambda: _both_truths(dear, replay))
    space = space_of(site, loss=True, tears=True)
    levels = tuple(Runs(site, grid, store, space=space) for grid in (TRAINING, DEAR))
    rules = replace(setting.rules, family=setting.family)
    chains = {
        name: timed(
            f"chain, {name}",
            lambda arm=arm: _chain(arm, rules, setting, levels, (replay, winds), cache),
        )
        for name, arm in _arms(setting, rules).items()
    }
    plain = chains["plain"]
    arrives = timed(
        "arrivals",
        lambda: dict(
            arrivals.schedules(
                [v.hours for v in plain], [v.new + v.dear for v in plain], setting.seed
            )
        ),
    )
    openfoam = timed(
        "OpenFOAM",
        lambda: compare(cheap, dear, truths.evaluation, setting.family, max(setting.sizes)),
    )
    return Results(
        setting=setting,
        truth=replay,
        learning=learning,
        two_grids=two_grids,
        chains=chains,
        arrives=arrives,
        winds=winds,
        openfoam=openfoam,
        seconds=seconds,
        solver_seconds=sum(runs.solver_seconds for runs in (cheap, dear, *levels)),
    )


def _arms(setting: Setting, rules: Rules) -> dict[str, Arm]:
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
    return arms


def _learning(
    sources: Sources, cache: Cache, name: str, sizes: tuple[int, ...], *, two_grids: bool = False
) -> Learning:
    key = {
        "family": name,
        "version": family(name).version,
        "sizes": sizes,
        "two_grids": two_grids,
    }
    found = cache.values(
        "learning",
        key,
        lambda: learn(sources, family=name, sizes=sizes, two_grids=two_grids).as_json(),
    )
    rows = tuple(Row(**(row | {"reasons": tuple(row["reasons"])})) for row in found["rows"])
    return Learning(**(found | {"rows": rows}))


def _chain(
    arm: Arm,
    rules: Rules,
    setting: Setting,
    levels: tuple[Runs, ...],
    truths: tuple[Truth, np.ndarray],
    cache: Cache,
) -> list[Version]:
    rules = replace(rules, **arm.rules)
    key = {
        "rules": asdict(rules) | {"errors": rules.errors.model_dump(mode="json")},
        "noise": asdict(arm.noise),
        "silent": {str(k): v for k, v in arm.silent.items()},
        "seed": setting.seed + arm.draw,
        "every": setting.every,
        "version": family(rules.family).version,
    }
    (truth, winds), (cheap, dear) = truths, levels
    readings = made(truth, cheap.site, arm.noise, setting.seed + arm.draw, dict(arm.silent))
    end = float(truth.hours[-1])
    return cache.versions(
        "chain", key, lambda: list(Chain(cheap, dear, winds, readings, rules).follow(end))
    )


def _both_truths(runs: Runs, truth: Truth) -> np.ndarray:
    """Return the fine truth, and another grid's solver in the true state at every instant."""
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
        msg = f"{len(own)} of {len(truth.hours)} instants could be solved on the dear grid"
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
    frozen = "first release, frozen"
    for signature, name in ((serving.BLIND, ""), (serving.SEEING, SENSORS)):
        first = np.array([plain[0].hours])
        others[frozen + name] = serving.serve(plain[:1], hours, first, against, signature).error
        for arm, chain in results.chains.items():
            at_once = np.array([v.hours for v in chain])
            if arm != "plain":
                others[arm + name] = serving.serve(chain, hours, at_once, against, signature).error
    for name in SEEN:
        at = results.arrives[name]
        others[name + SENSORS] = serving.serve(plain, hours, at, against, serving.SEEING).error
    if against == serving.FINE:
        others["oracle"] = square_error(*results.winds)
    return ways, others


#: Delays that are shown with interior sensors, too.
SEEN = ("0 h", "24 h", "72 h")


def true_factor(hours: np.ndarray) -> np.ndarray:
    """Return the true loss factor, for figures."""
    return np.array([true_state(h / 24).screen_loss_factor for h in hours])
