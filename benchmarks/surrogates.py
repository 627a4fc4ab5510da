"""Held-out error of every family by number of runs, with and without the site's symmetries.

Beside floors and the trial's POD + Gaussian process (`../shared/facts/cfd.md`, section 5), on one
site's embedded runs, made once and kept in ``--out``. Speed error is the mean over evaluation
scenarios of the relative L2 error of wind speed; coverage that of 90 % intervals calibrated on the
calibration set; latency of one answer in ONNX Runtime on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
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
from benchmarks.learning_curve import ROOT, simulated
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.site import Site

#: The trial's best on its own house, and what is aimed at: a third less.
TRIAL = {16: 0.050, 64: 0.029, 256: 0.021}


def speed_error(truth: np.ndarray, wind: np.ndarray) -> float:
    a, b = (np.linalg.norm(f, axis=1).reshape(len(f), -1) for f in (truth, wind))
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)).mean())


def gaussian_process(data: SimulationSet, inputs: np.ndarray) -> np.ndarray:
    """Return the trial's POD + GP: wind over speed, anisotropic Matern kernel, scikit-learn."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    def columns(speed: np.ndarray, direction: np.ndarray) -> np.ndarray:
        angle = np.deg2rad(direction)
        return np.stack([np.cos(angle), np.sin(angle), speed], axis=1)

    x = columns(data.wind_speed, data.wind_from_direction)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    y = (data.wind / data.wind_speed[:, None, None, None, None]).reshape(len(x), -1)
    centre = y.mean(axis=0)
    modes = np.linalg.svd(y - centre, full_matrices=False)[2][: min(len(x) - 1, 48)]
    kernel = ConstantKernel(1) * Matern(np.ones(3) * 3, (0.1, 100), nu=2.5) + WhiteKernel(1e-3)
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lengths at the ends of their bounds
        process.fit((x - mean) / spread, (y - centre) @ modes.T)
    asked = (columns(*inputs.T.astype(float)) - mean) / spread
    found = process.predict(asked) @ modes + centre
    return np.asarray(found * inputs[:, :1]).reshape(-1, *data.wind.shape[1:])


def floor(name: str, wind: np.ndarray, truth: SimulationSet, n: int) -> dict[str, Any]:
    return {
        "model": name,
        "runs": n,
        "speed_error": speed_error(truth.wind, wind),
        "rmse": scores.rmse(truth.wind, wind),
    }


def measured(
    name: str,
    symmetry: bool,
    data: SimulationSet,
    site: Site,
    truth: SimulationSet,
    calibration: SimulationSet,
) -> dict[str, Any]:
    settings = family_settings(name, {"symmetry": symmetry})
    started = time.process_time()
    with blas_threads(1):
        model = family(name).fit(data, site, settings, 0)
    seconds = time.process_time() - started
    exported = canonical_bytes(model.to_onnx())
    variables = input_variables(MastLogLaw.for_site(site), data, site, None)
    wind, std = model.predict(truth.inputs)
    factor = scores.conformal_factor(calibration.wind, *model.predict(calibration.inputs), 0.9)
    label = name if symmetry else f"{name}, no mirrors"
    return floor(label, wind, truth, len(data.digests)) | {
        "coverage": scores.coverage(truth.wind, wind, std, factor),
        "cpu_seconds": seconds,
        "latency_ms": latency_ms(exported, truth.inputs[:1]),
        "kilobytes": len(exported) / 1024,
        "parity": check_parity(by_name(model.predict), exported, variables),
    }


def line(row: dict[str, Any]) -> str:
    aim = 2 / 3 * TRIAL[row["runs"]] if row["runs"] in TRIAL else None
    met = "" if aim is None else "yes" if row["speed_error"] <= aim else "no"
    cells = [row["model"], f"{row['runs']}", f"{row['speed_error']:.4f}", met, f"{row['rmse']:.4f}"]
    for key, form in (
        ("coverage", "{:.3f}"),
        ("cpu_seconds", "{:.1f}"),
        ("latency_ms", "{:.2f}"),
        ("kilobytes", "{:.0f}"),
    ):
        cells.append(form.format(row[key]) if key in row else "")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the runs")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("--runs", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--no-mirrors", nargs="*", default=["pod_regression", "pod_network"])
    parser.add_argument("--floors", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cells", type=int, nargs=3, default=[32, 20, 8])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--evaluation", type=int, default=128)
    parser.add_argument("--calibration", type=int, default=128)
    args = parser.parse_args()
    site = Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")
    fidelity = Fidelity(cells=tuple(args.cells))
    truth, calibration, training = (
        simulated(site, fidelity, stream, n, args.seed, args.out)
        for stream, n in (
            ("evaluation", args.evaluation),
            ("calibration", args.calibration),
            ("training", max(args.runs)),
        )
    )
    print("| model | runs | speed error | aim met | RMSE, m/s | coverage | CPU s | ms | kB |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []

    def show(row: dict[str, Any]) -> None:
        rows.append(row)
        print(line(row), flush=True)

    for n in args.runs:
        data, inputs = training.take(slice(n)), truth.inputs
        if args.floors:
            show(floor("nearest run", baselines.nearest_simulation(data, inputs), truth, n))
            show(floor("POD + GP (trial's)", gaussian_process(data, inputs), truth, n))
        for name in args.no_mirrors:
            show(measured(name, False, data, site, truth, calibration))
        for name in args.families:
            show(measured(name, True, data, site, truth, calibration))
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items()}
        args.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
