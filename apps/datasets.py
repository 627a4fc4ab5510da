"""Simulations, failures and ensembles as files: CF-1.8 netCDF and JSON, whole or not there.

A store is a folder with one immutable file per simulation, ``DIGEST.nc``, or ``DIGEST.failed.json``
where the flow could not be computed. A set of simulations is a JSON list named by its own digest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from apps.errors import DatasetError
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import replacing, write_bytes

FORMAT = "rbf-simulation/1"
COMPONENTS = ("x_wind", "y_wind", "upward_air_velocity")

#: zlib level: 4 makes files 3 % smaller than 1 and takes twice the time.
_LEVEL = 1


@dataclass(frozen=True)
class RunInfo:
    """How a simulation went."""

    solver: str
    """Name of the simulator."""
    solver_version: str
    """Its declared version."""
    converged: bool
    """Whether the residual fell below the fidelity's tolerance."""
    residual: float
    """Relative change of the flow per flow-through of the house at the end."""
    steps: int
    """Time steps taken."""
    mass_imbalance: float
    """Net volume flow through the domain's sides over the inflow, absolute."""
    wall_seconds: float
    """Share of the batch's wall time, s."""
    cpu_seconds: float
    """Share of the batch's CPU time, s."""
    versions: dict[str, str]
    """Versions of the software that ran."""


@dataclass(frozen=True)
class Simulation:
    """A simulation read back."""

    digest: str
    scenario: Scenario
    wind: np.ndarray
    """(3, nz, ny, nx) float32, m/s: along x, along y, upward, in the house frame."""
    seconds: float
    """Wall time that it took, s."""
    attrs: dict[str, Any]
    """Every global attribute of the file."""


@dataclass(frozen=True)
class SimulationSet:
    """Simulations of one site on its output grid."""

    digests: tuple[str, ...]
    """In the order asked for."""
    wind_speed: np.ndarray
    """(n,) float64, m/s, at the site's reference height."""
    wind_from_direction: np.ndarray
    """(n,) float64, degrees."""
    wind: np.ndarray
    """(n, 3, nz, ny, nx) float32, m/s."""


class Failure(Contract):
    """A simulation that cannot be finished, as recorded."""

    format: Literal["rbf-failure/1"] = "rbf-failure/1"
    """Version of this contract."""
    digest: str
    """Of the simulation."""
    reason: str
    """``diverged``, ``not_finite`` or ``not_converged``."""
    detail: str
    """One line for a person."""
    site: str
    """Name of the site."""
    scenario: Scenario
    """What was asked for."""
    fidelity: Fidelity
    """Solver and grid."""


def simulation_path(store: Path, digest: str) -> Path:
    """Return where a finished simulation lies."""
    return store / f"{digest}.nc"


def failure_path(store: Path, digest: str) -> Path:
    """Return where a failed simulation is recorded."""
    return store / f"{digest}.failed.json"


def write_simulation(
    store: Path,
    digest: str,
    case: Case,
    resources: Resources,
    wind: np.ndarray,
    pressure: np.ndarray | None,
    info: RunInfo,
) -> Path:
    """Write one simulation; a file that is there already is left alone.

    Parameters
    ----------
    store : Path
        Made if missing.
    digest : str
        Name of the simulation.
    case, resources
        What was computed, and with what.
    wind : (3, nz, ny, nx) float32, m/s
        On ``case.site.grid()``, in the house frame.
    pressure : (nz, ny, nx) float32, m2 s-2, or None
        Kinematic pressure, relative to the domain's mean.
    info : RunInfo

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DatasetError
        If the shape does not fit the site's grid or a value is not finite.
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = simulation_path(store, digest)
    if path.exists():
        return path
    grid = case.site.grid()
    fields = [wind] if pressure is None else [wind, pressure]
    if wind.shape != (3, *grid.shape) or (pressure is not None and pressure.shape != grid.shape):
        msg = f"simulation {digest}: fields shaped {[f.shape for f in fields]}, grid {grid.shape}"
        raise DatasetError(msg, digest=digest)
    if not all(np.isfinite(f).all() for f in fields):
        msg = f"simulation {digest}: a value is not finite; record a failure instead"
        raise DatasetError(msg, digest=digest)
    dataset, encoding = _dataset(case, wind, pressure)
    dataset.attrs = _attributes(digest, case, resources, info)
    with replacing(path) as partial:
        dataset.to_netcdf(partial, engine="netcdf4", encoding=encoding)
        failpoint("simulation.partial")
    return path


def read_simulation(path: Path) -> Simulation:
    """Read one simulation.

    Raises
    ------
    DatasetError
        If the file is missing, truncated, or not a simulation; says what to do.
    """
    # netCDF4 itself: a tenth of xarray's time per file, and training opens hundreds.
    from netCDF4 import Dataset

    try:
        with Dataset(path) as file:
            file.set_auto_mask(False)
            attrs = {name: file.getncattr(name) for name in file.ncattrs()}
            if attrs.get("rbf_format") != FORMAT:
                msg = f"{path}: not a simulation of format {FORMAT}; remove it and simulate again"
                raise DatasetError(msg, file=str(path))
            wind = np.stack([file[name][:] for name in COMPONENTS]).astype(np.float32)
        scenario = Scenario.model_validate_json(attrs["scenario"])
        digest, seconds = str(attrs["simulation_digest"]), float(attrs["wall_seconds"])
    except FileNotFoundError as error:
        msg = f"{path}: no such simulation; simulate it first"
        raise DatasetError(msg, file=str(path)) from error
    # What netCDF4 raises: IndexError for a missing variable, RuntimeError for a broken chunk,
    # AttributeError for a broken attribute.
    except (OSError, RuntimeError, AttributeError, LookupError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        msg = f"{path}: truncated or not a simulation ({error}); remove it and simulate again"
        raise DatasetError(msg, file=str(path)) from error
    return Simulation(digest, scenario, wind, seconds, attrs)


def load_simulations(store: Path, digests: Sequence[str], site: Site) -> SimulationSet:
    """Read simulations of one site, in the order given.

    Raises
    ------
    DatasetError
        If one cannot be read, is another's, or was made for another site or output grid.
    """
    site_digest, shape = site.content_digest(), (3, *site.grid().shape)
    runs = []
    for digest in digests:
        path = simulation_path(store, digest)
        run = read_simulation(path)
        if run.digest != digest:
            msg = f"{path}: holds simulation {run.digest}; remove it and simulate again"
            raise DatasetError(msg, file=str(path))
        if run.attrs.get("site_digest") != site_digest or run.wind.shape != shape:
            msg = f"{path}: made for another version of site {site.name}; use another store"
            raise DatasetError(msg, file=str(path))
        runs.append(run)
    return SimulationSet(
        digests=tuple(digests),
        wind_speed=np.array([r.scenario.wind_speed for r in runs], dtype=float),
        wind_from_direction=np.array([r.scenario.wind_from_direction for r in runs], dtype=float),
        wind=np.stack([r.wind for r in runs]) if runs else np.empty((0, *shape), np.float32),
    )


def write_failure(store: Path, digest: str, case: Case, reason: str, detail: str) -> Path:
    """Record that a simulation cannot be finished; raises `OSError` as `write_simulation`."""
    failure = Failure(
        digest=digest,
        reason=reason,
        detail=detail,
        site=case.site.name,
        scenario=case.scenario,
        fidelity=case.fidelity,
    )
    path = failure_path(store, digest)
    write_bytes(path, failure.canonical_json() + b"\n")
    return path


def read_failure(path: Path) -> Failure:
    """Read a recorded failure; raises `DatasetError` if it is missing or not one."""
    try:
        return Failure.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{path}: not a recorded failure; remove it and simulate again"
        raise DatasetError(msg, file=str(path)) from error


def set_digest(digests: Sequence[str]) -> str:
    """Return the digest of a set of simulations; their order does not matter."""
    return sha256(canonical_json(sorted(digests)))


def write_ensemble(folder: Path, digests: Sequence[str]) -> Path:
    """Write the set as ``folder/SET_DIGEST.json``, the same bytes every time."""
    path = folder / f"{set_digest(digests)}.json"
    if not path.exists():
        write_bytes(path, canonical_json(sorted(digests)) + b"\n")
    return path


def read_ensemble(folder: Path, digest: str) -> tuple[str, ...]:
    """Return the sorted digests of a set.

    Raises
    ------
    DatasetError
        If the file is missing or does not hold what its name promises.
    """
    path = folder / f"{digest}.json"
    try:
        digests = json.loads(path.read_bytes())
        if set_digest(digests) != digest:
            msg = f"{path}: content does not fit its name; restore it from the campaign"
            raise DatasetError(msg, file=str(path))
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        msg = f"{path}: not a set of simulations ({error})"
        raise DatasetError(msg, file=str(path)) from error
    return tuple(digests)


def _dataset(case: Case, wind: np.ndarray, pressure: np.ndarray | None) -> tuple[Any, Any]:
    """Return the xarray dataset without its global attributes, and its encoding."""
    import xarray as xr

    site, grid = case.site, case.site.grid()
    lengths = (site.footprint.length_x, site.footprint.length_y, site.footprint.height)
    names = {
        "x": "distance along the long side of the house",
        "y": "distance to the left of x, horizontally",
        "z": "height above ground",
    }
    coords: dict[str, Any] = {}
    bounds: dict[str, Any] = {}
    for (axis, long_name), length in zip(names.items(), lengths, strict=True):
        centres = np.asarray(getattr(grid, axis))
        edges = np.linspace(0.0, length, len(centres) + 1)
        # No axis X or Y: the checker then demands a latitude and a longitude, and we have neither.
        attrs = {"long_name": long_name, "units": "m"}
        if axis == "z":
            attrs |= {"standard_name": "height", "positive": "up", "axis": "Z"}
        coords[axis] = (axis, centres, attrs | {"bounds": f"{axis}_bounds"})
        bounds[f"{axis}_bounds"] = ((axis, "bound"), np.stack([edges[:-1], edges[1:]], axis=1))
    dims = ("z", "y", "x")
    long_names = ("wind along x", "wind along y", "upward wind")
    fields: dict[str, Any] = {
        name: (dims, part, {"standard_name": name, "long_name": long, "units": "m s-1"})
        for name, long, part in zip(COMPONENTS, long_names, wind, strict=True)
    }
    if pressure is not None:
        long = "air pressure over density, relative to the mean of the domain"
        fields["kinematic_pressure"] = (dims, pressure, {"long_name": long, "units": "m2 s-2"})
    encoding = {n: {"_FillValue": None} for n in (*coords, *bounds)} | {
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


def _attributes(digest: str, case: Case, resources: Resources, info: RunInfo) -> dict[str, Any]:
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
        "rbf_format": FORMAT,
        "simulation_digest": digest,
        "site": case.site.name,
        "site_digest": case.site.content_digest(),
        "x_axis_bearing": case.site.footprint.x_axis_bearing,
        "wind_speed": scenario.wind_speed,
        "wind_from_direction": scenario.wind_from_direction,
        "screen_loss_factor": scenario.screen_loss_factor,
        "torn_panels": ", ".join(scenario.torn_panels),
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
