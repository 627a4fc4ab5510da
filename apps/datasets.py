"""Simulations, failures and ensembles as files: CF-1.8 netCDF and JSON, whole or not there.

A store is a folder with one immutable file per simulation, ``DIGEST.nc``, or ``DIGEST.failed.json``
where the flow could not be computed. A set of simulations is a JSON list named by its own digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from apps.cf import COMPONENTS, TURBULENCE, attributes, dataset
from apps.errors import DatasetError
from apps.scenarios import Scenario
from apps.simulation_set import SimulationSet
from apps.simulators.base import Case, Fidelity, Resources
from apps.space import WIND, Space
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import replacing, write_bytes

FORMAT = "rbf-simulation/2"
NATIVE_FORMAT = "rbf-native/1"
UNITS = "m s-1"
#: Cell centres this close are the same, m.
_SAME_PLACE = 1e-3


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
    unresolved_tears: tuple[str, ...] = ()
    """Panels with a tear that is smaller than a cell: its area counts, its shape does not."""


@dataclass(frozen=True)
class Fields:
    """A flow on a rectilinear grid; arrays are (nz, ny, nx) at cell centres."""

    wind: np.ndarray
    """(3, nz, ny, nx) float32, m/s: along x, along y, upward, in the house frame."""
    pressure: np.ndarray | None = None
    """Kinematic pressure, relative to the domain's mean, m2 s-2."""
    turbulence: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By the names of `apps.cf.TURBULENCE`."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the scalar fields by name."""
        named = {} if self.pressure is None else {"kinematic_pressure": self.pressure}
        return dict(zip(COMPONENTS, self.wind, strict=True)) | named | dict(self.turbulence)


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
    centres: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Cell centres along x, y, z, m."""


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


def native_path(store: Path, digest: str) -> Path:
    """Return where a simulation on the solver's own grid lies, if it was asked for."""
    return store / f"{digest}.native.nc"


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
    turbulence: Mapping[str, np.ndarray] | None = None,
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
    turbulence : mapping of (nz, ny, nx) float32, or None
        By the names of `apps.cf.TURBULENCE`.

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
    box = case.site.footprint
    lengths = (box.length_x, box.length_y, box.height)
    cells = case.site.output_grid.cells
    edges = [np.linspace(0.0, length, n + 1) for length, n in zip(lengths, cells, strict=True)]
    attrs = attributes(FORMAT, digest, case, resources, info)
    _write(path, edges, Fields(wind, pressure, turbulence or {}), attrs)
    return path


def write_native(
    store: Path,
    digest: str,
    case: Case,
    resources: Resources,
    edges: Sequence[np.ndarray],
    fields: Fields,
    info: RunInfo,
) -> Path:
    """Write a simulation on the solver's own grid, over the whole domain.

    Parameters
    ----------
    edges : three arrays, m
        Cell edges along x, y, z in the house frame.
    fields : Fields
        Means over the cells' centres.

    Other parameters, result and errors are those of `write_simulation`.
    """
    path = native_path(store, digest)
    if not path.exists():
        _write(path, edges, fields, attributes(NATIVE_FORMAT, digest, case, resources, info))
    return path


def _write(path: Path, edges: Sequence[np.ndarray], fields: Fields, attrs: dict[str, Any]) -> None:
    digest = attrs["simulation_digest"]
    unknown = set(fields.turbulence) - set(TURBULENCE)
    if unknown:
        msg = f"simulation {digest}: no such turbulence field: {', '.join(sorted(unknown))}"
        raise DatasetError(msg, digest=digest)
    shape = tuple(len(e) - 1 for e in reversed(edges))
    wrong = {n: a.shape for n, a in fields.arrays().items() if a.shape != shape}
    if len(fields.wind) != len(COMPONENTS) or wrong:
        msg = f"simulation {digest}: fields shaped {wrong or fields.wind.shape}, grid {shape}"
        raise DatasetError(msg, digest=digest)
    if not all(np.isfinite(a).all() for a in fields.arrays().values()):
        msg = f"simulation {digest}: a value is not finite; record a failure instead"
        raise DatasetError(msg, digest=digest)
    made, encoding = dataset(edges, fields.wind, fields.pressure, fields.turbulence)
    made.attrs = attrs
    with replacing(path) as partial:
        made.to_netcdf(partial, engine="netcdf4", encoding=encoding)
        failpoint("simulation.partial")


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
            units = {str(file[name].units) for name in COMPONENTS}
            if units != {UNITS}:
                msg = f"{path}: wind in {', '.join(sorted(units))}, not {UNITS}; convert it"
                raise DatasetError(msg, file=str(path))
            wind = np.stack([file[name][:] for name in COMPONENTS]).astype(np.float32)
            x, y, z = (np.asarray(file[axis][:], float) for axis in "xyz")
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
    return Simulation(digest, scenario, wind, seconds, attrs, (x, y, z))


def read_attributes(path: Path) -> dict[str, Any]:
    """Return what a simulation's file says about it, JSON parsed; raises as `read_simulation`."""
    from netCDF4 import Dataset

    try:
        with Dataset(path) as file:
            attrs = {name: file.getncattr(name) for name in file.ncattrs()}
        parsed = {name: json.loads(attrs[name]) for name in ("fidelity", "resources", "versions")}
        return attrs | parsed | {"converged": bool(attrs["converged"])}
    except (OSError, RuntimeError, AttributeError, LookupError, ValueError) as error:
        msg = f"{path}: missing or not a simulation ({error})"
        raise DatasetError(msg, file=str(path)) from error


def load_simulations(
    store: Path, digests: Sequence[str], site: Site, space: Space = WIND
) -> SimulationSet:
    """Read simulations of one site, in the order given.

    Parameters
    ----------
    store : Path
    digests : sequence of str
    site : Site
    space : Space
        What to tell of the state that each was made for; by default nothing.

    Raises
    ------
    DatasetError
        If one cannot be read, is another's, was made for another site or output grid, or has tears
        that the space's columns cannot tell.
    """
    site_digest, grid = site.content_digest(), site.grid()
    shape = (3, *grid.shape)
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
        for name, got in zip("xyz", run.centres, strict=True):
            wanted = np.array(getattr(grid, name))
            if got.shape != wanted.shape or np.abs(got - wanted).max() > _SAME_PLACE:
                msg = f"{path}: cells along {name} are not the output grid's; simulate again"
                raise DatasetError(msg, file=str(path), axis=name)
        if space.columns and not space.tells(run.scenario.tears):
            msg = f"{path}: its tears cannot be told in the columns of a state; leave it out"
            raise DatasetError(msg, file=str(path))
        runs.append(run)
    state = [space.row(r.scenario) for r in runs]
    return SimulationSet(
        digests=tuple(digests),
        wind_speed=np.array([r.scenario.wind_speed for r in runs], dtype=float),
        wind_from_direction=np.array([r.scenario.wind_from_direction for r in runs], dtype=float),
        wind=np.stack([r.wind for r in runs]) if runs else np.empty((0, *shape), np.float32),
        state=np.array(state).reshape(len(runs), len(space.columns)),
        space=space,
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
