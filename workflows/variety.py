"""What scenarios differ in beside the wind: screens' loss and tears. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apps.space import walls
from edge_agent.contracts.site import Panel, Site
from edge_agent.contracts.site_state import SiteState, Tear

if TYPE_CHECKING:
    from workflows.config import ScenarioRange

#: How far the state of the next days may be from the present one: standard deviation of ln f.
#: Three weeks of the drift that the estimator assumes (`apps.site_state.DRIFT` a day).
SPREAD = 0.45


class Variety(NamedTuple):
    """What may differ."""

    loss: tuple[float, float] | None = None
    """Range of the screens' loss factor; none: it is one."""
    torn: float = 0.0
    """Share of scenarios with one torn panel."""
    widths: tuple[float, float] = (8.0, 40.0)
    """Range of a tear's width, m."""
    panels: tuple[Panel, ...] = ()
    """Panels that may be torn."""

    @classmethod
    def of(cls, scenarios: ScenarioRange, site: Site) -> Variety:
        """Return the variety that a campaign asks for."""
        panels = tuple(p for p in site.panels if p.name in walls(site))
        return cls(scenarios.screen_loss_factor, scenarios.torn, scenarios.tear_width, panels)

    @property
    def dimensions(self) -> int:
        """Numbers that a state takes (`state`)."""
        return (self.loss is not None) + 3 * (self.torn > 0)

    def state(self, shares: Sequence[float]) -> dict[str, Any]:
        """Return the arguments of a `Scenario` beside the wind.

        Parameters
        ----------
        shares : sequence of float
            `dimensions` numbers from 0 to 1, such as a point of a low-discrepancy sequence.
        """
        left = list(shares)
        found: dict[str, Any] = {}
        if self.loss is not None:
            low, high = self.loss
            found["screen_loss_factor"] = _rounded(low * (high / low) ** left.pop(0))
        if self.torn > 0 and left[0] < self.torn:
            panel = self.panels[
                min(int(left[0] / self.torn * len(self.panels)), len(self.panels) - 1)
            ]
            found["tears"] = (self._tear(panel, left[1], left[2]),)
        return found

    def near(self, state: SiteState, rng: np.random.Generator) -> dict[str, Any]:
        """Return the arguments of a `Scenario` in a state near the estimated one.

        The factor is log-normal about the estimate; tears that people know of are there.
        """
        found: dict[str, Any] = {}
        if self.loss is not None:
            drawn = state.screen_loss_factor * float(np.exp(SPREAD * rng.standard_normal()))
            found["screen_loss_factor"] = _rounded(float(np.clip(drawn, *self.loss)))
        if self.torn > 0:
            found["tears"] = state.tears
        return found

    def _tear(self, panel: Panel, place: float, size: float) -> Tear:
        (begin, _), (end, _) = panel.start, panel.end
        low, high = (min(w, end - begin) for w in self.widths)
        width = round(low + (high - low) * size, 2)
        # Rounded towards the middle, so that it does not stick out.
        centre = begin + width / 2 + place * (end - begin - width)
        return Tear(panel=panel.name, centre=round(centre, 3), width=max(width - 0.01, 0.01))


def _rounded(factor: float) -> float:
    return round(float(factor), 3)
