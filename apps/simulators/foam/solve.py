"""One case from its files to its fields: prepare, iterate until told to stop, go on, read."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from apps.errors import DatasetError, SimulationError
from apps.simulators.base import Case, Control
from apps.simulators.flow.grid import SolverGrid, build_grid
from apps.simulators.flow.problem import Problem, build_problem
from apps.simulators.foam import case as files
from apps.simulators.foam import mesh, numerics, process
from apps.simulators.foam.calibration import thick_zone
from apps.simulators.foam.environment import parallel_command
from apps.simulators.foam.fields import read_field, times
from apps.simulators.foam.log import Monitor
from apps.simulators.foam.plan import RELAX, Plan, plan, refined
from apps.simulators.foam.screens import baffles, canopy_zones
from edge_agent.contracts.geometry import wind_vector

#: A case that has not converged by then ends.
MAX_ITERATIONS = 3000
#: Tolerance of the fidelity over that of the equations' initial residuals at `RELAX`: measured, so
#: that the wind in the house is within the fidelity's tolerance of the converged one.
STRICT = 10.0
#: Share of the disk below which a failed write is a full disk's fault, bytes.
_FULL = 1 << 20
#: Iterations of the first process; then the fields are written and the next goes on to twice as
#: many, and so on. OpenFOAM's baffles lose their jump in a restart, and the iterations after it
#: differ from those of a run that goes on; a run that restarts at the same places whether it is
#: stopped or not gives the same bits. Each restart costs some iterations, so they become rarer.
SEGMENT = 100
#: Time to archive a case and leave, s, and per cell.
_LEAVE, _LEAVE_CELL = 2.0, 1e-5

State = Literal["ended", "trapped", "stopped"]


@dataclass(frozen=True)
class Setup:
    """What a case is on its grid."""

    grid: SolverGrid
    problem: Problem
    plan: Plan
    wind: files.Wind
    viscosity: float
    """Over the wind speed, m."""

    @property
    def approach(self) -> float:
        """Undisturbed wind at the roof over that at reference height."""
        return float(self.wind.speed(np.asarray(self.grid.nodes[2][self.grid.house[2][1]])))

    @functools.cached_property
    def inflow(self) -> float:
        """Volume flow into the domain over the wind speed, m2."""
        width = [np.diff(n) for n in self.grid.nodes]
        height = float((self.wind.speed(self.grid.centres(2)) * width[2]).sum())
        across = {"west": 1, "east": 1, "south": 0, "north": 0}
        return sum(
            height * float(width[across[side]].sum()) * abs(self.wind.direction[1 - across[side]])
            for side, kind in self.wind.sides().items()
            if kind == "in"
        )

    @property
    def volume(self) -> float:
        """Of the domain, m3."""
        return float(np.prod([n[-1] - n[0] for n in self.grid.nodes]))


def setup(case: Case) -> Setup:
    """Return a case on its grid; lines are added where screens become thick zones."""
    site, scenario = case.site, case.scenario
    terrain = site.terrain
    bearing = site.footprint.x_axis_bearing
    x, y = (float(v) for v in wind_vector(1.0, scenario.wind_from_direction, bearing))
    wind = files.Wind((x, y), terrain.roughness_length, terrain.reference_height)
    grid = build_grid(site, case.fidelity.cells)
    problem = build_problem(site, [scenario], grid)
    approach = float(wind.speed(np.asarray(site.footprint.height)))
    chosen = plan(baffles(problem), approach)
    if chosen.thick:
        grid = refined(grid, chosen.thick)
        problem = build_problem(site, [scenario], grid)
        chosen = plan(baffles(problem), approach)
    return Setup(grid, problem, chosen, wind, files.VISCOSITY / scenario.wind_speed)


class Run:
    """One case in its folder.

    Parameters
    ----------
    folder : Path
        Of the case; made by `prepare`, or restored from a checkpoint.
    case : Case
    processes : int
        Cores to use.
    cache : Path
        Folder of the calibrations.
    report : callable, optional
        Called with the monitor after every iteration.
    """

    def __init__(
        self,
        folder: Path,
        case: Case,
        processes: int,
        cache: Path,
        report: Callable[[Monitor], None] | None = None,
    ) -> None:
        self.folder, self.case, self.monitor = folder, case, Monitor()
        self.setup = setup(case)
        self.wall = self.cpu = 0.0
        self.done = 0
        self.tail = ""
        self._processes, self._cache, self._report = processes, cache, report

    @property
    def tolerance(self) -> float:
        """Initial residual at which the case has converged.

        Under stronger relaxation the same residual is farther from the end, in proportion.
        """
        return self.case.fidelity.tolerance / STRICT * self.setup.plan.relax_u / RELAX

    @property
    def residual(self) -> float:
        """The largest initial residual in the terms of the fidelity's tolerance."""
        return self.monitor.residual / self.tolerance * self.case.fidelity.tolerance

    @property
    def imbalance(self) -> float:
        """Sum of |divergence| over the flow that enters the domain."""
        return self.monitor.continuity * self.setup.volume / self.setup.inflow

    @property
    def progress(self) -> float:
        """How far the residual has come, on a logarithmic scale from 1 to the tolerance."""
        residual = self.monitor.residual
        if not 0 < residual < 1:
            return 0.0
        return float(min(0.99, np.log(residual) / np.log(self.tolerance)))

    def prepare(self) -> None:
        """Write the case and make its mesh.

        Raises
        ------
        SimulationError
            If a program fails.
        OSError
            If the disk is full.
        """
        try:
            self._prepare()
        except SimulationError:
            self._blame_disk()
            raise

    def _prepare(self) -> None:
        began, s, folder = time.perf_counter(), self.setup, self.folder
        exact, relax = s.plan.baffles, s.plan.relax_u
        zones = canopy_zones(s.problem) + [
            thick_zone(b, s.grid, s.approach, s.viscosity, relax, self._cache) for b in s.plan.thick
        ]
        mesh.write_mesh(folder, s.grid.nodes, exact, zones)
        files.write_fields(folder, s.wind, s.viscosity, exact, s.problem.start, s.grid.centres(2))
        files.write_properties(folder, s.viscosity, zones, "kEpsilon")
        choice = numerics.Numerics(
            relax_u=relax, tolerance=self.tolerance, iterations=MAX_ITERATIONS
        )
        numerics.write_numerics(folder, choice)
        self.cpu += mesh.build(folder, s.grid.nodes, bool(exact))
        if self._processes > 1:
            numerics.write_decomposition(folder, self._processes, exact)
            self._program(["decomposePar"])
        self.wall += time.perf_counter() - began

    def iterate(self, control: Control) -> State:
        """Iterate until the case ends or must stop.

        A stopped case keeps the fields of its last whole segment.

        Raises
        ------
        SimulationError
            If the solver fails for another reason than the flow.
        OSError
            If the disk is full.
        """
        command = ["simpleFoam"]
        if self._processes > 1:
            command = parallel_command("simpleFoam", self._processes)
        while True:
            numerics.write_control(self.folder, self._next())
            stop = _Stop(control, self.reserve)
            ended = process.run(command, self.folder, on_line=self._line, on_tick=stop.go_on)
            self.wall += ended.wall
            self.cpu += ended.cpu
            self.tail = ended.tail
            if stop.asked:
                self._keep(self.done)
                return "stopped"
            if ended.trapped:
                return "trapped"
            self._demand(ended, "simpleFoam")
            self.done = self.monitor.iteration
            self._keep(self.done)
            if self.monitor.converged or self.done >= MAX_ITERATIONS:
                break
        if self._processes > 1:
            self._program(["reconstructPar", "-latestTime", "-fields", "(U p k epsilon nut)"])
        return "ended"

    @property
    def reserve(self) -> float:
        """Time to archive the case and leave, s."""
        return _LEAVE + _LEAVE_CELL * float(np.prod(self.setup.grid.cells))

    def fields(self) -> dict[str, np.ndarray]:
        """Return the fields at the cell centres, (nz, ny, nx), U with three components in front.

        In units of the wind speed. Raises `OSError` if the disk was full, `SimulationError` if
        they cannot be read.
        """
        shape = self.setup.grid.cells[::-1]
        try:
            latest = times(self.folder)[-1]
            found = {
                name: read_field(latest / name, int(np.prod(shape)))
                for name in ("U", "p", "k", "epsilon", "nut")
            }
        except (IndexError, DatasetError) as error:
            self._blame_disk()
            msg = f"simpleFoam left no fields that can be read: {error}; {self.tail[-500:]}"
            raise SimulationError(msg) from error
        return {
            name: np.moveaxis(values.reshape(*shape, -1), -1, 0).squeeze()
            for name, values in found.items()
        }

    def _next(self) -> int:
        """Return the iteration at which the next segment ends."""
        end = SEGMENT
        while end <= self.done:
            end *= 2
        return min(end, MAX_ITERATIONS)

    def _line(self, text: str) -> None:
        if self.monitor.line(text) and self._report is not None:
            self._report(self.monitor)

    def _keep(self, iteration: int) -> None:
        """Remove the fields of all other iterations, half written ones among them."""
        for folder in (self.folder, *self.folder.glob("processor*")):
            for path in times(folder):
                if float(path.name) != iteration:
                    shutil.rmtree(path)

    def _program(self, command: list[str]) -> None:
        ended = process.run(command, self.folder)
        self.cpu += ended.cpu
        self._demand(ended, command[0])

    def _demand(self, ended: process.Ended, name: str) -> None:
        if ended.code != 0:
            self._blame_disk()
            msg = f"{name} ended with {ended.code}: {ended.tail[-1000:]}"
            raise SimulationError(msg, program=name)

    def _blame_disk(self) -> None:
        """Raise `OSError` if the disk is full: OpenFOAM itself may not notice."""
        if shutil.disk_usage(self.folder).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))


class _Stop:
    """Remembers that the control said to stop, or that the time is too short to go on."""

    def __init__(self, control: Control, reserve: float) -> None:
        self.asked = False
        self._control, self._reserve = control, reserve

    def go_on(self) -> bool:
        """Ask the control."""
        control = self._control
        self.asked = self.asked or control.stop_requested() or control.remaining() < self._reserve
        return not self.asked
