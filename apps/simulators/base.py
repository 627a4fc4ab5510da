"""What every simulator offers, and what a run of it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from apps.scenarios import Scenario
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.site import Site

#: Cells along one axis of a solver's domain.
Cells = Annotated[int, Field(ge=4, le=1024)]


#: Simulators that there are (`apps.simulators.registry`).
SimulatorName = Literal["embedded", "openfoam"]


class Fidelity(Contract):
    """Which solver on which grid."""

    simulator: SimulatorName = "embedded"
    """Name of the simulator."""
    cells: tuple[Cells, Cells, Cells] = (32, 24, 10)
    """Cells of the whole domain (x, y, z), the house and its surroundings."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 5e-3
    """Relative change of the flow per flow-through of the house at which a run has converged."""

    def __str__(self) -> str:
        return f"{self.simulator} {'x'.join(str(n) for n in self.cells)}"


class Resources(Contract):
    """What a task computes with; part of the digest, so results do not depend on where it ran."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of one task."""
    batch: Annotated[int, Field(ge=1, le=256)] = 4
    """Cases that one task computes together."""


@dataclass(frozen=True)
class Case:
    """One simulation to be made."""

    site: Site
    scenario: Scenario
    fidelity: Fidelity


def simulation_digest(case: Case, resources: Resources, solver_version: str) -> str:
    """Return the name of a simulation: sha256 over all that determines its numbers.

    Parameters
    ----------
    case : Case
    resources : Resources
    solver_version : str
        Declared by the solver (`apps.simulators.registry`); not the git commit.
    """
    return sha256(
        canonical_json(
            {
                "site": case.site.content_digest(),
                "scenario": case.scenario.model_dump(mode="json"),
                "fidelity": case.fidelity.model_dump(mode="json"),
                "resources": resources.model_dump(mode="json"),
                "solver_version": solver_version,
            }
        )
    )


class Control(Protocol):
    """Tells a simulator how long it may go on; the end may move."""

    def remaining(self) -> float:
        """Return the seconds left, infinity if nothing ends."""
        ...

    def stop_requested(self) -> bool:
        """Return whether to write a checkpoint and leave now."""
        ...


@dataclass(frozen=True)
class Finished:
    """A simulation whose file exists."""

    digest: str
    path: Path
    seconds: float
    """Solver wall time per case, s; zero if the file was there already."""


@dataclass(frozen=True)
class Unfinished:
    """A simulation that stopped before its end and can go on."""

    digest: str
    checkpoint: Path
    progress: float
    """Share of the work done, 0 to 1, an estimate."""


@dataclass(frozen=True)
class Failed:
    """A simulation that cannot be finished; a result too."""

    digest: str
    reason: str
    """``diverged``, ``not_finite`` or ``not_converged``."""
    detail: str
    """One line for a person."""


Outcome = Finished | Unfinished | Failed


class Simulator(Protocol):
    """A solver behind the common interface, made with the folder it writes to.

    `apps.simulators.registry.make` builds one.
    """

    def run(
        self, cases: list[Case], resources: Resources, checkpoint: Path | None, control: Control
    ) -> list[Outcome]:
        """Run cases and write one immutable netCDF file each.

        Parameters
        ----------
        cases : list of Case
            All of one site and fidelity; at most ``resources.batch``.
        resources : Resources
        checkpoint : Path or None
            Where to continue from, if it exists, and where to write when asked to stop.
        control : Control
            Asked before every solver step.

        Returns
        -------
        list of Outcome
            One per case, in order.
        """
        ...
