"""A second opinion: some scenarios of the evaluation set solved with OpenFOAM.

``python -m benchmarks.study.openfoam --store DIR`` (needs OpenFOAM, four minutes on one core)
writes ``data/study/openfoam.npz``. The study reads that file; it does not need OpenFOAM.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps import baselines, scores
from apps.simulators.base import Fidelity
from apps.surrogates.base import family, family_settings
from apps.surrogates.blas import blas_threads
from benchmarks.study.runs import Runs
from benchmarks.study.truth import (
    FILE,
    QUANTUM,
    SEED,
    SITE,
    WIND_SPEED,
    Moment,
    Truth,
    frozen,
    simulated,
)
from edge_agent.contracts.site import Site
from workflows.steering import cover

OPENFOAM = Fidelity(simulator="openfoam", cells=(30, 24, 10))
OPENFOAM_FILE = FILE.with_name("openfoam.npz")
COUNT = 16
#: Training runs of the surrogates that are compared.
SIZES = (8, 16, 32, 128)


@dataclass(frozen=True)
class Against:
    """RMSE on the same scenarios, m/s."""

    name: str
    openfoam: float
    fine: float
    """Against the study's truth."""


def load(path: Path = OPENFOAM_FILE) -> np.ndarray:
    """Return the wind of the first scenarios of the evaluation set, (n, 3, nz, ny, nx), m/s."""
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["wind"].astype(np.float32) * np.float32(QUANTUM))


def compare(runs: Runs, dear: Runs, evaluation: Truth, name: str, most: int) -> list[Against]:
    """Return what each is off OpenFOAM and the fine truth.

    Parameters
    ----------
    runs, dear : Runs
        Of the cheap and of the dear training grid.
    evaluation : Truth
        The frozen evaluation set.
    name : str
        Surrogate family.
    most : int
        Training runs that there are.
    """
    openfoam = load()
    n = len(openfoam)
    fine, inputs = evaluation.wind[:n], evaluation.inputs[:n].astype(np.float32)

    def against(what: str, wind: np.ndarray) -> Against:
        return Against(what, scores.rmse(openfoam, wind), scores.rmse(fine, wind))

    training = runs.take(cover("training", 0, most, SEED, WIND_SPEED))
    bearing = runs.site.footprint.x_axis_bearing
    found = [
        against("constant ratio", baselines.constant_ratio(training, inputs, bearing)),
        against(f"nearest simulation of {most}", baselines.nearest_simulation(training, inputs)),
    ]
    for size in (s for s in SIZES if s <= most):
        data = runs.take(cover("training", 0, size, SEED, WIND_SPEED))
        with blas_threads(1):
            model = family(name).fit(data, runs.site, family_settings(name, {}), SEED)
        found.append(against(f"`{name}`, {size} runs", model.predict(inputs)[0]))
    found.append(against("cheap solver", runs.take(frozen("evaluation", n)).wind))
    found.append(against("dear solver", dear.take(frozen("evaluation", n)).wind))
    found.append(against("fine truth", fine))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--out", type=Path, default=OPENFOAM_FILE)
    args = parser.parse_args()
    site = Site.from_toml(SITE)
    moments = [Moment(float("nan"), site, scenario) for scenario in frozen("evaluation", COUNT)]
    truth = simulated(moments, args.store, OPENFOAM, "OpenFOAM")
    if len(truth.inputs) < COUNT:
        parser.error("a run failed; the file would not belong to the evaluation set")
    wind = np.rint(truth.wind / QUANTUM).astype(np.int16)
    np.savez_compressed(args.out, wind=wind, made_by=np.array(str(OPENFOAM)))
    print(f"{len(wind)} fields, {args.out.stat().st_size / 1e3:.0f} kB: {args.out}")


if __name__ == "__main__":
    main()
