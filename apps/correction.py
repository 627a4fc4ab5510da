"""Simulations as the campaign believes them: a cheap solver's, corrected by a dearer one's.

A few scenarios are run with both solvers, once, before anything is trained. What the dear one says
more is learnt from these pairs (`apps.discrepancy`) and added to every run of the cheap one, be it
trained on or scored against, so that all versions are held to one truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from apps.space import WIND, Space
from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import Digest
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.discrepancy import Discrepancy
    from apps.simulation_set import SimulationSet


class Correction(Contract):
    """Pairs of runs of the same scenarios."""

    low: tuple[Digest, ...]
    """Runs of the cheap solver."""
    high: tuple[Digest, ...]
    """Runs of the dear solver on the same scenarios, in the same order."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if not self.low or len(self.low) != len(self.high):
            msg = f"{len(self.low)} cheap and {len(self.high)} dear runs are no pairs"
            raise ValueError(msg)
        return self


def load_truth(
    store: Path,
    digests: Sequence[str],
    site: Site,
    correction: Correction | None,
    space: Space = WIND,
) -> SimulationSet:
    """Return simulations, corrected if there is a correction; raises as `load_simulations`."""
    from apps.datasets import load_simulations

    data = load_simulations(store, digests, site, space)
    return data if correction is None else discrepancy(store, site, correction, space).apply(data)


@lru_cache(maxsize=4)  # a stage asks for the same one for each set of simulations
def discrepancy(
    store: Path, site: Site, correction: Correction, space: Space = WIND
) -> Discrepancy:
    """Return what a correction adds; raises as `load_simulations`."""
    from apps.datasets import load_simulations
    from apps.discrepancy import fit_discrepancy

    low, high = (
        load_simulations(store, runs, site, space) for runs in (correction.low, correction.high)
    )
    return fit_discrepancy(low, high, site)
