"""What a scenario consists of beside the wind: the state of the house, as columns of numbers.

A surrogate that follows the state of its house takes these columns after wind speed and direction.
One tear is told by three of them: the number of its panel (from one; nought for none), its middle
and its width. A scenario that the columns cannot tell in full, such as one with two tears, is not
in the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import Tear

if TYPE_CHECKING:
    from apps.scenarios import Scenario

TEAR_PANEL, TEAR_CENTRE, TEAR_WIDTH = "tear_panel", "tear_centre", "tear_width"
LOSS_FACTOR = "screen_loss_factor"
#: A tear's width that counts as one, m: about the largest that stays unseen for long.
WIDE = 40.0


class Scalar(Contract):
    """One number of the state."""

    name: str
    """Name of its column."""
    unit: str = "1"
    """UDUNITS spelling."""
    logarithmic: bool = True
    """Whether equal ratios of it count alike, and not equal differences."""

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return the values on the scale on which equal steps count alike."""
        values = np.asarray(values, float)
        return np.log(np.maximum(values, 1e-6)) if self.logarithmic else values


class Space(Contract):
    """The columns of a state."""

    scalars: tuple[Scalar, ...] = ()
    """Numbers, in order."""
    panels: tuple[str, ...] = Field(default=())
    """Panels that may be torn over their whole height, numbered from one; none if a tear is no
    column."""

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, unit) of each column, in order."""
        tear = ((TEAR_PANEL, "1"), (TEAR_CENTRE, "m"), (TEAR_WIDTH, "m")) if self.panels else ()
        return (*((s.name, s.unit) for s in self.scalars), *tear)

    def tells(self, tears: Sequence[Tear]) -> bool:
        """Return whether the columns tell all of some tears."""
        if not self.panels or not tears:
            return not tears
        one = tears[0]
        whole = one.span is None and one.open_fraction == 1.0
        return len(tears) == 1 and whole and one.panel in self.panels

    def tear(self, tears: Sequence[Tear]) -> tuple[float, ...]:
        """Return the columns of a tear; empty if a tear is no column."""
        if not self.panels:
            return ()
        if not tears:
            return (0.0, 0.0, 0.0)
        one = tears[0]
        return (1.0 + self.panels.index(one.panel), one.centre, one.width)

    def row(self, scenario: Scenario) -> tuple[float, ...]:
        """Return the columns of a scenario of this space."""
        scalars = tuple(float(getattr(scenario, s.name)) for s in self.scalars)
        return (*scalars, *self.tear(scenario.tears))


#: No state at all.
WIND = Space()


def space_of(site: Site, *, loss: bool, tears: bool) -> Space:
    """Return the space of a site.

    Parameters
    ----------
    site : Site
    loss : bool
        Whether the screens' loss factor is a column.
    tears : bool
        Whether a tear is.
    """
    return Space(
        scalars=(Scalar(name=LOSS_FACTOR),) if loss else (),
        panels=walls(site) if tears else (),
    )


def walls(site: Site) -> tuple[str, ...]:
    """Return the panels whose tears can be told by place and width: over a wall's whole height."""
    return tuple(p.name for p in site.panels if p.face != "roof")


def space_of_columns(site: Site, columns: Sequence[str]) -> Space:
    """Return the space of a model by the names of its inputs."""
    return space_of(site, loss=LOSS_FACTOR in columns, tears=TEAR_PANEL in columns)
