"""The embedded solver against OpenFOAM on five screenhouses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from apps.datasets import read_simulation
from apps.scenarios import Scenario, Tear
from apps.simulators.base import Case, Fidelity, Finished, Resources
from apps.simulators.registry import SIMULATORS, make
from benchmarks.validation.houses import square_house
from benchmarks.validation.report import ROOT, Check, Section, figure, save
from edge_agent.contracts.site import Site

STORE = ROOT / "data" / "runs" / "validation"
CELLS = (60, 60, 20)
#: The issue's bound on the interior wind speed, relative L2, of undamaged houses with K = 3.
BOUND = 9.0
_BOUNDED = ("K = 3, 0°", "K = 3, 30°")
_SOURCE = (
    "OpenFOAM v1912 (Debian), simpleFoam with k-epsilon, through the same interface, grid and "
    "output; see `docs/openfoam.md` for its screens."
)


class Unlimited:
    def remaining(self) -> float:
        return math.inf

    def stop_requested(self) -> bool:
        return False


def five_cases() -> list[tuple[str, Site, Scenario]]:
    """Return (what, site, scenario): a wind along x and four others."""
    torn = (Tear(panel="x0", centre=50, width=24),)
    three, real = square_house((0.0, 3.0)), square_house((6.587, 3.34))

    def wind(angle: float, tears: tuple[Tear, ...] = ()) -> Scenario:
        return Scenario(wind_speed=5, wind_from_direction=270 - angle, tears=tears)

    return [
        ("K = 3, 0°", three, wind(0)),
        ("K = 3, 30°", three, wind(30)),
        ("K = 3, 30°, 24 m of the windward wall torn", three, wind(30, torn)),
        ("K = 1, 20°", square_house((0.0, 1.0)), wind(20)),
        ("K = 6.6/U + 3.3, 0°", real, wind(0)),
    ]


def absent() -> str:
    """Return why OpenFOAM cannot be run here, or nothing."""
    if "openfoam" not in SIMULATORS:
        return "the simulator `openfoam` is not part of this version"
    from apps.simulators.foam.environment import missing

    programs = missing()
    return f"not installed: {', '.join(programs)}" if programs else ""


def run(simulator: str, site: Site, scenario: Scenario, store: Path) -> tuple[np.ndarray, float]:
    """Return the interior wind and its CPU seconds, from the store if it is there."""
    case = Case(site, scenario, Fidelity(simulator=simulator, cells=CELLS))  # type: ignore[arg-type]
    (end,) = make(simulator, store).run([case], Resources(batch=1), None, Unlimited())
    if not isinstance(end, Finished):
        msg = f"{simulator}: {end}"
        raise RuntimeError(msg)
    found = read_simulation(end.path)
    return found.wind, float(found.attrs["cpu_seconds"])


def speed(wind: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((wind**2).sum(axis=0)))


def codes_section() -> Section:
    title = "Embedded solver against OpenFOAM"
    if why := absent():
        return Section(title, _SOURCE, [f"Not run: {why}. `apt-get install openfoam`."])
    rows, checks, errors, fields = [], [], [], {}
    for what, site, scenario in five_cases():
        own, own_seconds = run("embedded", site, scenario, STORE)
        try:
            other, seconds = run("openfoam", site, scenario, STORE)
        except RuntimeError as error:
            rows.append([what, "-", "-", f"{own_seconds:.1f}", f"failed: {error}"])
            continue
        one, two = speed(own), speed(other)
        error = 100 * float(np.linalg.norm(one - two) / np.linalg.norm(two))
        vector = 100 * float(np.linalg.norm(own - other) / np.linalg.norm(other))
        errors.append(error)
        fields[what] = one, two
        ratio = float(one.mean() / two.mean())
        rows.append(
            [
                what,
                f"{error:.1f} %",
                f"{vector:.1f} %",
                f"{ratio:.3f}",
                f"{own_seconds:.1f} / {seconds:.1f}",
            ]
        )
        bound = BOUND if what in _BOUNDED else None
        checks.append(Check(f"Interior speed against OpenFOAM, {what}", error, bound, " %"))
    fig, axes = figure(columns=3, height=2.4)
    one, two = next(iter(fields.values()))
    level = one.shape[0] // 2
    top = float(max(one[level].max(), two[level].max()))
    for ax, field, name in zip(axes, (one, two), ("embedded", "OpenFOAM"), strict=False):
        ax.imshow(field[level], origin="lower", extent=(0, 100, 0, 100), vmin=0, vmax=top)
        ax.set(title=name)
    last = axes[2].imshow(
        (one - two)[level], origin="lower", extent=(0, 100, 0, 100), cmap="RdBu_r", vmin=-1, vmax=1
    )
    axes[2].set(title="difference, m/s")
    fig.colorbar(last, ax=axes[2])
    size = " x ".join(map(str, CELLS))
    return Section(
        title,
        _SOURCE,
        [
            (
                f"Interior wind on a house of 100 m x 100 m x 5 m, {size} cells, wind of 5 m/s, "
                f"relative L2 to OpenFOAM: {min(errors):.1f} to {max(errors):.1f} % in speed. The "
                "mixing length beside the house, 2 m, was calibrated on three runs like the first "
                "three; K = 1 and K(U) are held out. The trial found OpenFOAM to differ from "
                "itself by 6 % between its two ways to put a screen and by 7 % between grids, so "
                "neither code is the truth at this level."
            )
        ],
        ["case", "speed", "velocity", "mean speed, of OpenFOAM's", "CPU s, embedded / OpenFOAM"],
        rows,
        save(fig, "codes.png"),
        "Interior wind speed at half height, first case.",
        checks,
    )
