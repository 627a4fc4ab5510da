"""One-dimensional duct runs: the loss that a screen really has in OpenFOAM."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from apps.errors import SimulationError
from apps.simulators.foam import case, mesh, numerics, process, text
from apps.simulators.foam.fields import read_field, times
from apps.simulators.foam.screens import Baffle, Zone

_SIDES = ("south", "north", "ground", "top")


def loss_coefficient(
    nodes: np.ndarray,
    speed: float,
    viscosity: float,
    relax_u: float,
    baffle: Baffle | None = None,
    zone: Zone | None = None,
    iterations: int = 4000,
) -> float:
    """Return K of a screen across a duct: its pressure drop over speed^2 / 2.

    Parameters
    ----------
    nodes : (n + 1,) array, m
        Cell edges along the duct.
    speed : float
        Through the screen, over the wind speed.
    viscosity : float
        Kinematic, over the wind speed, m.
    relax_u : float
        Under-relaxation of the velocity.
    baffle, zone
        The screen, as the case has it.

    Raises
    ------
    SimulationError
        If the duct cannot be computed.
    """
    baffles, zones = [baffle] if baffle else [], [zone] if zone else []
    n = len(nodes) - 1
    folder = Path(tempfile.mkdtemp(prefix="rbf-duct-"))
    try:
        grid = (nodes, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
        mesh.write_mesh(folder, grid, baffles, zones, empty=_SIDES)
        choice = numerics.Numerics(
            relax_p=0.3, relax_u=relax_u, tolerance=1e-9, iterations=iterations, pressure="PCG"
        )
        case.write_properties(folder, viscosity, zones, "laminar")
        numerics.write_numerics(folder, choice)
        _write_fields(folder, speed, viscosity, baffles)
        mesh.build(folder, grid, bool(baffles))
        ended = process.run(["simpleFoam"], folder, trap=False)
        if ended.code != 0 or not times(folder):
            msg = f"duct run of a screen failed: {ended.tail[-500:]}"
            raise SimulationError(msg)
        pressure = read_field(times(folder)[-1] / "p", n)
        wind = read_field(times(folder)[-1] / "U", n)
        if not np.isfinite(pressure).all() or abs(wind[0, 0] / speed - 1) > 0.01:
            msg = "duct run of a screen did not converge"
            raise SimulationError(msg)
        return float((pressure[1] - pressure[-2]) / (0.5 * speed**2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_fields(folder: Path, speed: float, viscosity: float, baffles: list[Baffle]) -> None:
    uniform = f"uniform ({text.number(speed)} 0 0)"
    fields = {
        "U": ("[0 1 -1 0 0 0 0]", uniform, {"type": "fixedValue", "value": uniform}),
        "p": ("[0 2 -2 0 0 0 0]", "uniform 0", {"type": "zeroGradient"}),
    }
    for name, (dimensions, internal, inlet) in fields.items():
        outlet = {"type": "zeroGradient"}
        if name == "p":
            outlet = {"type": "fixedValue", "value": internal}
        boundary = {side: {"type": "empty"} for side in _SIDES} | {"west": inlet, "east": outlet}
        boundary |= case.baffle_entries(baffles, viscosity if name == "p" else None)
        content = {"dimensions": dimensions, "internalField": internal, "boundaryField": boundary}
        text.write(
            folder, f"0.orig/{name}", content, "volVectorField" if name == "U" else "volScalarField"
        )
