"""Runs that a given error takes: steered beside random, Sobol and grid sampling.

``python -m benchmarks.steering [--houses] [--runs 96] [--seeds 3] [--store DIR] [--json FILE]``

Each strategy chooses scenarios, the embedded solver runs them, and the same surrogate family is
trained on the first 8, 12, ... of them. Two errors are measured on runs that nobody chose by: over
the weather of the mast record (what the site sees), and over a cover of all scenarios. *Steered*
uses the campaign's own functions (`workflows.acquisition`): after each training the next batch goes
where the members disagree, weighted by the weather's frequency in the first half of the record; the
evaluation winds are from its second half. The grid is a new one for each number of runs.

With ``--houses`` the screens' loss factor is an input as well as the wind. What the site sees then
is the second half of the record in a house whose screens get dusty and are washed
(`benchmarks.study.moving`), and steering knows the factor of the day on which that half begins.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apps import scores
from apps.datasets import load_simulations
from apps.scenarios import Scenario
from apps.simulation_set import SimulationSet
from apps.simulators.base import Case, Fidelity, Finished, Resources
from apps.simulators.registry import make
from apps.space import LOSS_FACTOR, Space, space_of
from apps.surrogates.places import Places
from apps.surrogates.symmetry import symmetries
from benchmarks.learning_curve import Unlimited, fitted
from benchmarks.study.moving import true_state
from benchmarks.weather import recorded
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from workflows.acquisition import (
    choose,
    reach_of,
    spread_out,
    state_frequency,
    weather_frequency,
    worth,
)
from workflows.steering import cover
from workflows.variety import Variety

ROOT = Path(__file__).resolve().parent.parent
SPEEDS, LOSS = (0.5, 14.0), (0.7, 3.0)
POOL, BATCH = 384, 8
#: Share of the cover in the weather's density, as in a campaign.
EXPLORE = 0.5


class Simulations:
    """Runs of the embedded solver, made once.

    Parameters
    ----------
    site : Site
    fidelity : Fidelity
    store : Path
    space : Space
        Columns of a scenario beside the wind.
    """

    def __init__(self, site: Site, fidelity: Fidelity, store: Path, space: Space) -> None:
        self.site, self.space = site, space
        self._fidelity = fidelity
        self._store = store
        self._simulator = make(fidelity.simulator, store)

    def of(self, rows: np.ndarray) -> SimulationSet:
        """Return the runs of scenarios (n, 2 + columns), in this order."""
        digests: list[str] = []
        scenarios = [
            Scenario(
                wind_speed=round(float(speed), 3),
                wind_from_direction=round(float(direction), 2) % 360.0,
                **({LOSS_FACTOR: round(float(state[0]), 3)} if state else {}),
            )
            for speed, direction, *state in rows
        ]
        for i in range(0, len(scenarios), BATCH):
            cases = [Case(self.site, s, self._fidelity) for s in scenarios[i : i + BATCH]]
            done = self._simulator.run(cases, Resources(batch=BATCH), None, Unlimited())
            digests += [d.digest for d in done if isinstance(d, Finished)]
        return load_simulations(self._store, digests, self.site, self.space)


def covering(n: int, seed: int, space: Space, start: int = 0) -> np.ndarray:
    """Return scrambled Sobol scenarios."""
    variety = Variety(LOSS if space.scalars else None)
    scenarios = cover("steering", start, n, seed, SPEEDS, variety)
    return np.array([(s.wind_speed, s.wind_from_direction, *space.row(s)) for s in scenarios])


def spread(shares: np.ndarray) -> np.ndarray:
    """Return scenarios (n, dimensions) for shares of the range of each, the cover's measure."""
    low, high = np.sqrt(SPEEDS)
    rows = [(low + (high - low) * shares[:, 0]) ** 2, 360.0 * shares[:, 1]]
    rows += [LOSS[0] * (LOSS[1] / LOSS[0]) ** share for share in shares[:, 2:].T]
    return np.stack(rows, axis=1)


def at_random(n: int, seed: int, dimensions: int) -> np.ndarray:
    """Return scenarios drawn independently from the same measure as the cover's."""
    return spread(np.random.default_rng(seed).uniform(size=(n, dimensions)))


def on_a_grid(n: int, dimensions: int) -> np.ndarray:
    """Return a grid of about n scenarios: twice as many directions as speeds, and losses."""
    speeds = max(2, round((n / 2) ** (1 / dimensions)))
    sizes = [speeds] * (dimensions - 1)
    directions = max(2, round(n / np.prod(sizes)))
    # Half a step off the house's axes.
    axes = [np.linspace(0, 1, speeds), (np.arange(directions) + 0.5) / directions]
    axes += [np.linspace(0, 1, size) for size in sizes[1:]]
    return spread(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dimensions))


class Steered:
    """Chooses as a campaign does.

    Parameters
    ----------
    runs : Simulations
    weather : (m, 2) array
        Winds of the past.
    state : SiteState
        Estimate of the house.
    """

    def __init__(self, runs: Simulations, weather: np.ndarray, state: SiteState) -> None:
        self._runs = runs
        self._weather, self._state = weather, state
        low, high = np.log(LOSS).tolist()
        limits = ((low, high),) if runs.space.scalars else ()
        self._places = Places(runs.site, runs.space, symmetries(runs.site), SPEEDS, limits)

    def scenarios(self, n: int, seed: int, train: Callable[[SimulationSet], Any]) -> np.ndarray:
        """Return n scenarios: a start that is spread out, then batch after batch."""
        space = self._runs.space
        dimensions = 2 + len(space.columns)
        start, pool = covering(POOL, seed, space), covering(POOL, seed, space, start=POOL)
        between = self._places.apart(start, start)
        nothing = np.empty((POOL, 0))
        first = spread_out(self._frequency(start), between, nothing, BATCH, dimensions)
        chosen = start[first]
        frequency, between = self._frequency(pool), self._places.apart(pool, pool)
        while len(chosen) < n:
            model = train(self._runs.of(chosen))
            std = model.predict(pool.astype(np.float32))[1]
            deviation = np.sqrt((std.astype(float) ** 2).mean(axis=(1, 2, 3, 4)))
            gain = worth(deviation, frequency, self._places.apart(pool, chosen))
            # The model has learnt from every run before.
            reach = reach_of(len(chosen), dimensions)
            best = choose(gain, between, nothing, min(BATCH, n - len(chosen)), reach)
            chosen = np.concatenate([chosen, pool[best]])
        return chosen

    def _frequency(self, points: np.ndarray) -> np.ndarray:
        frequency = weather_frequency(points, self._weather, np.zeros(len(self._weather)), 1.0)
        frequency *= state_frequency(points[:, 2:], self._runs.space, self._state)
        return EXPLORE + (1 - EXPLORE) * frequency


def needed(sizes: list[int], errors: np.ndarray, target: float) -> float:
    """Return the runs at which the error falls to a target, between sizes by powers; or nan."""
    for i, error in enumerate(errors):
        if error <= target:
            if i == 0:
                return float(sizes[0])
            x = np.log(errors[i - 1] / target) / np.log(errors[i - 1] / error)
            return float(np.exp(np.log(sizes[i - 1]) + x * np.log(sizes[i] / sizes[i - 1])))
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluation", type=int, default=128, help="runs of each evaluation set")
    parser.add_argument("--cells", type=int, nargs=3, default=[32, 20, 8])
    parser.add_argument("--family", default="pod_gp")
    parser.add_argument("--houses", action="store_true", help="the screens' loss varies as well")
    parser.add_argument("--store", type=Path, help="keeps the runs; a temporary folder if none")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbf-steering-") as folder:
        results = compare(options, options.store or Path(folder))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def compare(options: argparse.Namespace, store: Path) -> dict[str, Any]:
    site = Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")
    space = space_of(site, loss=options.houses, tears=False)
    runs = Simulations(site, Fidelity(cells=tuple(options.cells)), store, space)
    seconds, winds = recorded(site)[:2]
    days = (seconds - seconds[0]) / 86400.0
    inside = (winds[:, 0] >= SPEEDS[0]) & (winds[:, 0] <= SPEEDS[1])
    record, days = winds[inside], days[inside]
    half = len(record) // 2
    past, future = record[:half], record[half:]
    now = SiteState()
    if options.houses:
        factors = np.array([true_state(day).screen_loss_factor for day in days])
        future = np.concatenate([future, factors[half:, None]], axis=1)
        now = SiteState(screen_loss_factor=float(factors[half - 1]), log_error=0.1)
    rng = np.random.default_rng(1)
    truths = {
        "weather": runs.of(future[rng.choice(len(future), options.evaluation, replace=False)]),
        "cover": runs.of(covering(options.evaluation, 999, space)),
    }
    dimensions = 2 + len(space.columns)
    sizes = [n for n in (8, 12, 16, 24, 32, 48, 64, 96, 128, 192) if n <= options.runs]
    steered = Steered(runs, past, now)
    train = lambda data: fitted(options.family, {}, data, site)[0]  # noqa: E731
    errors: dict[str, dict[str, list[list[float]]]] = {name: {} for name in truths}
    for strategy in ("random", "sobol", "grid", "steered"):
        for seed in range(options.seeds if strategy != "grid" else 1):
            if strategy == "steered":
                chosen = steered.scenarios(options.runs, seed, train)
            elif strategy == "random":
                chosen = at_random(options.runs, seed, dimensions)
            elif strategy == "sobol":
                chosen = covering(options.runs, seed, space)
            found: dict[str, list[float]] = {name: [] for name in truths}
            for n in sizes:
                grid = strategy == "grid"
                model = train(runs.of(on_a_grid(n, dimensions) if grid else chosen[:n]))
                for name, truth in truths.items():
                    wind = model.predict(truth.inputs)[0]
                    found[name].append(float(scores.rmse(truth.wind, wind)))
            for name in truths:
                errors[name].setdefault(strategy, []).append(found[name])
    return {"sizes": sizes, "errors": errors, "runs": show(sizes, errors)}


def show(
    sizes: list[int], errors: dict[str, dict[str, list[list[float]]]]
) -> dict[str, dict[str, float]]:
    """Print the tables; return the runs that random sampling's last error takes."""
    table: dict[str, dict[str, float]] = {}
    for name, found in errors.items():
        middle = {strategy: np.median(np.array(e), axis=0) for strategy, e in found.items()}
        print(f"\nRMSE over the {name}, m/s, median of the seeds")
        print("| runs | " + " | ".join(middle) + " |")
        print("|---" * (len(middle) + 1) + "|")
        for i, n in enumerate(sizes):
            print(f"| {n} | " + " | ".join(f"{e[i]:.4f}" for e in middle.values()) + " |")
        table[name] = {}
        for part in (1.0, 1.5, 2.0):
            target = float(middle["random"][-1]) * part
            row = {s: needed(sizes, e, target) for s, e in middle.items()}
            if part == 1.0:
                table[name] = {**row, "steered_over_random": row["steered"] / row["random"]}
            share = row["steered"] / row["random"]
            print(
                f"runs for {target:.4f} m/s: "
                + ", ".join(f"{s} {n:.0f}" for s, n in row.items())
                + f"; steered / random {share:.2f}"
            )
    return table


if __name__ == "__main__":
    main()
