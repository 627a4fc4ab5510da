"""Estimated site state: what changes slowly in a house and no sensor reads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Panel


class Tear(Contract):
    """A torn part of a panel: a rectangle that has lost a share of its screen.

    Positions are in the coordinates of the panel's corners: (y, z) on x faces, (x, z) on y faces,
    (x, y) on the roof.
    """

    panel: str
    """Name of the panel."""
    centre: Annotated[float, Field(ge=0)]
    """Middle of the tear along the first coordinate, m."""
    width: Annotated[float, Field(gt=0)]
    """Extent along the first coordinate, m."""
    span: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = None
    """From and to along the second coordinate, m; the whole panel if none."""
    open_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the rectangle where the screen is gone."""

    @property
    def along(self) -> tuple[float, float]:
        """From and to along the first coordinate, m."""
        return self.centre - self.width / 2, self.centre + self.width / 2

    @classmethod
    def whole(cls, panel: Panel) -> Self:
        """Return the tear that leaves nothing of a panel."""
        (a, _), (b, _) = panel.start, panel.end
        return cls(panel=panel.name, centre=(a + b) / 2, width=b - a)

    @model_validator(mode="after")
    def _has_extent(self) -> Self:
        if self.span is not None and self.span[0] >= self.span[1]:
            msg = f"tear of {self.panel}: span must go from low to high"
            raise ValueError(msg)
        return self


class SiteState(Contract):
    """The state of the house that a release's simulations were made for.

    Dust, a wash and the growth of the canopy all change how much wind the interior sensors see.
    They are told as one number, the *effective* loss factor of the screens: what the simulations
    need so that their wind at the sensors is that of the readings (`apps.site_state`).
    """

    screen_loss_factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Multiplies every panel's loss, dimensionless."""
    log_error: Annotated[float, Field(ge=0)] | None = None
    """Standard error of its natural logarithm; none if it was not estimated."""
    tears: tuple[Tear, ...] = ()
    """Tears that people know of; reported, not estimated here."""
    method: Literal["assumed", "log_speed_least_squares/1"] = "assumed"
    """How the factor came about."""
    readings: Annotated[int, Field(ge=0)] = 0
    """Interior readings behind it."""
    since: datetime | None = None
    """Data time of the oldest of them."""
    until: datetime | None = None
    """Data time of the newest."""
