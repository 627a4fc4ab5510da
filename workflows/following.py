"""How the estimated state of the house follows readings and people: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import numpy as np

from apps.errors import StageError
from apps.site_state import DRIFT, SpeedTable, combine, estimate
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.observation import Reading
from edge_agent.contracts.site_state import SiteState
from workflows.maintenance import Known

#: Standard errors of ln f that are assumed: of new screens, of washed ones, and what a tear that
#: was found adds: what was estimated before it was known is less certain.
NEW_ERROR, WASHED_ERROR, TEAR_ERROR = 0.1, 0.2, 0.3
#: Standard errors between two estimates beyond which the first counts for nothing.
JUMP = 4.0
#: Loss factor of washed screens: nearly as new.
WASHED = 1.0


class Seen(NamedTuple):
    """Readings brought together by instant."""

    winds: np.ndarray
    """(n, 2): speed at the reference height (m/s), direction (degrees)."""
    measured: np.ndarray
    """(n, sensors) m/s; NaN where a sensor is silent."""
    since: datetime | None
    """Data time of the oldest; none without any."""
    until: datetime | None
    """Data time of the newest."""


def together(
    mast: Sequence[Reading],
    inside: Mapping[str, Sequence[Reading]],
    feature_map: MastLogLaw,
    most: int,
) -> Seen:
    """Return the instants at which the mast and an interior sensor read.

    Parameters
    ----------
    mast : sequence of Reading
    inside : mapping from interior sensor to its readings
    feature_map : MastLogLaw
    most : int
        Instants to keep, evenly spread.
    """
    needed = {source.quantity for source in feature_map.sources}
    outside: dict[str, dict[str, float]] = {}
    for reading in mast:
        outside.setdefault(reading.time, {})[reading.quantity] = reading.value
    speeds = [
        {r.time: r.value for r in readings if r.quantity == "wind_speed"}
        for readings in inside.values()
    ]
    times = sorted(
        time
        for time, values in outside.items()
        if needed <= values.keys() and any(time in sensor for sensor in speeds)
    )
    if len(times) > most:
        times = [times[i] for i in np.linspace(0, len(times) - 1, most).round().astype(int)]
    if not times:
        return Seen(np.empty((0, 2)), np.empty((0, len(speeds))), None, None)
    winds = [feature_map.from_readings({q: [outside[time][q]] for q in needed}) for time in times]
    measured = [[sensor.get(time, np.nan) for sensor in speeds] for time in times]
    first, last = (datetime.fromisoformat(t) for t in (times[0], times[-1]))
    return Seen(np.array(winds, float), np.array(measured, float), first, last)


def told(state: SiteState, news: Known, since: datetime | None) -> SiteState:
    """Return the state after what people have written down since a data time.

    Parameters
    ----------
    state : SiteState
    news : Known
    since : datetime or None
        With a time zone; none: nothing was known before.
    """
    event = news.latest
    state = state.model_copy(update={"tears": news.tears})
    if event is None or (since is not None and event.at <= since):
        return state
    if event.kind == "washed":
        return SiteState(
            screen_loss_factor=WASHED, log_error=WASHED_ERROR, tears=news.tears, until=state.until
        )
    wider = float(np.hypot(state.log_error or 0.0, TEAR_ERROR))
    return state.model_copy(update={"log_error": wider})


def followed(
    state: SiteState, table: SpeedTable, seen: Seen, gains: np.ndarray | None, days: float
) -> SiteState:
    """Return the state with what the interior sensors read since.

    Parameters
    ----------
    state : SiteState
        Before, with what people have told.
    table : SpeedTable
        Of the house with its known tears.
    seen : Seen
    gains : (sensors,) array or None
        From `apps.site_state.sensor_gains`.
    days : float
        Data time since the estimate before.
    """
    # A calm, or silence: nothing to go by, and less certain with every day.
    fresh = state.model_copy(update={"log_error": None})
    if len(seen.winds):
        with suppress(StageError):
            fresh = estimate(
                table,
                seen.winds,
                seen.measured,
                gains=gains,
                tears=state.tears,
                since=seen.since,
                until=seen.until,
            )
    if _jumped(state, fresh, days):
        state = state.model_copy(update={"log_error": None})
    return combine(state, fresh, days)


def _jumped(before: SiteState, now: SiteState, days: float) -> bool:
    """Return whether two estimates are too far apart for dust: something happened, untold."""
    if before.log_error is None or now.log_error is None:
        return False
    error = np.sqrt(before.log_error**2 + now.log_error**2 + DRIFT**2 * days)
    away = np.log(now.screen_loss_factor / before.screen_loss_factor)
    return bool(abs(away) > JUMP * error)


def moved(now: SiteState, before: SiteState | None, step: float) -> bool:
    """Return whether a state is another than the one that a candidate was made for.

    Parameters
    ----------
    now : SiteState
    before : SiteState or None
        None: as in the site file.
    step : float
        Change of ln f that counts.
    """
    before = before or SiteState()
    change = abs(np.log(now.screen_loss_factor / before.screen_loss_factor))
    return bool(change >= step) or now.tears != before.tears
