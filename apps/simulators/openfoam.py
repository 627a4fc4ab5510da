"""OpenFOAM behind the common interface: what is asked, done, written and given back.

One case after the other, each in a folder of its own beside the results; `apps.simulators.foam`
does the work.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from apps.datasets import (
    Fields,
    RunInfo,
    failure_path,
    read_failure,
    simulation_path,
    write_failure,
    write_native,
    write_simulation,
)
from apps.errors import SimulationError
from apps.simulators.base import (
    Case,
    Control,
    Failed,
    Finished,
    Outcome,
    Resources,
    Unfinished,
    simulation_digest,
)
from apps.simulators.foam import archive, environment
from apps.simulators.foam.log import Monitor
from apps.simulators.foam.solve import Run
from apps.simulators.registry import solver_version

NAME = "openfoam"
#: A residual this many tolerances high after the last iteration is no result.
_FAR = 10.0
#: A speed above this many wind speeds is no wind, whatever the residuals say.
FASTEST = 10.0
#: Sum of |divergence| over the inflow above which a run is no result.
IMBALANCE = 1e-4
_SUFFIX = ".foam"

Report = Callable[[str, Monitor], None]


class OpenFOAMSimulator:
    """Solves cases with simpleFoam; see `apps.simulators.base.Simulator`.

    Parameters
    ----------
    store : Path
        Folder for the results.
    native : bool
        Whether to write the solver's own grid too.
    report : callable, optional
        Gets the digest and the monitor after every iteration.
    """

    def __init__(self, store: Path, *, native: bool = False, report: Report | None = None) -> None:
        self._store = store
        self._native = native
        self._report = report

    def run(
        self, cases: list[Case], resources: Resources, checkpoint: Path | None, control: Control
    ) -> list[Outcome]:
        """Run cases; see `apps.simulators.base.Simulator.run`.

        A case that is done, or recorded as failed, is not run again. Without a checkpoint path one
        in the store is used. A case that was not begun when the time ran out is unfinished too.

        Raises
        ------
        SimulationError
            If OpenFOAM is not installed or one of its programs fails for another reason than the
            flow, if the cases are of several sites or fidelities, are too many, or name a panel
            that does not exist.
        OSError
            If a result cannot be written.
        """
        _check(cases, resources)
        digests = [simulation_digest(c, resources, solver_version(NAME)) for c in cases]
        outcomes = {d: o for d in digests if (o := self._known(d)) is not None}
        left = {d: c for d, c in zip(digests, cases, strict=True) if d not in outcomes}
        if left:
            environment.require(parallel=resources.threads > 1)
            path = checkpoint or self._store / f".{min(left)}.checkpoint"
            outcomes |= self._solve(left, resources, path, control)
        elif checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return [outcomes[d] for d in digests]

    def _known(self, digest: str) -> Outcome | None:
        path = simulation_path(self._store, digest)
        if path.exists():
            return Finished(digest, path, 0.0)
        path = failure_path(self._store, digest)
        if path.exists():
            failure = read_failure(path)
            return Failed(digest, failure.reason, failure.detail)
        return None

    def _solve(
        self, cases: dict[str, Case], resources: Resources, path: Path, control: Control
    ) -> dict[str, Outcome]:
        self._store.mkdir(parents=True, exist_ok=True)
        _sweep(self._store)
        outcomes: dict[str, Outcome] = {}
        with _folder(self._store) as folder:
            note = archive.load(path, folder)
            order = list(cases)
            begun = note.digest if note is not None else None
            if begun in cases:
                order.sort(key=lambda d: d != begun)
            else:
                note = None
            for digest in order:
                outcomes[digest] = self._one(
                    digest, cases[digest], resources, folder, path, control, note
                )
                if isinstance(outcomes[digest], Unfinished):
                    waiting = (d for d in order if d not in outcomes)
                    return outcomes | {d: Unfinished(d, path, 0.0) for d in waiting}
                note = None
                shutil.rmtree(folder)
                folder.mkdir()
        path.unlink(missing_ok=True)
        return outcomes

    def _one(
        self,
        digest: str,
        case: Case,
        resources: Resources,
        folder: Path,
        path: Path,
        control: Control,
        note: archive.Note | None,
    ) -> Outcome:
        """Run one case, or go on with it, to its end or the end of the time."""
        report = self._report
        run = Run(
            folder,
            case,
            resources.threads,
            self._store / ".ducts",
            None if report is None else lambda monitor: report(digest, monitor),
        )
        if control.stop_requested() or control.remaining() < 2 * run.reserve:
            # Not begun again; a checkpoint that is there stays as it is.
            return Unfinished(digest, path, note.progress if note else 0.0)
        if note is None:
            shutil.rmtree(folder)
            folder.mkdir()
            run.prepare()
        else:
            run.wall, run.cpu, run.done = note.wall, note.cpu, note.done
        state = run.iterate(control)
        if state == "stopped":
            progress = max(run.progress, note.progress if note else 0.0)
            archive.save(folder, path, archive.Note(digest, run.wall, run.cpu, run.done, progress))
            return Unfinished(digest, path, progress)
        if state == "trapped":
            detail = f"floating-point exception after {run.monitor.iteration} iterations"
            return self._failed(digest, case, "diverged", detail)
        return self._finish(digest, case, resources, run)

    def _finish(self, digest: str, case: Case, resources: Resources, run: Run) -> Outcome:
        """Write the result of a case, or its failure."""
        fields, monitor = run.fields(), run.monitor
        fault = _fault(fields, run)
        if fault is not None:
            return self._failed(digest, case, *fault)
        from apps.simulators.flow.tears import unresolved

        grid = run.setup.grid
        torn = (t.panel for t in unresolved(case.site, case.scenario, grid))
        info = RunInfo(
            solver=NAME,
            solver_version=solver_version(NAME),
            converged=monitor.converged,
            residual=run.residual,
            steps=monitor.iteration,
            mass_imbalance=run.imbalance,
            wall_seconds=run.wall,
            cpu_seconds=run.cpu,
            versions=_versions(),
            unresolved_tears=tuple(dict.fromkeys(torn)),
        )
        place = (self._store, digest, case, resources)
        speed = np.float32(case.scenario.wind_speed)
        native = _native(fields, speed)
        if self._native:  # first: the other file says that all is there
            write_native(*place, grid.nodes, native, info)
        out = _on_output_grid(native, run)
        path = write_simulation(*place, out.wind, out.pressure, info, out.turbulence)
        return Finished(digest, path, info.wall_seconds)

    def _failed(self, digest: str, case: Case, reason: str, detail: str) -> Failed:
        write_failure(self._store, digest, case, reason, detail)
        return Failed(digest, reason, detail)


def _fault(fields: dict[str, np.ndarray], run: Run) -> tuple[str, str] | None:
    """Return (reason, detail) if what the solver left is no result."""
    monitor, after = run.monitor, f"after {run.monitor.iteration} iterations"
    if not all(np.isfinite(f).all() for f in fields.values()):
        return "not_finite", f"a value is not finite {after}"
    fastest = float(np.abs(fields["U"]).max())
    if fastest > FASTEST:
        return "diverged", f"{fastest:.3g} times the wind speed {after}"
    if not run.imbalance <= IMBALANCE:
        return "not_converged", f"mass imbalance {run.imbalance:.1e} {after}"
    tolerance = run.case.fidelity.tolerance
    if not monitor.converged and not run.residual <= _FAR * tolerance:
        detail = f"residual {run.residual:.1e} {after}, asked {tolerance:.1e}"
        return "not_converged", detail
    return None


def _native(fields: dict[str, np.ndarray], speed: np.float32) -> Fields:
    """Return the fields in m/s and m."""
    return Fields(
        fields["U"].astype(np.float32) * speed,
        fields["p"].astype(np.float32) * speed**2,
        {
            "eddy_viscosity": fields["nut"].astype(np.float32) * speed,
            "turbulent_kinetic_energy": fields["k"].astype(np.float32) * speed**2,
            "turbulent_dissipation": fields["epsilon"].astype(np.float32) * speed**3,
        },
    )


def _on_output_grid(native: Fields, run: Run) -> Fields:
    from apps.simulators.flow.sample import sample

    grid, target = run.setup.grid, run.case.site.grid()

    def on_target(field: np.ndarray) -> np.ndarray:
        return sample(field, None, grid, target)

    assert native.pressure is not None  # noqa: S101 - made by `_native`
    return Fields(
        np.stack([on_target(f) for f in native.wind]),
        on_target(native.pressure),
        {name: on_target(f) for name, f in native.turbulence.items()},
    )


def _check(cases: list[Case], resources: Resources) -> None:
    if len(cases) > resources.batch:
        msg = f"{len(cases)} cases in a batch of {resources.batch}; split them"
        raise SimulationError(msg, cases=len(cases))
    if any((c.site, c.fidelity) != (cases[0].site, cases[0].fidelity) for c in cases):
        msg = "cases of different sites or fidelities in one batch; split them"
        raise SimulationError(msg)
    for case in cases:
        case.scenario.check(case.site)


@contextlib.contextmanager
def _folder(store: Path) -> Iterator[Path]:
    """Yield a folder for a case that goes when we are done with it."""
    name = f".{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
    folder = store / name
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(store: Path) -> None:
    """Remove what processes of this host left behind when they were killed."""
    prefix = f".{socket.gethostname()}-"
    for path in store.glob(f"{prefix}*{_SUFFIX}"):
        pid = path.name.removeprefix(prefix).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _versions() -> dict[str, str]:
    names = ("numpy", "reverse-backfill")
    own = {"python": platform.python_version(), "openfoam": environment.version()}
    return own | {name: version(name) for name in names}
