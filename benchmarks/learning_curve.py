"""Error of a surrogate family against the number of training runs, beside the baselines.

``python benchmarks/learning_curve.py --out DIR [--cells 32 20 8] [--seed 7]`` simulates what DIR
does not hold yet and prints the table of ``docs/surrogates.md``.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from apps import baselines, scores
from apps.datasets import load_simulations
from apps.simulation_set import SimulationSet
from apps.simulators.base import Case, Fidelity, Finished, Resources
from apps.simulators.registry import make
from apps.surrogates.base import Surrogate, family, family_settings
from apps.surrogates.blas import blas_threads
from edge_agent.contracts.site import Site
from workflows.steering import cover

ROOT = Path(__file__).resolve().parent.parent
WIND_SPEED = (0.5, 14.0)


class Unlimited:
    def remaining(self) -> float:
        return math.inf

    def stop_requested(self) -> bool:
        return False


def simulated(
    site: Site, fidelity: Fidelity, stream: str, n: int, seed: int, store: Path
) -> SimulationSet:
    """Return the first `n` runs of a stream; a run that fails is left out."""
    simulator, resources, digests = make(fidelity.simulator, store), Resources(batch=8), []
    scenarios = cover(stream, 0, n, seed, WIND_SPEED)
    for i in range(0, n, 8):
        cases = [Case(site, s, fidelity) for s in scenarios[i : i + 8]]
        done = simulator.run(cases, resources, None, Unlimited())
        digests += [d.digest for d in done if isinstance(d, Finished)]
    return load_simulations(store, digests, site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs=3, default=[32, 20, 8])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--family", default="pod_regression")
    parser.add_argument("--evaluation", type=int, default=64)
    parser.add_argument("--runs", type=int, nargs="+", default=[8, 12, 16, 24, 32, 48, 64, 96, 128])
    args = parser.parse_args()
    site = Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")
    fidelity = Fidelity(cells=tuple(args.cells))
    truth, calibration, training = (
        simulated(site, fidelity, stream, n, args.seed, args.out)
        for stream, n in (
            ("evaluation", args.evaluation),
            ("calibration", 32),
            ("training", max(args.runs)),
        )
    )
    inputs, bearing = truth.inputs, site.footprint.x_axis_bearing
    size = np.sqrt((truth.wind**2).sum(axis=1).mean())
    print(f"{fidelity}, {len(truth.digests)} evaluation runs, root mean square wind {size:.2f} m/s")
    print("| runs | RMSE, m/s | relative L2 | coverage | no mirrors | nearest | ratio | fit, s |")
    print("|---|---|---|---|---|---|---|---|")
    for n in args.runs:
        data = training.take(slice(n))
        model, seconds = fitted(args.family, {}, data, site)
        plain, _ = fitted(args.family, {"symmetry": False}, data, site)
        wind, std = model.predict(inputs)
        factor = scores.conformal_factor(calibration.wind, *model.predict(calibration.inputs), 0.9)
        nearest = baselines.nearest_simulation(data, inputs)
        ratio = baselines.constant_ratio(data, inputs, bearing)
        row = [
            f"{n}",
            f"{scores.rmse(truth.wind, wind):.4f}",
            f"{scores.relative_l2(truth.wind, wind):.4f}",
            f"{scores.coverage(truth.wind, wind, std, factor):.2f}",
            f"{scores.rmse(truth.wind, plain.predict(inputs)[0]):.4f}",
            f"{scores.rmse(truth.wind, nearest):.3f}",
            f"{scores.rmse(truth.wind, ratio):.3f}",
            f"{seconds:.2f}",
        ]
        print("| " + " | ".join(row) + " |", flush=True)


def fitted(
    name: str, settings: dict[str, bool], data: SimulationSet, site: Site
) -> tuple[Surrogate, float]:
    """Return a trained surrogate and the seconds it took on one thread."""
    started = time.perf_counter()
    with blas_threads(1):
        model = family(name).fit(data, site, family_settings(name, settings), 0)
    return model, time.perf_counter() - started


if __name__ == "__main__":
    main()
