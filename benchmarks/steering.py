"""Runs that a given error takes: steered beside random, Sobol and grid sampling.

``python benchmarks/steering.py [--runs 96] [--seeds 3] [--store DIR] [--json FILE]``

Each strategy chooses winds, the embedded solver runs them, and the same surrogate family is trained
on the first 8, 12, ... of them. Two errors are measured on runs that nobody chose by: over the
weather of the mast record (what the site sees), and over a cover of all winds. *Steered* uses the
campaign's own functions (`workflows.acquisition`): after each training the next batch goes where
the members disagree, weighted by the weather's frequency in the first half of the record; the
evaluation winds are from its second half. The grid is a new one for each number of runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from learning_curve import Unlimited, fitted
from weather import recorded

from apps import scores
from apps.datasets import load_simulations
from apps.scenarios import Scenario
from apps.simulation_set import SimulationSet
from apps.simulators.base import Case, Fidelity, Finished, Resources
from apps.simulators.registry import make
from apps.space import WIND
from apps.surrogates.places import Places
from apps.surrogates.symmetry import symmetries
from edge_agent.contracts.site import Site
from workflows.acquisition import choose, reach_of, weather_frequency, worth
from workflows.steering import cover

ROOT = Path(__file__).resolve().parent.parent
SPEEDS = (0.5, 14.0)
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
    """

    def __init__(self, site: Site, fidelity: Fidelity, store: Path) -> None:
        self.site = site
        self._fidelity = fidelity
        self._store = store
        self._simulator = make(fidelity.simulator, store)

    def of(self, winds: np.ndarray) -> SimulationSet:
        """Return the runs of (n, 2) winds, in this order."""
        digests: list[str] = []
        scenarios = [
            Scenario(wind_speed=round(float(s), 3), wind_from_direction=round(float(d), 2) % 360.0)
            for s, d in winds
        ]
        for i in range(0, len(scenarios), BATCH):
            cases = [Case(self.site, s, self._fidelity) for s in scenarios[i : i + BATCH]]
            done = self._simulator.run(cases, Resources(batch=BATCH), None, Unlimited())
            digests += [d.digest for d in done if isinstance(d, Finished)]
        return load_simulations(self._store, digests, self.site)


def covering(n: int, seed: int, start: int = 0) -> np.ndarray:
    """Return scrambled Sobol winds."""
    scenarios = cover("steering", start, n, seed, SPEEDS)
    return np.array([(s.wind_speed, s.wind_from_direction) for s in scenarios])


def at_random(n: int, seed: int) -> np.ndarray:
    """Return winds drawn independently from the same measure as the cover's."""
    rng = np.random.default_rng(seed)
    low, high = np.sqrt(SPEEDS)
    return np.stack([rng.uniform(low, high, n) ** 2, rng.uniform(0, 360, n)], axis=1)


def on_a_grid(n: int) -> np.ndarray:
    """Return a grid of about n winds: speeds by directions, half a step off the house's axes."""
    speeds = max(2, round(np.sqrt(n / 2)))
    directions = max(2, round(n / speeds))
    low, high = np.sqrt(SPEEDS)
    s = np.linspace(low, high, speeds) ** 2
    d = (np.arange(directions) + 0.5) * 360.0 / directions
    return np.stack(np.meshgrid(s, d, indexing="ij"), axis=-1).reshape(-1, 2)


class Steered:
    """Chooses as a campaign does.

    Parameters
    ----------
    runs : Simulations
    weather : (m, 2) array
        Winds of the past.
    """

    def __init__(self, runs: Simulations, weather: np.ndarray) -> None:
        self._runs = runs
        self._weather = weather
        self._places = Places(runs.site, WIND, symmetries(runs.site), SPEEDS, ())

    def winds(self, n: int, seed: int, train: Callable[[SimulationSet], Any]) -> np.ndarray:
        """Return n winds: a covering start, then batch after batch."""
        chosen = covering(BATCH, seed)
        pool = covering(POOL, seed, start=BATCH)
        ages = np.zeros(len(self._weather))
        frequency = weather_frequency(pool, self._weather, ages, 1.0)
        frequency = EXPLORE + (1 - EXPLORE) * frequency
        between = self._places.apart(pool, pool)
        while len(chosen) < n:
            model = train(self._runs.of(chosen))
            std = model.predict(pool.astype(np.float32))[1]
            deviation = np.sqrt((std.astype(float) ** 2).mean(axis=(1, 2, 3, 4)))
            gain = worth(deviation, frequency, self._places.apart(pool, chosen))
            # The model has learnt from every run before.
            none = np.empty((POOL, 0))
            best = choose(gain, between, none, min(BATCH, n - len(chosen)), reach_of(len(chosen)))
            chosen = np.concatenate([chosen, pool[best]])
        return chosen


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
    parser.add_argument("--family", default="pod_regression")
    parser.add_argument("--store", type=Path, help="keeps the runs; a temporary folder if none")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbf-steering-") as folder:
        results = compare(options, options.store or Path(folder))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def compare(options: argparse.Namespace, store: Path) -> dict[str, Any]:
    site = Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")
    runs = Simulations(site, Fidelity(cells=tuple(options.cells)), store)
    winds = recorded(site)[1]
    record = winds[(winds[:, 0] >= SPEEDS[0]) & (winds[:, 0] <= SPEEDS[1])]
    past, future = record[: len(record) // 2], record[len(record) // 2 :]
    rng = np.random.default_rng(1)
    truths = {
        "weather": runs.of(future[rng.choice(len(future), options.evaluation, replace=False)]),
        "cover": runs.of(covering(options.evaluation, 999)),
    }
    sizes = [n for n in (8, 12, 16, 24, 32, 48, 64, 96, 128, 192) if n <= options.runs]
    steered = Steered(runs, past)
    train = lambda data: fitted(options.family, {}, data, site)[0]  # noqa: E731
    errors: dict[str, dict[str, list[list[float]]]] = {name: {} for name in truths}
    for strategy in ("random", "sobol", "grid", "steered"):
        for seed in range(options.seeds if strategy != "grid" else 1):
            if strategy == "steered":
                winds = steered.winds(options.runs, seed, train)
            elif strategy != "grid":
                winds = (at_random if strategy == "random" else covering)(options.runs, seed)
            found: dict[str, list[float]] = {name: [] for name in truths}
            for n in sizes:
                model = train(runs.of(on_a_grid(n) if strategy == "grid" else winds[:n]))
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
