"""The simulation stage: scenarios in, one immutable file each out.

A person runs it with ``python -m apps.simulate --wind-speed 5 --wind-from-direction 270``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from pydantic import Field, ValidationError

from apps.datasets import simulation_path
from apps.deadline import FileDeadline, Unlimited
from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.base import (
    Case,
    Control,
    Failed,
    Fidelity,
    Finished,
    Outcome,
    Resources,
    simulation_digest,
)
from apps.simulators.registry import make, solver_version
from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site


class SimulateTask(Contract):
    """Cases that one task computes together; crosses process boundaries as it is."""

    site: Site
    """The screenhouse."""
    scenarios: Annotated[tuple[Scenario, ...], Field(min_length=1)]
    """At most ``resources.batch``."""
    fidelity: Fidelity = Fidelity()
    """Which solver on which grid."""
    resources: Resources = Resources()
    """Threads and batch size; part of the digests."""
    store: str
    """Folder of the results."""
    checkpoint: str | None = None
    """File to go on from and to write to; a name in the store if none."""
    deadline: str | None = None
    """Deadline file (`apps.deadline`); none if nothing ends the task."""
    native: bool = False
    """Whether to write the solver's own grid too, outside the house included; not in the digest."""


class SimulateOutcome(Contract):
    """What became of one scenario."""

    digest: str
    """Name of the simulation."""
    status: Literal["finished", "unfinished", "failed"]
    """An unfinished one goes on when the same task runs again."""
    seconds: float = 0.0
    """Wall time that it took, s; zero if it was there already."""
    reason: str = ""
    """Of a failure: ``diverged``, ``not_finite`` or ``not_converged``."""
    detail: str = ""
    """One line for a person."""
    progress: float = 1.0
    """Share of the work done, an estimate."""


class SimulateResult(Contract):
    """Outcomes in the order of the task's scenarios."""

    outcomes: tuple[SimulateOutcome, ...]
    """One per scenario."""


def simulation_digests(task: SimulateTask) -> tuple[str, ...]:
    """Return the names of a task's simulations; imports no solver."""
    version = solver_version(task.fidelity.simulator)
    return tuple(simulation_digest(c, task.resources, version) for c in _cases(task))


def simulate(task: SimulateTask) -> SimulateResult:
    """Run a task; one that ran before finds its files and returns at once.

    Raises
    ------
    SimulationError
        If the cases cannot be run at all: too many, a panel that does not exist, or a native grid
        asked of a solver that does not write it.
    OSError
        If a result cannot be written.
    """
    control: Control = Unlimited() if task.deadline is None else FileDeadline(Path(task.deadline))
    simulator = make(task.fidelity.simulator, Path(task.store), native=task.native)
    checkpoint = None if task.checkpoint is None else Path(task.checkpoint)
    outcomes = simulator.run(_cases(task), task.resources, checkpoint, control)
    return SimulateResult(outcomes=tuple(_entry(o) for o in outcomes))


def _cases(task: SimulateTask) -> list[Case]:
    return [Case(task.site, scenario, task.fidelity) for scenario in task.scenarios]


def _entry(outcome: Outcome) -> SimulateOutcome:
    if isinstance(outcome, Finished):
        seconds = outcome.seconds
        return SimulateOutcome(digest=outcome.digest, status="finished", seconds=seconds)
    if isinstance(outcome, Failed):
        return SimulateOutcome(
            digest=outcome.digest, status="failed", reason=outcome.reason, detail=outcome.detail
        )
    return SimulateOutcome(digest=outcome.digest, status="unfinished", progress=outcome.progress)


def _main(
    wind_speed: Annotated[list[float], typer.Option(help="At reference height, m/s; repeatable.")],
    wind_from_direction: Annotated[
        list[float], typer.Option(help="Clockwise from north, degrees; repeatable.")
    ],
    store: Annotated[Path, typer.Option(help="Folder for the results.")],
    site: Annotated[Path, typer.Option(help="Site file.")] = Path("configs/sites/lindcove.toml"),
    cells: Annotated[tuple[int, int, int], typer.Option(help="Cells along x, y, z.")] = (32, 20, 8),
    screen_loss_factor: Annotated[float, typer.Option(help="Multiplies every loss.")] = 1.0,
    torn_panel: Annotated[list[str] | None, typer.Option(help="Open panel; repeatable.")] = None,
    tear: Annotated[
        list[str] | None,
        typer.Option(help="PANEL:CENTRE:WIDTH[:OPEN_FRACTION] along the panel, m; repeatable."),
    ] = None,
    native: Annotated[bool, typer.Option(help="Also write the solver's own grid.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of the solver.")] = 1,
) -> None:
    """Simulate every combination of the given speeds and directions; prints a line per case."""
    from apps.datasets import read_simulation

    try:
        house, fidelity = Site.from_toml(site), Fidelity(cells=cells)
        tears = _tears(house, torn_panel or (), tear or ())
        scenarios = [
            Scenario(
                wind_speed=speed,
                wind_from_direction=direction % 360,
                screen_loss_factor=screen_loss_factor,
                tears=tears,
            )
            for speed in wind_speed
            for direction in wind_from_direction
        ]
        resources = Resources(threads=threads, batch=min(len(scenarios), 8))
    except (RbfError, ValidationError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    for first in range(0, len(scenarios), resources.batch):
        batch = tuple(scenarios[first : first + resources.batch])
        task = SimulateTask(
            site=house,
            scenarios=batch,
            fidelity=fidelity,
            resources=resources,
            store=str(store),
            native=native,
        )
        try:
            outcomes = simulate(task).outcomes
        except (RbfError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        for scenario, outcome in zip(batch, outcomes, strict=True):
            name = f"{scenario.wind_speed:g} m/s from {scenario.wind_from_direction:g} degrees"
            if outcome.status != "finished":
                typer.echo(f"{name}: {outcome.status}: {outcome.reason}: {outcome.detail}")
                continue
            path = simulation_path(store, outcome.digest)
            run = read_simulation(path)
            mean = float(np.sqrt((run.wind**2).sum(axis=0)).mean())
            typer.echo(f"{name}: {mean:.3f} m/s inside on average, {run.seconds:.2f} s, {path}")
            if small := run.attrs.get("unresolved_tears"):
                typer.echo(f"{name}: warning: tears smaller than a cell, area kept alone: {small}")


def _tears(site: Site, whole: Sequence[str], parts: Sequence[str]) -> tuple[Tear, ...]:
    """Return the tears of a command line; raises `SimulationError` or pydantic's error."""
    panels = {p.name: p for p in site.panels}
    found = []
    for name in dict.fromkeys(whole):
        if name not in panels:
            msg = f"site {site.name} has no panel {name}; it has {', '.join(panels)}"
            raise SimulationError(msg, panels=(name,))
        found.append(Tear.whole(panels[name]))
    for text in parts:
        panel, *numbers = text.split(":")
        fields = dict(zip(("centre", "width", "open_fraction"), numbers, strict=False))
        if not 2 <= len(numbers) <= 3:
            msg = f"tear {text!r} is not PANEL:CENTRE:WIDTH[:OPEN_FRACTION]"
            raise SimulationError(msg, panels=(panel,))
        found.append(Tear.model_validate({"panel": panel, **fields}))
    return tuple(found)


if __name__ == "__main__":
    typer.run(_main)
