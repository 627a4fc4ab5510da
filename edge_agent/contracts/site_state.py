"""Estimated site state: what changes slowly in a house and no sensor reads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from edge_agent.contracts.model import Contract


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
    torn_panels: tuple[str, ...] = ()
    """Panels known to be torn; reported, not estimated here."""
    method: Literal["assumed", "log_speed_least_squares/1"] = "assumed"
    """How the factor came about."""
    readings: Annotated[int, Field(ge=0)] = 0
    """Interior readings behind it."""
    since: datetime | None = None
    """Data time of the oldest of them."""
    until: datetime | None = None
    """Data time of the newest."""
