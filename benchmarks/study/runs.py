"""Runs of the study: simulated once, kept on disk by digest and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.datasets import RunInfo, load_simulations, write_simulation
from apps.scenarios import Scenario
from apps.simulate import SimulateTask, simulate, simulation_digests
from apps.simulation_set import SimulationSet, joined
from apps.simulators.base import Case, Fidelity, Resources, simulation_digest
from apps.simulators.registry import solver_version
from apps.space import WIND, Space
from edge_agent.contracts.site import Site

BATCH = 8


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
    space : Space
        What is told of the house that each was made for.
    """

    def __init__(
        self,
        site: Site,
        fidelity: Fidelity,
        store: Path,
        batch: int = BATCH,
        space: Space = WIND,
    ) -> None:
        self.site = site
        self.fidelity = fidelity
        self.store = store
        self._batch = batch
        self._space = space
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
            self._known[name] = load_simulations(self.store, [name], self.site, self._space)
        return joined([self._known[d] for d in digests])

    def take(self, scenarios: Sequence[Scenario]) -> SimulationSet:
        """Simulate and return."""
        return self.load(self.digests(scenarios))

    def restore(self, scenarios: Sequence[Scenario], wind: np.ndarray) -> list[str]:
        """Put runs that are shipped as fields into the store; returns their digests.

        Parameters
        ----------
        scenarios : sequence of Scenario
        wind : (n, 3, nz, ny, nx) array, m/s
        """
        resources = Resources(threads=1, batch=self._batch)
        version = solver_version(self.fidelity.simulator)
        info = RunInfo(self.fidelity.simulator, version, True, 0.0, 1, 0.0, 0.0, 0.0, {})
        found = []
        for scenario, field in zip(scenarios, wind, strict=True):
            case = Case(self.site, scenario, self.fidelity)
            digest = simulation_digest(case, resources, version)
            write_simulation(self.store, digest, case, resources, field, None, info)
            found.append(digest)
        return found
