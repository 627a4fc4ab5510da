"""Held-out error of every family by number of runs, on two problems of one site.

``wind``: wind speed and direction, the two inputs of the default campaign. ``trial``: the seven
parameters of the first trial of surrogates (`benchmarks.trial.problem`,
``../shared/facts/cfd.md``, section 5), beside the trial's own families (`benchmarks.trial.peers`).

Embedded runs, made once and kept in ``--out``. Speed error is the mean over evaluation scenarios of
the relative L2 error of wind speed; coverage that of 90 % intervals calibrated on the calibration
set; latency of one answer in ONNX Runtime on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps import baselines, scores
from apps.choice import latency_ms
from apps.input_variables import input_variables
from apps.simulation_set import SimulationSet
from apps.simulators.base import Fidelity
from apps.surrogates.base import FAMILIES, by_name, family, family_settings
from apps.surrogates.blas import blas_threads
from apps.surrogates.export import canonical_bytes, check_parity
from benchmarks import learning_curve
from benchmarks.trial import problem
from benchmarks.trial.peers import BEST, LIKE, PEERS, gaussian_process
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.site import Site

#: What is aimed at: a third less than the trial's best on its own house.
AIM = {runs: 2 / 3 * error for runs, error in BEST.items()}
TRAINING, CALIBRATION, EVALUATION = 256, 128, 128
#: Title of each column, and how its values are written.
COLUMNS = {
    "model": ("model", "{}"),
    "runs": ("runs", "{}"),
    "speed_error": ("speed error", "{:.4f}"),
    "aim_met": ("aim met", "{}"),
    "trial": ("the trial's", "{}"),
    "rmse": ("RMSE, m/s", "{:.4f}"),
    "coverage": ("coverage", "{:.3f}"),
    "cpu_seconds": ("CPU s", "{:.1f}"),
    "latency_ms": ("ms", "{:.2f}"),
    "kilobytes": ("kB", "{:.0f}"),
}


@dataclass(frozen=True)
class Problem:
    """What is to be learnt, and what it is judged by."""

    site: Site
    training: SimulationSet
    calibration: SimulationSet
    truth: SimulationSet

    def row(self, name: str, runs: int, wind: np.ndarray) -> dict[str, Any]:
        """Return a row of the table: the errors of some predictions."""
        error = speed_error(self.truth.wind, wind)
        row = {"model": name, "runs": runs, "speed_error": error}
        if runs in AIM:
            row["aim_met"] = "yes" if error <= AIM[runs] else "no"
        return row | {"rmse": scores.rmse(self.truth.wind, wind)}


def speed_error(truth: np.ndarray, wind: np.ndarray) -> float:
    a, b = (np.linalg.norm(f, axis=1).reshape(len(f), -1) for f in (truth, wind))
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).mean())


def wind_problem(site: Site, fidelity: Fidelity, most: int, store: Path, seed: int) -> Problem:
    """Return the problem of wind speed and direction."""
    sets = (
        learning_curve.simulated(site, fidelity, stream, n, seed, store)
        for stream, n in (
            ("training", most),
            ("calibration", CALIBRATION),
            ("evaluation", EVALUATION),
        )
    )
    return Problem(site, *sets)


def trial_problem(site: Site, fidelity: Fidelity, most: int, store: Path, seed: int) -> Problem:
    """Return the trial's problem."""
    last = TRAINING + CALIBRATION
    places = ((0, min(most, TRAINING)), (TRAINING, last), (last, last + EVALUATION))
    sets = (problem.simulated(site, fidelity, seed, a, b, store) for a, b in places)
    return Problem(site, *sets)


#: How each is made, and the seed of its scenarios, which no choice of settings has seen.
PROBLEMS = {"wind": (wind_problem, 7), "trial": (trial_problem, problem.SEED)}


def reached(trial: dict[int, float], runs: int) -> dict[str, str]:
    """Return what the trial reached with so many runs, for a row; nothing if it did not try."""
    return {"trial": f"{trial[runs]:.3f}"} if runs in trial else {}


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a training gives, on one thread, and its CPU seconds."""
    started = time.process_time()
    with blas_threads(1):
        model = fit()
    return model, time.process_time() - started


def measured(name: str, symmetry: bool, data: SimulationSet, of: Problem) -> dict[str, Any]:
    """Return the row of one of our families."""
    settings = family_settings(name, {"symmetry": symmetry})
    model, seconds = timed(lambda: family(name).fit(data, of.site, settings, 0))
    exported = canonical_bytes(model.to_onnx())
    variables = input_variables(MastLogLaw.for_site(of.site), data, of.site, None)
    wind, std = model.predict(of.truth.inputs)
    known = of.calibration
    factor = scores.conformal_factor(known.wind, *model.predict(known.inputs), 0.9)
    label = name if symmetry else f"{name}, no mirrors"
    return (
        of.row(label, len(data.digests), wind)
        | {
            "coverage": scores.coverage(of.truth.wind, wind, std, factor),
            "cpu_seconds": seconds,
            "latency_ms": latency_ms(exported, of.truth.inputs[:1]),
            "kilobytes": len(exported) / 1024,
            "parity": check_parity(by_name(model.predict), exported, variables),
        }
        | reached(LIKE.get((name, symmetry), {}), len(data.digests))
    )


def peer(name: str, data: SimulationSet, of: Problem) -> dict[str, Any]:
    """Return the row of one of the trial's families."""
    predict, seconds = timed(lambda: PEERS[name].fit(data, of.site))
    row = of.row(f"*{name}*", len(data.digests), predict(of.truth))
    return row | {"cpu_seconds": seconds} | reached(PEERS[name].trial, len(data.digests))


def floors(data: SimulationSet, of: Problem) -> list[dict[str, Any]]:
    """Return the rows of the wind problem's floors."""
    n, found = len(data.digests), baselines.nearest_simulation(data, of.truth.inputs)
    process = gaussian_process(data, of.site)(of.truth)
    return [of.row("nearest run", n, found), of.row("POD + GP (trial's)", n, process)]


def rows(of: Problem, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of a problem's table."""
    state = bool(of.training.space.columns)
    for n in args.runs:
        data = of.training.take(slice(n))
        if state:
            yield from (peer(name, data, of) for name in args.peers)
        else:
            yield from floors(data, of)
        for symmetry, names in ((False, args.no_mirrors), (True, args.families)):
            for name in names:
                if FAMILIES[name].takes_state or not state:
                    yield measured(name, symmetry, data, of)


def luck(name: str, runs: int, of: Problem) -> list[float]:
    """Return the speed error of a family on each of the disjoint blocks of training runs."""
    whole, found = len(of.training.digests), []
    for first in range(0, whole - runs + 1, runs):
        data = of.training.take(slice(first, first + runs))
        with blas_threads(1):
            model = family(name).fit(data, of.site, family_settings(name, {}), 0)
        found.append(speed_error(of.truth.wind, model.predict(of.truth.inputs)[0]))
    return found


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the runs")
    parser.add_argument("--json", type=Path, help="write the tables there, too")
    parser.add_argument("--problem", choices=list(PROBLEMS), nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seed", type=int, help="of the scenarios; each problem's own if none")
    parser.add_argument("--runs", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument(
        "--no-mirrors", nargs="*", default=["pod_regression", "pod_gp", "pod_network"]
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="the trial's families")
    parser.add_argument(
        "--blocks", default="pod_gp", help="family whose error is shown for other runs, too"
    )
    parser.add_argument("--cells", type=int, nargs=3, default=[32, 20, 8])
    args = parser.parse_args()
    site = Site.from_toml(learning_curve.ROOT / "configs" / "sites" / "lindcove.toml")
    fidelity, tables, blocks = Fidelity(cells=tuple(args.cells)), {}, {}
    for name in args.problem:
        make, seed = PROBLEMS[name]
        seed = seed if args.seed is None else args.seed
        of = make(site, fidelity, max(args.runs), args.out, seed)
        # Another problem's figures are beside the point where there are two inputs.
        shown = {k: v for k, v in COLUMNS.items() if name == "trial" or k != "trial"}
        print(f"\n{name}, seed {seed}\n")
        print(line([title for title, _ in shown.values()]) + "\n" + "|---" * len(shown) + "|")
        tables[name], blocks[name] = [], {}
        for row in rows(of, args):
            tables[name].append(row)
            texts = (form.format(row[k]) if k in row else "" for k, (_, form) in shown.items())
            print(line(list(texts)), flush=True)
        for n in args.runs if args.blocks else ():
            errors = blocks[name][n] = luck(args.blocks, n, of)
            met = sum(e <= AIM.get(n, 0.0) for e in errors)
            print(
                f"\n{args.blocks} on each {n} of the runs: {min(errors):.4f} to {max(errors):.4f}, "
                f"median {np.median(errors):.4f}; aim met by {met} of {len(errors)}"
            )
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items()}
        found = {"settings": settings, "tables": tables, "blocks": blocks}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
