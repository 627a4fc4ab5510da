"""The embedded solver behind the common interface: what is asked, done, written and given back."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.datasets import (
    RunInfo,
    failure_path,
    native_path,
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
from apps.simulators.registry import solver_version

if TYPE_CHECKING:
    from apps.simulators.flow.march import End, March

NAME = "embedded"
#: Time to write a checkpoint and leave, s; the slowest step so far comes on top, twice.
_RESERVE = 1.0
#: A residual this many tolerances high after the last step is no result.
_FAR = 10.0


@dataclass
class _Batch:
    """Cases in the order of the batch's columns; a short batch repeats its last case."""

    cases: list[Case]
    digests: list[str]
    pending: set[int]
    """Columns whose outcome is still open."""
    wall: list[float]
    cpu: list[float]


class EmbeddedSimulator:
    """Solves batches of cases with torch; see `apps.simulators.base.Simulator`.

    Parameters
    ----------
    store : Path
        Folder for the results.
    device : str
        torch device.
    native : bool
        Whether to write the solver's own grid too; a finished case without it is run again.
    """

    def __init__(self, store: Path, device: str = "cpu", native: bool = False) -> None:
        self._store = store
        self._device = device
        self._native = native

    def run(
        self, cases: list[Case], resources: Resources, checkpoint: Path | None, control: Control
    ) -> list[Outcome]:
        """Run cases; see `apps.simulators.base.Simulator.run`.

        A case that is done, or recorded as failed, is not run again. Without a checkpoint path one
        in the store is used.

        Raises
        ------
        SimulationError
            If the cases are not of one site and fidelity, are too many, or name a panel that does
            not exist.
        OSError
            If a result cannot be written.
        """
        _check(cases, resources)
        digests = [simulation_digest(c, resources, solver_version(NAME)) for c in cases]
        outcomes = {d: o for d in digests if (o := self._known(d)) is not None}
        left = {d: c for d, c in zip(digests, cases, strict=True) if d not in outcomes}
        if left:
            path = checkpoint or self._store / f".{min(left)}.checkpoint"
            outcomes |= self._solve(left, resources, path, control)
        elif checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return [outcomes[d] for d in digests]

    def _known(self, digest: str) -> Outcome | None:
        path = simulation_path(self._store, digest)
        if path.exists() and (not self._native or native_path(self._store, digest).exists()):
            return Finished(digest, path, 0.0)
        path = failure_path(self._store, digest)
        if path.exists():
            failure = read_failure(path)
            return Failed(digest, failure.reason, failure.detail)
        return None

    def _solve(
        self, cases: dict[str, Case], resources: Resources, path: Path, control: Control
    ) -> dict[str, Outcome]:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(resources.threads)
        try:
            march, batch = self._start(cases, resources, path)
            return self._advance(march, batch, resources, path, control)
        finally:
            torch.set_num_threads(threads)

    def _start(
        self, cases: dict[str, Case], resources: Resources, path: Path
    ) -> tuple[March, _Batch]:
        """Return the march and its batch: the checkpoint's if it holds every case."""
        from apps.simulators.flow.grid import build_grid
        from apps.simulators.flow.march import March, read_checkpoint
        from apps.simulators.flow.problem import build_problem

        state = read_checkpoint(path)
        note: Any = state["note"] if state else {}
        digests = list(cases)
        digests += digests[-1:] * (resources.batch - len(digests))
        if state and set(cases) <= set(note["digests"]):
            digests = list(note["digests"])
        else:
            state = None
        # A column of the checkpoint that is not asked for computes on, as any case; its result is
        # not looked at, and no column depends on another.
        columns = [cases.get(d, next(iter(cases.values()))) for d in digests]
        pending = {digests.index(d) for d in cases}
        wall, cpu = [0.0] * len(digests), [0.0] * len(digests)
        site, fidelity = columns[0].site, columns[0].fidelity
        grid = build_grid(site, fidelity.cells)
        problem = build_problem(site, [c.scenario for c in columns], grid)
        march = March(problem, fidelity.tolerance, self._device)
        if state:
            march.load(state)
            wall, cpu = list(note["wall"]), list(note["cpu"])
        return march, _Batch(columns, digests, pending, wall, cpu)

    def _advance(
        self, march: March, batch: _Batch, resources: Resources, path: Path, control: Control
    ) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        slowest = 0.0
        while batch.pending:
            if control.stop_requested() or control.remaining() < _RESERVE + 2 * slowest:
                note: dict[str, object] = {
                    "digests": batch.digests,
                    "wall": batch.wall,
                    "cpu": batch.cpu,
                }
                march.save(path, note)
                return outcomes | {
                    batch.digests[k]: Unfinished(batch.digests[k], path, _progress(march, batch, k))
                    for k in batch.pending
                }
            wall, cpu = time.perf_counter(), time.process_time()
            ends = march.step()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            slowest = max(slowest, wall)
            for k in batch.pending:
                batch.wall[k] += wall / len(batch.pending)
                batch.cpu[k] += cpu / len(batch.pending)
            for end in ends:
                if end.case in batch.pending:
                    outcomes[batch.digests[end.case]] = self._finish(march, batch, resources, end)
                    batch.pending.remove(end.case)
        path.unlink(missing_ok=True)
        return outcomes

    def _finish(self, march: March, batch: _Batch, resources: Resources, end: End) -> Outcome:
        """Write the result of a case, or its failure."""
        from apps.simulators.flow.sample import native_fields, output_fields

        case, digest = batch.cases[end.case], batch.digests[end.case]
        tolerance = case.fidelity.tolerance
        reason: str | None = None
        detail = ""
        if end.reason in ("diverged", "not_finite"):
            what = "a value is not finite" if end.reason == "not_finite" else "speeds have run away"
            reason, detail = end.reason, f"{what} after {end.steps} steps"
        elif end.reason == "steps" and not end.residual <= _FAR * tolerance:
            reason = "not_converged"
            detail = f"residual {end.residual:.1e} after {end.steps} steps, asked {tolerance:.1e}"
        if reason is not None:
            write_failure(self._store, digest, case, reason, detail)
            return Failed(digest, reason, detail)
        info = RunInfo(
            solver=NAME,
            solver_version=solver_version(NAME),
            converged=end.reason == "converged",
            residual=end.residual,
            steps=end.steps,
            mass_imbalance=end.imbalance,
            wall_seconds=batch.wall[end.case],
            cpu_seconds=batch.cpu[end.case],
            versions=_versions(),
            unresolved_tears=_unresolved(march, case),
        )
        place = (self._store, digest, case, resources)
        if self._native:  # first: the other file says that all is there
            write_native(*place, march.grid.nodes, native_fields(march, case, end.case), info)
        fields = output_fields(march, case, end.case)
        path = write_simulation(*place, fields.wind, fields.pressure, info, fields.turbulence)
        return Finished(digest, path, info.wall_seconds)


def _check(cases: list[Case], resources: Resources) -> None:
    if len(cases) > resources.batch:
        msg = f"{len(cases)} cases in a batch of {resources.batch}; split them"
        raise SimulationError(msg, cases=len(cases))
    if any((c.site, c.fidelity) != (cases[0].site, cases[0].fidelity) for c in cases):
        msg = "cases of different sites or fidelities in one batch; split them"
        raise SimulationError(msg)
    for case in cases:
        case.scenario.check(case.site)


def _unresolved(march: March, case: Case) -> tuple[str, ...]:
    from apps.simulators.flow.tears import unresolved

    found = unresolved(case.site, case.scenario, march.grid)
    return tuple(dict.fromkeys(t.panel for t in found))


def _progress(march: March, batch: _Batch, column: int) -> float:
    """Return how far the residual has come, on a logarithmic scale from 1 to the tolerance."""
    residual, tolerance = march.residual[column], batch.cases[column].fidelity.tolerance
    if not 0 < residual < 1:
        return 0.0
    return float(min(0.99, np.log(residual) / np.log(tolerance)))


def _versions() -> dict[str, str]:
    names = ("numpy", "torch", "reverse-backfill")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
