"""Porous zones whose loss is right: the coefficient is found in duct runs and kept in a file.

A zone's pressure drop is not coefficient times thickness: on OpenFOAM's collocated grid the cells
at its ends see another velocity than the faces. What a zone of these cells makes of a coefficient
is measured in a duct of the same lines.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from apps.errors import SimulationError
from apps.simulators.flow.grid import SolverGrid
from apps.simulators.foam.duct import loss_coefficient
from apps.simulators.foam.plan import THICK, through_speed, zone_cells
from apps.simulators.foam.screens import Baffle, Zone
from edge_agent.contracts.model import canonical_json, sha256
from edge_agent.contracts.storage import write_bytes

#: A zone's loss is this close to what it should be at its representative speed, relative.
CLOSE = 0.005
_ROUNDS = 12
#: Cells of the grid on either side of the zone, and even ones beyond them.
_APPROACH, _BEYOND = 8, 6


def thick_zone(
    baffle: Baffle, grid: SolverGrid, approach: float, viscosity: float, relax_u: float, cache: Path
) -> Zone:
    """Return the calibrated zone that stands for a screen too stiff for a baffle.

    It acts on the velocity through the screen alone, and linearly: the quadratic law of OpenFOAM's
    porous zones would take the speed along the screen for speed through it. Its loss is the
    screen's at the representative through-flow speed.

    Parameters
    ----------
    baffle : Baffle
        The screen.
    grid : SolverGrid
        With the zone's cells (`plan.refined`).
    approach, viscosity, relax_u
        As in the case.
    cache : Path
        Folder of the calibrations.

    Raises
    ------
    SimulationError
        If no coefficient gives the loss.
    """
    speed = through_speed(baffle.linear, baffle.constant, approach)
    linear = baffle.linear + baffle.constant * speed
    lines, (first, last) = grid.nodes[baffle.axis], grid.house[baffle.axis]
    low = baffle.axis < 2 and abs(float(lines[first]) - baffle.place) < 1e-9
    begin = first if low else last - THICK
    start = max(begin - _APPROACH, 0)
    widths = np.diff(lines)[start : begin + THICK + _APPROACH]
    widths = np.pad(widths, _BEYOND, mode="edge")
    before = begin - start + _BEYOND
    factor = _calibrated(widths, before, linear, speed, viscosity, relax_u, cache)
    thickness = float(lines[begin + THICK] - lines[begin])
    drag = [0.0, 0.0, 0.0]
    drag[baffle.axis] = factor * linear / (2 * thickness)
    return Zone(baffle.name, zone_cells(baffle, grid), _three(drag), (0.0, 0.0, 0.0))


def _calibrated(
    widths: np.ndarray,
    before: int,
    linear: float,
    speed: float,
    viscosity: float,
    relax_u: float,
    cache: Path,
) -> float:
    """Return by what to multiply a zone's coefficient; runs ducts unless the file is there."""
    key = {
        "widths": [round(float(w), 6) for w in widths],
        "before": before,
        "linear": float(f"{linear:.6g}"),
        "speed": float(f"{speed:.6g}"),
        "viscosity": float(f"{viscosity:.6g}"),
        "relax_u": relax_u,
        "version": 1,
    }
    path = cache / f"{sha256(canonical_json(key))}.json"
    try:
        return float(json.loads(path.read_bytes())["factor"])
    except (OSError, ValueError, LookupError, TypeError):
        factor, achieved = _search(widths, before, linear, speed, viscosity, relax_u)
    write_bytes(path, canonical_json({"factor": factor, "achieved": achieved, **key}) + b"\n")
    return factor


def _search(
    widths: np.ndarray, before: int, linear: float, speed: float, viscosity: float, relax_u: float
) -> tuple[float, float]:
    nodes = np.concatenate([[0.0], np.cumsum(widths)])
    mask = np.zeros((1, 1, len(widths)), dtype=bool)
    mask[..., before : before + THICK] = True
    thickness = float(nodes[before + THICK] - nodes[before])
    wanted, factor = linear / speed, 1.0
    for _ in range(_ROUNDS):
        drag = (factor * linear / (2 * thickness), 0.0, 0.0)
        zone = Zone("screen", mask, drag, (0.0, 0.0, 0.0))
        reached = loss_coefficient(nodes, speed, viscosity, relax_u, zone=zone) / wanted
        if abs(reached - 1) < CLOSE:
            return factor, reached
        factor /= reached
    msg = f"no zone coefficient gives K = {wanted:.4g}; the last gave {reached * wanted:.4g}"
    raise SimulationError(msg, wanted=wanted)


def _three(values: list[float]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]
