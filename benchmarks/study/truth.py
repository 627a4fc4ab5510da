"""The truth of the study: simulated once on a fine grid, and shipped as one compressed file.

``python -m benchmarks.study.truth --store DIR`` simulates what DIR does not hold yet (two and a
half hours on one core) and writes ``data/study/truth.npz``. Kill it anywhere: finished runs are
found again.

The solver is the embedded one on a grid twice as fine, along every axis, as any training run.
Every four hours of the record are simulated as they were, with the house as
`benchmarks.study.moving` has it then. Scenarios of low-discrepancy covers, with the house as on the
first day, are the frozen sets: 128 that are only reported (evaluation), 32 that decide (selection),
128 that set the intervals (calibration).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from apps.datasets import read_simulation, simulation_path
from apps.scenarios import Scenario
from apps.simulate import SimulateTask, simulate
from apps.simulators.base import Fidelity, Resources
from apps.simulators.registry import solver_version
from benchmarks.study.moving import true_state
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.site import Site
from workflows.steering import cover

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "data" / "weather" / "mast_10min.csv"
SITE = ROOT / "configs" / "sites" / "lindcove.toml"
FILE = ROOT / "data" / "study" / "truth.npz"
#: Grids of the cheap and of the dear training runs, and of the truth.
TRAINING, DEAR = Fidelity(cells=(28, 18, 14)), Fidelity(cells=(40, 26, 20))
FINE = Fidelity(cells=(80, 52, 40))
#: Range of the training scenarios, m/s at the reference height.
WIND_SPEED = (0.5, 14.0)
#: Lighter winds are simulated as this one, m/s.
LIGHTEST = 0.3
STEP_HOURS = 4
#: Sizes of the frozen sets.
EVALUATION, SELECTION, CALIBRATION = 128, 32, 128
SEED = 2026
BATCH = 4
#: What one unit of the stored integers is, m/s.
QUANTUM = 1e-3


@dataclass(frozen=True)
class Truth:
    """True winds in the house."""

    hours: np.ndarray
    """(n,) since the record's start; NaN in the evaluation set."""
    inputs: np.ndarray
    """(n, 2) wind speed at the reference height (m/s) and direction (degrees)."""
    screen_loss_factor: np.ndarray
    """(n,): for figures; no surrogate and no estimator is told."""
    torn: np.ndarray
    """(n,) bool."""
    wind: np.ndarray
    """(n, 3, nz, ny, nx) float32, m/s."""

    def every(self, step: int) -> Truth:
        """Return each `step`-th of them."""
        return Truth(**{f.name: getattr(self, f.name)[::step] for f in fields(self)})


@dataclass(frozen=True)
class Truths:
    """All that is shipped."""

    replay: Truth
    """The record, in the house that changes."""
    evaluation: Truth
    selection: Truth
    calibration: Truth


@dataclass(frozen=True)
class Moment:
    """One thing to simulate."""

    hours: float
    site: Site
    scenario: Scenario


def replayed(site: Site, step_hours: int = STEP_HOURS) -> list[Moment]:
    """Return the record's winds, every so many hours, in the house as it is then."""
    features = MastLogLaw.for_site(site)
    found: list[Moment] = []
    start: datetime | None = None
    with RECORD.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            time = datetime.fromisoformat(row["time"])
            start = start or time
            hours = (time - start).total_seconds() / 3600
            speed, direction = row["wind_speed_40m"], row["wind_from_direction_38m"]
            if hours % step_hours or not (speed and direction):
                continue
            wind = features.from_readings(
                {"wind_speed": [float(speed)], "wind_from_direction": [float(direction)]}
            )
            state = true_state(hours / 24)
            scenario = Scenario(
                wind_speed=round(max(float(wind[0]), LIGHTEST), 3),
                wind_from_direction=round(float(wind[1]), 2) % 360.0,
                screen_loss_factor=state.screen_loss_factor,
                tears=state.tears,
            )
            found.append(Moment(hours, state.site(site), scenario))
    return found


def frozen(name: str, count: int | None = None) -> list[Scenario]:
    """Return the scenarios of a frozen set, all of them or the first so many."""
    sizes = {"evaluation": EVALUATION, "selection": SELECTION, "calibration": CALIBRATION}
    return cover(name, 0, sizes[name] if count is None else count, SEED, WIND_SPEED)


def simulated(moments: Sequence[Moment], store: Path, fidelity: Fidelity, label: str) -> Truth:
    """Simulate moments; one that fails is left out and said."""
    kept: list[tuple[Moment, np.ndarray]] = []
    done = 0
    for _, same in groupby(moments, key=lambda m: m.site.content_digest()):
        day = list(same)
        for first in range(0, len(day), BATCH):
            part = day[first : first + BATCH]
            task = SimulateTask(
                site=part[0].site,
                scenarios=tuple(m.scenario for m in part),
                fidelity=fidelity,
                resources=Resources(threads=1, batch=BATCH),
                store=str(store),
            )
            for moment, outcome in zip(part, simulate(task).outcomes, strict=True):
                if outcome.status == "finished":
                    run = read_simulation(simulation_path(store, outcome.digest))
                    kept.append((moment, run.wind))
                else:
                    print(f"\nleft out: {moment.scenario}: {outcome.detail}")
            done += len(part)
            print(f"\r{label}: {done} of {len(moments)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Truth(
        hours=np.array([m.hours for m, _ in kept]),
        inputs=np.array([(m.scenario.wind_speed, m.scenario.wind_from_direction) for m, _ in kept]),
        screen_loss_factor=np.array([m.scenario.screen_loss_factor for m, _ in kept]),
        torn=np.array([bool(m.scenario.tears) for m, _ in kept]),
        wind=np.stack([wind for _, wind in kept]),
    )


def save(path: Path, truths: Truths) -> None:
    """Write all sets as one file."""
    arrays: dict[str, np.ndarray] = {
        "made_by": np.array(f"{FINE}, solver version {solver_version(FINE.simulator)}")
    }
    for one in fields(Truths):
        truth = getattr(truths, one.name)
        for field in fields(truth):
            value = getattr(truth, field.name)
            if field.name == "wind":
                value = np.rint(value / QUANTUM).astype(np.int16)
            arrays[f"{one.name}_{field.name}"] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def load(path: Path = FILE) -> Truths:
    """Return the replayed record and the frozen sets."""
    with np.load(path, allow_pickle=False) as file:
        found = {}
        for one in fields(Truths):
            values = {f.name: file[f"{one.name}_{f.name}"] for f in fields(Truth)}
            values["wind"] = values["wind"].astype(np.float32) * np.float32(QUANTUM)
            found[one.name] = Truth(**values)
    return Truths(**found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    site = Site.from_toml(SITE)
    sets = {
        name: simulated(
            [Moment(float("nan"), site, scenario) for scenario in frozen(name)],
            args.store,
            FINE,
            f"{name} set",
        )
        for name in ("evaluation", "selection", "calibration")
    }
    truths = Truths(replay=simulated(replayed(site), args.store, FINE, "record"), **sets)
    save(args.out, truths)
    count = sum(len(getattr(truths, one.name).inputs) for one in fields(Truths))
    print(f"{count} fields, {args.out.stat().st_size / 1e6:.1f} MB: {args.out}")


if __name__ == "__main__":
    main()
