"""The true state of the house as a function of data time: what the surrogate is never told.

Dust gathers on the screens and is washed off, the canopy grows, one panel tears and is mended. The
rates are our choice, no source for them was found; they are meant to be lively enough for two
months, and are the same for everything that is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apps.scenarios import Tear
from edge_agent.contracts.site import Site
from workflows.maintenance import Event

#: Growth of the screens' loss by dust, share of the clean loss per day.
DUST_PER_DAY = 0.04
#: When the screens are washed, days after the record's start, and what a wash takes off.
WASHES = (19.4, 43.4)
WASHED_OFF = 0.9
#: Growth of the canopy's drag, share of the first day's per day; in steps of two days.
CANOPY_PER_DAY = 0.005
CANOPY_STEP_DAYS = 2
#: A hole in the west wall, and the days from when it is there to when it is mended.
TORN = (30.6, 51.4)
TEAR = Tear(panel="west", centre=27.0, width=20.0)


@dataclass(frozen=True)
class TrueState:
    """What the house is like at an instant."""

    screen_loss_factor: float
    """Multiplies every panel's loss."""
    canopy_factor: float
    """Multiplies the canopy's drag."""
    tears: tuple[Tear, ...] = ()
    """Holes in the screens."""

    def site(self, site: Site) -> Site:
        """Return the site with its canopy grown."""
        rows = [
            row.model_copy(
                update={"drag_area_density": round(row.drag_area_density * self.canopy_factor, 6)}
            )
            for row in site.canopy
        ]
        return site.model_copy(update={"canopy": tuple(rows)})


def true_state(day: float) -> TrueState:
    """Return the state of the house.

    Parameters
    ----------
    day : float
        Since the record's start, >= 0.
    """
    dust, since = 0.0, 0.0
    for wash in WASHES:
        if day < wash:
            break
        dust = (1 - WASHED_OFF) * (dust + DUST_PER_DAY * (wash - since))
        since = wash
    dust += DUST_PER_DAY * (day - since)
    return TrueState(
        screen_loss_factor=round(1.0 + dust, 4),
        canopy_factor=round(
            1.0 + CANOPY_PER_DAY * CANOPY_STEP_DAYS * int(day / CANOPY_STEP_DAYS), 4
        ),
        tears=(TEAR,) if TORN[0] <= day < TORN[1] else (),
    )


#: Days from the tear to the alarm: median of `docs/tear-detector.md` for 20 m of the west wall on
#: this record. Somebody then looks, and the hole is known.
ALARM_DAYS = 2.9


#: An instant that data times of the study count from.
START = datetime(2000, 1, 1, tzinfo=UTC)


def instant(hours: float) -> datetime:
    """Return the time so many hours after the record's start."""
    return START + timedelta(hours=hours)


def log() -> tuple[Event, ...]:
    """Return what people at the house write down, oldest first."""
    washed = [Event(time=instant(24 * day), kind="washed") for day in WASHES]
    found = Event(time=instant(24 * (TORN[0] + ALARM_DAYS)), kind="torn", tear=TEAR)
    mended = Event(time=instant(24 * TORN[1]), kind="mended", panel=TEAR.panel)
    return tuple(sorted([*washed, found, mended], key=lambda e: e.at))
