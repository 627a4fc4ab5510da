"""Cost of the simulators: time, throughput, memory, scaling, and ratios at equal error.

``python benchmarks/simulators.py [--json FILE] [--quick]`` prints tables. CPU seconds on one thread
are what to compare: wall seconds also measure who else uses the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edge_agent.contracts.site import Site

Row = dict[str, Any]
Measure = Callable[..., tuple[Row, np.ndarray]]

ROOT = Path(__file__).resolve().parent.parent
TRIAL = ROOT.parent / "shared" / "facts" / "cfd"
#: Cells of the embedded solver and of OpenFOAM on the square house; the last is the reference.
OWN = ((16, 16, 8), (24, 24, 8), (32, 32, 10), (48, 48, 12), (72, 72, 18))
FOAM = ((24, 24, 8), (32, 32, 10), (48, 48, 16))
#: Cells along x and y, along z, and below the roof, of the trial's solver.
TRIALS = ((24, 11, 4), (48, 12, 5), (72, 18, 8))


def memory() -> float:
    """Return this process's peak so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def embedded(
    kind: str, cells: tuple[int, int, int], batch: int, device: str = "cpu"
) -> tuple[Row, np.ndarray]:
    """Return (row, interior winds of the first case) of a batch on Lindcove or the square house."""
    import torch

    from apps.scenarios import Scenario
    from apps.simulators.flow.grid import build_grid
    from apps.simulators.flow.march import March
    from apps.simulators.flow.problem import build_problem
    from apps.simulators.flow.sample import sample
    from benchmarks.validation.houses import LINDCOVE
    from edge_agent.contracts.site import Site

    torch.set_num_threads(1)
    before = memory()
    site = trial_house() if kind == "square" else Site.from_toml(LINDCOVE)
    scenarios = [Scenario(wind_speed=5, wind_from_direction=270 - 3 * k) for k in range(batch)]
    grid, target = build_grid(site, cells), site.grid()
    cpu, wall = time.process_time(), time.perf_counter()
    march, wind, work = March(build_problem(site, scenarios, grid), 5e-3, device), None, 0
    while march.active:
        for end in march.step():
            work += end.steps
            if end.case == 0:
                fields = [march.flow.metrics.unpack(f, 0) for f in march.flow.velocity]
                wind = np.stack([sample(f, a, grid, target) for a, f in enumerate(fields)])
    if device != "cpu":
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    row = {
        "solver": f"embedded ({device})",
        "site": kind,
        "cells": "x".join(map(str, cells)),
        "batch": batch,
        "cpu_seconds_per_case": cpu / batch,
        "wall_seconds_per_case": wall / batch,
        "steps": work / batch,
        "cell_steps_per_second": math.prod(cells)
        * march.steps
        * batch
        / (cpu if device == "cpu" else wall),
        "memory_mib": memory() - before,
    }
    return row, wind


def trial_house() -> Site:
    """Return the trial's base case as a site: K = 3 all round, canopy 6 m from every wall."""
    from benchmarks.validation.houses import square_house

    site = square_house((0.0, 3.0))
    block = site.canopy[0].model_copy(update={"start": (6.0, 6.0), "end": (94.0, 94.0)})
    return site.model_copy(update={"canopy": (block,)})


def trial(n: int, nz: int, below: int) -> tuple[Row, np.ndarray]:
    """Return (row, interior wind) of the trial's solver on its base case."""
    import torch

    sys.path.insert(0, str(TRIAL))
    from casedef import case, grid3d  # type: ignore[import-not-found]
    from screenwind import Solver  # type: ignore[import-not-found]

    from apps.simulators.flow.grid import SolverGrid
    from apps.simulators.flow.sample import sample

    torch.set_num_threads(1)
    nodes = grid3d(n, n, nz, L=240, H=40, nzh=below)
    first, last = (int(np.argmin(abs(nodes["x"] - edge))) for edge in (0, 100))
    grid = SolverGrid(
        (nodes["x"], nodes["y"], nodes["z"]), ((first, last), (first, last), (0, below))
    )
    cpu, wall = time.process_time(), time.perf_counter()
    solver = Solver(nodes, 1, lmax=4.0, lhouse=1.5).set_cases([case()])
    with torch.no_grad():
        solver.update_nut()
        end = solver.run(tol=1e-3, cfl=0.5, check=50, max_steps=3000)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    target = trial_house().grid()
    fields = [f[0].numpy().transpose(2, 1, 0) / 5.0 for f in (solver.u, solver.v, solver.w)]
    wind = np.stack([sample(f, a, grid, target) for a, f in enumerate(fields)])
    row = {
        "solver": "trial",
        "site": "square",
        "cells": f"{n}x{n}x{nz}",
        "batch": 1,
        "cpu_seconds_per_case": cpu,
        "wall_seconds_per_case": wall,
        "steps": end["steps"],
        "cell_steps_per_second": n * n * nz * end["steps"] / cpu,
        "memory_mib": None,
    }
    return row, wind


def foam(cells: tuple[int, int, int]) -> tuple[Row, np.ndarray]:
    """Return (row, interior wind) of OpenFOAM on the square house."""
    from apps.scenarios import Scenario
    from apps.simulators.base import Case, Fidelity, Finished, Resources
    from apps.simulators.registry import make
    from benchmarks.validation.codes import Unlimited

    fidelity = Fidelity(simulator="openfoam", cells=cells)  # type: ignore[arg-type]
    case = Case(trial_house(), Scenario(wind_speed=5, wind_from_direction=270), fidelity)
    with tempfile.TemporaryDirectory() as store:
        simulator = make("openfoam", Path(store))
        (end,) = simulator.run([case], Resources(batch=1), None, Unlimited())
        if not isinstance(end, Finished):
            raise RuntimeError(str(end))
        from apps.datasets import read_simulation

        run = read_simulation(end.path)
    steps, cpu = int(run.attrs["steps"]), float(run.attrs["cpu_seconds"])
    row = {
        "solver": "openfoam",
        "site": "square",
        "cells": "x".join(map(str, cells)),
        "batch": 1,
        "cpu_seconds_per_case": cpu,
        "wall_seconds_per_case": run.seconds,
        "steps": steps,
        "cell_steps_per_second": math.prod(cells) * steps / cpu,
        "memory_mib": None,
    }
    return row, run.wind / 5.0


def alone(function: Measure, *args: object) -> tuple[Row, np.ndarray]:
    """Call a function in a process of its own, so that memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def family(function: Measure, grids: Sequence[Sequence[object]]) -> list[Row]:
    """Return the rows of a family of grids, each with its error to the last."""
    found = [alone(function, *grid) for grid in grids]
    finest = found[-1][1]
    for row, wind in found:
        row["error"] = float(np.linalg.norm(wind - finest) / np.linalg.norm(finest))
    found[-1][0]["error"] = None
    return [row for row, _ in found]


def ratio(own: list[Row], other: list[Row]) -> tuple[Row, float] | None:
    """Return the other's finest row that the own errors span, and own over its CPU seconds there.

    Own seconds lie on the line through the own rows in logarithms.
    """
    points = sorted((r["error"], r["cpu_seconds_per_case"]) for r in own if r["error"])
    errors, seconds = (np.log([p[k] for p in points]) for k in (0, 1))
    for row in reversed(other):
        if row["error"] and errors[0] <= math.log(row["error"]) <= errors[-1]:
            here = float(np.exp(np.interp(math.log(row["error"]), errors, seconds)))
            return row, here / row["cpu_seconds_per_case"]
    return None


def compare(name: str, own: list[Row], other: list[Row], ratios: dict[str, float]) -> None:
    """Print and keep the ratio to another solver at equal error."""
    if (found := ratio(own, other)) is None:
        print(f"no grid of {name} has an error that the embedded solver's span")
        return
    row, ratios[name] = found
    error = f"{100 * row['error']:.1f} % ({row['cells']})"
    print(f"at {name}'s error of {error}: {ratios[name]:.2f} of its CPU time")


def show(rows: list[Row]) -> None:
    heads = ("solver", "site", "cells", "batch", "cpu s", "wall s", "steps", "Mcell steps/s", "MiB")
    print("".join(f"{h:>15}" for h in heads) + f"{'error %':>10}")
    for r in rows:
        values = [r["solver"], r["site"], r["cells"], str(r["batch"])]
        values += [f"{r['cpu_seconds_per_case']:.3f}", f"{r['wall_seconds_per_case']:.3f}"]
        values += [f"{r['steps']:.0f}", f"{r['cell_steps_per_second'] / 1e6:.1f}"]
        values.append("-" if r["memory_mib"] is None else f"{r['memory_mib']:.0f}")
        error = r.get("error")
        print(
            "".join(f"{v:>15}" for v in values)
            + f"{'-' if not error else f'{100 * error:.1f}':>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small grids, no finest ones")
    args = parser.parse_args()
    last = -1 if args.quick else None
    ratios: dict[str, float] = {}

    print("Embedded solver at batch 1, against its finest grid")
    own = family(embedded, [("square", cells, 1) for cells in OWN[:last]])
    show(own)
    rows = list(own)
    if (TRIAL / "screenwind.py").exists():
        print("\nThe trial's solver, against its finest grid")
        other = family(trial, TRIALS[:last])
        show(other)
        rows += other
        compare("trial", own, other, ratios)
    else:
        print(f"\nthe trial's solver is not at {TRIAL}: no ratio to it")
    from benchmarks.validation.codes import absent

    if why := absent():
        print(f"\nOpenFOAM: {why}")
    else:
        print("\nOpenFOAM, against its finest grid")
        other = family(foam, [(cells,) for cells in FOAM[:last]])
        show(other)
        rows += other
        compare("openfoam", own, other, ratios)

    print("\nScaling with the cells, Lindcove, batch 4")
    grids = ((24, 16, 8), (32, 20, 8), (48, 32, 12), (64, 40, 16))
    found = [alone(embedded, "lindcove", cells, 4)[0] for cells in grids[:last]]
    show(found)
    rows += found
    print("\nScaling with the batch, Lindcove")
    found = [alone(embedded, "lindcove", (32, 20, 8), batch)[0] for batch in (1, 2, 4, 8, 16, 32)]
    show(found)
    rows += found

    import torch

    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}")
        sizes = (((48, 32, 12), 16), ((64, 40, 16), 64), ((96, 60, 24), 64))
        found = [alone(embedded, "lindcove", cells, batch, "cuda")[0] for cells, batch in sizes]
        show(found)
        rows += found
    else:
        print("\nno CUDA device: not measured there")
    if args.json:
        machine = {"processor": platform.processor(), "torch": torch.__version__}
        args.json.write_text(json.dumps({"machine": machine, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
