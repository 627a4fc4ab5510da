"""Training runs of the study: simulated once, kept on disk by digest and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.datasets import load_simulations
from apps.scenarios import Scenario, Tear
from apps.simulate import SimulateTask, simulate, simulation_digests
from apps.simulation_set import SimulationSet, joined
from apps.simulators.base import Fidelity, Resources
from benchmarks.study.truth import SEED, WIND_SPEED
from edge_agent.contracts.site import Site
from workflows.steering import cover

BATCH = 8
#: Loss factors are simulated in steps of this factor: a state that comes back finds its runs.
LEVEL = 1.05


class Runs:
    """A site's simulations.

    Parameters
    ----------
    site : Site
    fidelity : Fidelity
    store : Path
        Folder of the files; what is there is not simulated again.
    batch : int
        Cases of one task.
    """

    def __init__(self, site: Site, fidelity: Fidelity, store: Path, batch: int = BATCH) -> None:
        self.site = site
        self.fidelity = fidelity
        self.store = store
        self._batch = batch
        self._known: dict[str, SimulationSet] = {}
        self.solver_seconds = 0.0
        """Of what was simulated here, s."""

    def digests(self, scenarios: Sequence[Scenario]) -> list[str]:
        """Simulate what is missing; returns the digests of the runs that did not fail."""
        found = []
        for first in range(0, len(scenarios), self._batch):
            task = SimulateTask(
                site=self.site,
                scenarios=tuple(scenarios[first : first + self._batch]),
                fidelity=self.fidelity,
                resources=Resources(threads=1, batch=self._batch),
                store=str(self.store),
            )
            names = simulation_digests(task)
            if all(name in self._known for name in names):
                found += names
                continue
            for outcome in simulate(task).outcomes:
                self.solver_seconds += outcome.seconds
                if outcome.status == "finished":
                    found.append(outcome.digest)
        return found

    def load(self, digests: Sequence[str]) -> SimulationSet:
        """Return runs by their digests."""
        new = [d for d in digests if d not in self._known]
        for name in new:
            self._known[name] = load_simulations(self.store, [name], self.site)
        return joined([self._known[d] for d in digests])

    def take(self, scenarios: Sequence[Scenario]) -> SimulationSet:
        """Simulate and return."""
        return self.load(self.digests(scenarios))


def level_of(factor: float) -> int:
    """Return the nearest level of a loss factor; level 0 is 1."""
    return round(float(np.log(factor) / np.log(LEVEL)))


def at_level(level: int, tears: tuple[Tear, ...], start: int, count: int) -> list[Scenario]:
    """Return elements of the cover of winds that is run at a level, with known tears."""
    stream = f"level {level} {'torn' if tears else 'whole'}"
    return [
        s.model_copy(update={"screen_loss_factor": round(LEVEL**level, 4), "tears": tears})
        for s in cover(stream, start, count, SEED, WIND_SPEED)
    ]
