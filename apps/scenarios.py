"""Scenarios: one point of boundary conditions each."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from apps.errors import SimulationError
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import Tear

__all__ = ["Scenario", "Tear"]

#: A tear may stick out of its panel by this much, m: rounding, not geometry.
_SLACK = 1e-6


class Scenario(Contract):
    """Boundary conditions of one simulation."""

    wind_speed: Annotated[float, Field(gt=0, le=100)]
    """Undisturbed wind speed at the site's reference height, m/s; calm has no direction and no
    steady flow, so it is not a scenario."""
    wind_from_direction: Annotated[float, Field(ge=0, lt=360)]
    """Where the wind comes from, degrees clockwise from north."""
    screen_loss_factor: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Multiplies every panel's loss: dust above one, dimensionless."""
    tears: tuple[Tear, ...] = ()
    """Torn parts of panels; kept sorted, so that equal sets have equal digests."""

    @field_validator("tears")
    @classmethod
    def _sorted(cls, tears: tuple[Tear, ...]) -> tuple[Tear, ...]:
        found = tuple(sorted(tears, key=lambda t: (t.panel, t.along, t.span or (), t.width)))
        for k, one in enumerate(found):
            for other in found[k + 1 :]:
                if one.panel == other.panel and _meet(one, other):
                    # Their open shares could neither be added nor multiplied.
                    msg = f"two tears of panel {one.panel} overlap; make them one"
                    raise ValueError(msg)
        return found

    def check(self, site: Site) -> None:
        """Raise `SimulationError` if a tear is of no panel of the site, or sticks out of it."""
        panels = {p.name: p for p in site.panels}
        unknown = sorted({t.panel for t in self.tears} - set(panels))
        if unknown:
            msg = f"site {site.name} has no panel {', '.join(unknown)}; it has {', '.join(panels)}"
            raise SimulationError(msg, panels=tuple(unknown))
        for tear in self.tears:
            panel = panels[tear.panel]
            extents = [tear.along] if tear.span is None else [tear.along, tear.span]
            for extent, low, high in zip(extents, panel.start, panel.end, strict=False):
                if not all(a <= b + _SLACK for a, b in pairwise((low, *extent, high))):
                    msg = f"a tear from {extent[0]:g} to {extent[1]:g} m is not within panel "
                    msg += f"{panel.name}, {low:g} to {high:g} m"
                    raise SimulationError(msg, panels=(panel.name,))


def _meet(one: Tear, other: Tear) -> bool:
    pairs = [(one.along, other.along)]
    if one.span is not None and other.span is not None:
        pairs.append((one.span, other.span))
    return all(a[0] + _SLACK < b[1] and b[0] + _SLACK < a[1] for a, b in pairs)
