"""The case of one simulation: fields at the start, boundary conditions and properties.

All is in units of the wind speed at reference height (velocities over U, kinematic pressure over
U^2, viscosity over U): the flow of a calm and of a storm then differ only in the viscous part of
the screens and in a viscosity that matters to nobody, and residuals and tolerances mean the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.simulators.flow.problem import KAPPA
from apps.simulators.foam.screens import Baffle, Zone
from apps.simulators.foam.text import number, write

#: Kinematic viscosity of air at 15 degrees C, m2/s.
VISCOSITY = 1.5e-5
CMU = 0.09
#: A side that the wind crosses at a smaller sine is a slip wall.
_ALONG = 1e-3

Entries = dict[str, Any]


@dataclass(frozen=True)
class Wind:
    """Logarithmic wind profile with U = 1 at a reference height."""

    direction: tuple[float, float]
    """Unit vector, where it blows to, along the axes of the house."""
    roughness: float
    """z0, m."""
    height: float
    """Reference height, m."""

    @property
    def friction(self) -> float:
        """Friction velocity u* over the wind speed."""
        return KAPPA / float(np.log1p(self.height / self.roughness))

    @property
    def kinetic(self) -> float:
        """Turbulent kinetic energy over the wind speed squared (Richards and Hoxey 1993)."""
        return self.friction**2 / float(np.sqrt(CMU))

    def speed(self, z: np.ndarray) -> np.ndarray:
        """Return the speed at heights z."""
        return self.friction / KAPPA * np.log1p(z / self.roughness)

    def dissipation(self, z: np.ndarray) -> np.ndarray:
        """Return epsilon over the wind speed cubed at heights z, 1/m."""
        return np.asarray(self.friction**3 / (KAPPA * (z + self.roughness)))

    def sides(self) -> dict[str, str]:
        """Return for each side whether wind comes ``in``, goes ``out`` or passes by (``along``)."""
        x, y = self.direction
        outward = {"west": -x, "east": x, "south": -y, "north": y}
        return {
            side: "along" if abs(part) < _ALONG else "in" if part < 0 else "out"
            for side, part in outward.items()
        }


def write_fields(
    folder: Path,
    wind: Wind,
    viscosity: float,
    baffles: Sequence[Baffle],
    start: np.ndarray,
    heights: np.ndarray,
) -> None:
    """Write the fields at the start to ``0.orig``.

    Parameters
    ----------
    folder : Path
        The case.
    wind : Wind
    viscosity : float
        Kinematic, over the wind speed, m.
    baffles : sequence of Baffle
    start : (nz, ny, nx) array
        Speed at the start over the undisturbed wind.
    heights : (nz,) array, m
        Of the cell centres.
    """
    x, y = wind.direction
    speed = start * wind.speed(heights)[:, None, None]
    epsilon = np.broadcast_to(wind.dissipation(heights)[:, None, None], start.shape)
    k, velocity = wind.kinetic, "(0 0 0)"
    profile = {
        "Uref": 1.0,
        "Zref": wind.height,
        "zDir": "(0 0 1)",
        "flowDir": [x, y, 0.0],
        "z0": f"uniform {number(wind.roughness)}",
        "zGround": "uniform 0",
        "kappa": KAPPA,
        "Cmu": CMU,
    }
    vectors = " ".join(f"({number(s * x)} {number(s * y)} 0)" for s in speed.ravel())
    _field(
        folder,
        "U",
        "[0 1 -1 0 0 0 0]",
        _listing("vector", speed.size, vectors),
        wind,
        baffles,
        inlet={"type": "atmBoundaryLayerInletVelocity", **profile, "value": f"uniform {velocity}"},
        outlet=_inlet_outlet(velocity),
        ground={"type": "noSlip"},
    )
    _field(
        folder,
        "p",
        "[0 2 -2 0 0 0 0]",
        "uniform 0",
        wind,
        baffles,
        inlet={"type": "zeroGradient"},
        outlet={"type": "fixedValue", "value": "uniform 0"},
        ground={"type": "zeroGradient"},
        jump=viscosity,
    )
    _field(
        folder,
        "k",
        "[0 2 -2 0 0 0 0]",
        f"uniform {number(k)}",
        wind,
        baffles,
        inlet={"type": "atmBoundaryLayerInletK", **profile, "value": f"uniform {number(k)}"},
        outlet=_inlet_outlet(number(k)),
        ground={"type": "kqRWallFunction", "value": f"uniform {number(k)}"},
    )
    values = " ".join(number(v) for v in epsilon.ravel())
    middle = number(float(epsilon.mean()))
    _field(
        folder,
        "epsilon",
        "[0 2 -3 0 0 0 0]",
        _listing("scalar", epsilon.size, values),
        wind,
        baffles,
        inlet={"type": "atmBoundaryLayerInletEpsilon", **profile, "value": f"uniform {middle}"},
        outlet=_inlet_outlet(middle),
        ground={"type": "epsilonWallFunction", "value": f"uniform {middle}"},
    )
    rough = {"kappa": KAPPA, "Cmu": CMU, "z0": f"uniform {number(wind.roughness)}"}
    calculated = {"type": "calculated", "value": "uniform 0"}
    _field(
        folder, "nut", "[0 2 -1 0 0 0 0]", "uniform 0", wind, baffles,
        inlet=calculated, outlet=calculated, along=calculated,
        ground={"type": "nutkAtmRoughWallFunction", **rough, "value": "uniform 0"},
    )  # fmt: skip


def write_properties(folder: Path, viscosity: float, zones: Sequence[Zone], model: str) -> None:
    """Write viscosity, turbulence model and the drag of cell zones.

    Parameters
    ----------
    folder : Path
        The case.
    viscosity : float
        Kinematic, over the wind speed, m.
    zones : sequence of Zone
    model : str
        ``kEpsilon`` or ``laminar``.
    """
    transport = {"transportModel": "Newtonian", "nu": viscosity}
    write(folder, "constant/transportProperties", transport)
    turbulence: Entries = {"simulationType": "laminar"}
    if model != "laminar":
        ras = {"RASModel": model, "turbulence": "on", "printCoeffs": "off"}
        turbulence = {"simulationType": "RAS", "RAS": ras}
    write(folder, "constant/turbulenceProperties", turbulence)
    write(folder, "constant/fvOptions", {z.name: _porosity(z, viscosity) for z in zones})


def _field(
    folder: Path,
    name: str,
    dimensions: str,
    internal: str,
    wind: Wind,
    baffles: Sequence[Baffle],
    *,
    inlet: Entries,
    outlet: Entries,
    ground: Entries,
    along: Entries | None = None,
    jump: float | None = None,
) -> None:
    """Write one field; with `jump`, the viscosity, its baffles are pressure jumps."""
    by_kind = {"in": inlet, "out": outlet, "along": along or {"type": "slip"}}
    boundary = {side: by_kind[kind] for side, kind in wind.sides().items()}
    boundary |= {"ground": ground, "top": by_kind["along"]}
    boundary |= baffle_entries(baffles, jump)
    kind = "volVectorField" if name == "U" else "volScalarField"
    content = {"dimensions": dimensions, "internalField": internal, "boundaryField": boundary}
    write(folder, f"0.orig/{name}", content, kind)


def baffle_entries(baffles: Sequence[Baffle], viscosity: float | None) -> Entries:
    """Return the boundary conditions of baffles: pressure jumps where a viscosity is given."""
    boundary: Entries = {}
    for baffle in baffles:
        entry: Entries = {"type": "cyclic"}
        if viscosity is not None:
            entry = {
                "type": "porousBafflePressure",
                "patchType": "cyclic",
                # jump = (D nu + I |U| / 2) |U|, so that K(U) = 2 D nu / U + I
                "D": baffle.linear / (2 * viscosity),
                "I": baffle.constant,
                "length": 1,
                "uniformJump": False,
                "jump": "uniform 0",
                "value": "uniform 0",
            }
        boundary |= {f"{baffle.name}_{side}": entry for side in "ms"}
    return boundary


def _inlet_outlet(value: str) -> Entries:
    uniform = f"uniform {value}"
    return {"type": "inletOutlet", "inletValue": uniform, "value": uniform}


def _listing(kind: str, size: int, values: str) -> str:
    return f"nonuniform List<{kind}> {size} ({values})"


def _porosity(zone: Zone, viscosity: float) -> Entries:
    axes = {"type": "axes", "e1": "(1 0 0)", "e2": "(0 1 0)"}
    coefficients = {
        "selectionMode": "cellZone",
        "cellZone": zone.name,
        "type": "DarcyForchheimer",
        "DarcyForchheimerCoeffs": {
            "d": [c / viscosity for c in zone.linear],
            "f": list(zone.quadratic),
            "coordinateSystem": {"type": "cartesian", "origin": "(0 0 0)", "rotation": axes},
        },
    }
    return {
        "type": "explicitPorositySource",
        "active": True,
        "explicitPorositySourceCoeffs": coefficients,
    }
