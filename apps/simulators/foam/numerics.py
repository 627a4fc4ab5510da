"""How simpleFoam iterates: schemes, linear solvers, relaxation, control, decomposition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.simulators.foam.screens import Baffle
from apps.simulators.foam.text import write


@dataclass(frozen=True)
class Numerics:
    """How simpleFoam iterates."""

    relax_p: float = 0.3
    """Under-relaxation of pressure."""
    relax_u: float = 0.7
    """Under-relaxation of velocity."""
    relax_k: float = 0.7
    """Under-relaxation of k and epsilon."""
    tolerance: float = 1e-4
    """Initial residual of U, k and epsilon at which to stop; ten times that for p."""
    iterations: int = 1000
    """At most so many."""
    pressure: str = "GAMG"
    """Linear solver of the pressure."""
    divergence: Mapping[str, str] = field(
        default_factory=lambda: {
            "div(phi,U)": "bounded Gauss linearUpwind limited",
            "div(phi,k)": "bounded Gauss limitedLinear 1",
            "div(phi,epsilon)": "bounded Gauss limitedLinear 1",
        }
    )
    """Schemes of advection."""


def write_numerics(folder: Path, numerics: Numerics) -> None:
    """Write schemes, solvers, relaxation, convergence and control."""
    divergence = {"default": "none", **numerics.divergence}
    divergence["div((nuEff*dev2(T(grad(U)))))"] = "Gauss linear"
    schemes = {
        "ddtSchemes": {"default": "steadyState"},
        "gradSchemes": {"default": "Gauss linear", "limited": "cellLimited Gauss linear 1"},
        "divSchemes": divergence,
        "laplacianSchemes": {"default": "Gauss linear corrected"},
        "interpolationSchemes": {"default": "linear"},
        "snGradSchemes": {"default": "corrected"},
    }
    write(folder, "system/fvSchemes", schemes)
    smooth = {"solver": "smoothSolver", "smoother": "symGaussSeidel"}
    pressure = {"solver": numerics.pressure, "smoother": "GaussSeidel", "preconditioner": "DIC"}
    tolerance = numerics.tolerance
    solution = {
        "solvers": {
            "p": {**pressure, "tolerance": 1e-10, "relTol": 0.02},
            '"(U|k|epsilon)"': {**smooth, "tolerance": 1e-12, "relTol": 0.1},
        },
        "SIMPLE": {
            "nNonOrthogonalCorrectors": 0,
            # SIMPLEC with a baffle ends in a floating-point exception.
            "consistent": False,
            "residualControl": {
                "p": 10 * tolerance,
                "U": tolerance,
                '"(k|epsilon)"': tolerance,
            },
        },
        "relaxationFactors": {
            "fields": {"p": numerics.relax_p},
            "equations": {"U": numerics.relax_u, '"(k|epsilon)"': numerics.relax_k},
        },
    }
    write(folder, "system/fvSolution", solution)
    write_control(folder, numerics.iterations)


def write_control(folder: Path, iterations: int) -> None:
    """Write ``controlDict``: from the latest iteration to one at which fields are written."""
    control = {
        "application": "simpleFoam",
        "startFrom": "latestTime",
        "startTime": 0,
        "stopAt": "endTime",
        "endTime": iterations,
        "deltaT": 1,
        "writeControl": "timeStep",
        "writeInterval": iterations,
        "purgeWrite": 0,
        # Text loses digits, and a restart its exactness.
        "writeFormat": "binary",
        "writePrecision": 12,
        "writeCompression": "off",
        "timeFormat": "general",
        "timePrecision": 8,
        "runTimeModifiable": False,
        "libs": '("libatmosphericModels.so")',
    }
    write(folder, "system/controlDict", control)


def write_decomposition(folder: Path, processes: int, baffles: Sequence[Baffle]) -> None:
    """Write ``decomposeParDict``: slabs along x, both sides of every baffle together."""
    content: dict[str, Any] = {
        "numberOfSubdomains": processes,
        "method": "hierarchical",
        "hierarchicalCoeffs": {"n": [processes, 1, 1], "delta": 0.001, "order": "xyz"},
    }
    if baffles:
        patches = [f"{b.name}_{side}" for b in baffles for side in "ms"]
        keep = {"type": "preservePatches", "patches": patches, "enabled": True}
        content["constraints"] = {"screens": keep}
    write(folder, "system/decomposeParDict", content)
