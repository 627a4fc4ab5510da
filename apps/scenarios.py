"""Scenarios: one point of boundary conditions each."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from apps.errors import SimulationError
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site


class Scenario(Contract):
    """Boundary conditions of one simulation."""

    wind_speed: Annotated[float, Field(gt=0, le=100)]
    """Undisturbed wind speed at the site's reference height, m/s."""
    wind_from_direction: Annotated[float, Field(ge=0, lt=360)]
    """Where the wind comes from, degrees clockwise from north."""
    screen_loss_factor: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Multiplies every panel's loss: dust above one, dimensionless."""
    torn_panels: tuple[str, ...] = ()
    """Names of panels that are open, sorted."""

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        if list(self.torn_panels) != sorted(set(self.torn_panels)):
            msg = "torn_panels must be sorted and unique"
            raise ValueError(msg)
        return self

    def check(self, site: Site) -> None:
        """Raise `SimulationError` if a torn panel does not exist on the site."""
        unknown = set(self.torn_panels) - {p.name for p in site.panels}
        if unknown:
            names = ", ".join(p.name for p in site.panels)
            msg = f"site {site.name} has no panel {', '.join(sorted(unknown))}; it has {names}"
            raise SimulationError(msg, panels=tuple(sorted(unknown)))
