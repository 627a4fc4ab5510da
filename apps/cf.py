"""CF-1.8 datasets: a flow on a rectilinear grid, and all that made it as attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from apps.datasets import RunInfo
    from apps.simulators.base import Case, Resources

COMPONENTS = ("x_wind", "y_wind", "upward_air_velocity")
#: Names of turbulence fields that a solver may give: long name and unit.
TURBULENCE = {
    "eddy_viscosity": ("kinematic eddy viscosity", "m2 s-1"),
    "turbulent_kinetic_energy": ("turbulent kinetic energy per mass", "m2 s-2"),
    "turbulent_dissipation": ("dissipation of turbulent kinetic energy per mass", "m2 s-3"),
}

#: zlib level: 4 makes files 3 % smaller than 1 and takes twice the time.
_LEVEL = 1
_AXES = {
    "x": "distance along the long side of the house",
    "y": "distance to the left of x, horizontally",
    "z": "height above ground",
}


def dataset(
    edges: Sequence[np.ndarray],
    wind: np.ndarray,
    pressure: np.ndarray | None,
    turbulence: Mapping[str, np.ndarray],
) -> tuple[Any, dict[str, Any]]:
    """Return an xarray dataset without global attributes, and its encoding.

    Parameters
    ----------
    edges : three arrays, m
        Cell edges along x, y, z.
    wind : (3, nz, ny, nx), m/s
    pressure : (nz, ny, nx), m2 s-2, or None
    turbulence : mapping of (nz, ny, nx)
        By the names of `TURBULENCE`.
    """
    import xarray as xr

    coords: dict[str, Any] = {}
    bounds: dict[str, Any] = {}
    for (axis, long_name), lines in zip(_AXES.items(), edges, strict=True):
        # No axis X or Y: the checker then demands a latitude and a longitude, and we have neither.
        attrs = {"long_name": long_name, "units": "m"}
        if axis == "z":
            attrs |= {"standard_name": "height", "positive": "up", "axis": "Z"}
        centres = 0.5 * (lines[1:] + lines[:-1])
        coords[axis] = (axis, centres, attrs | {"bounds": f"{axis}_bounds"})
        bounds[f"{axis}_bounds"] = ((axis, "bound"), np.stack([lines[:-1], lines[1:]], axis=1))
    dims = ("z", "y", "x")
    long_names = ("wind along x", "wind along y", "upward wind")
    fields: dict[str, Any] = {
        name: (dims, part, {"standard_name": name, "long_name": long, "units": "m s-1"})
        for name, long, part in zip(COMPONENTS, long_names, wind, strict=True)
    }
    if pressure is not None:
        long = "air pressure over density, relative to the mean of the domain"
        fields["kinematic_pressure"] = (dims, pressure, {"long_name": long, "units": "m2 s-2"})
    for name, part in turbulence.items():
        long, units = TURBULENCE[name]
        fields[name] = (dims, part, {"long_name": long, "units": units})
    encoding: dict[str, Any] = {n: {"_FillValue": None} for n in (*coords, *bounds)}
    encoding |= {
        # The checksum makes a damaged chunk an error instead of a wrong wind.
        n: {
            "dtype": "float32",
            "zlib": True,
            "complevel": _LEVEL,
            "fletcher32": True,
            "_FillValue": None,
        }
        for n in fields
    }
    return xr.Dataset(fields | bounds, coords), encoding


def attributes(
    file_format: str, digest: str, case: Case, resources: Resources, info: RunInfo
) -> dict[str, Any]:
    """Return the global attributes: CF's, and all that made the numbers."""
    scenario, source = case.scenario, f"{info.solver} solver, version {info.solver_version}"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Conventions": "CF-1.8",
        "title": f"Time-mean wind in {case.site.title}",
        "institution": "Reverse Backfill",
        "source": source,
        "history": f"{now} computed by apps.simulate ({source})",
        "comment": "Components are along the axes of the house, not of the map.",
        "rbf_format": file_format,
        "simulation_digest": digest,
        "site": case.site.name,
        "site_digest": case.site.content_digest(),
        "site_definition": case.site.canonical_json().decode(),
        "x_axis_bearing": case.site.footprint.x_axis_bearing,
        "wind_speed": scenario.wind_speed,
        "wind_from_direction": scenario.wind_from_direction,
        "screen_loss_factor": scenario.screen_loss_factor,
        "torn_panels": ", ".join(dict.fromkeys(t.panel for t in scenario.tears)),
        "unresolved_tears": ", ".join(info.unresolved_tears),
        "scenario": scenario.canonical_json().decode(),
        "fidelity": case.fidelity.canonical_json().decode(),
        "resources": resources.canonical_json().decode(),
        "solver": info.solver,
        "solver_version": info.solver_version,
        "versions": json.dumps(info.versions, sort_keys=True),
        "converged": np.int32(info.converged),
        "residual": info.residual,
        "steps": np.int32(info.steps),
        "mass_imbalance": info.mass_imbalance,
        "wall_seconds": info.wall_seconds,
        "cpu_seconds": info.cpu_seconds,
    }
