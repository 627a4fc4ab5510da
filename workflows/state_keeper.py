"""Keeps the estimated state of the house: a shell round `workflows.following`.

Every few hours of data time it looks at what the interior sensors have read since, beside what the
newest surrogate expects them to read in screens of several losses. What it finds is in the ledger
before anything follows from it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import structlog

from apps.answers import sensor_weights
from apps.candidates import MODEL, read_candidate
from apps.errors import TrainingError
from apps.site_state import SurrogateTable, sensor_gains
from apps.space import LOSS_FACTOR
from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from workflows.config import ROOT, Campaign
from workflows.following import NEW_ERROR, Seen, followed, together, told
from workflows.ledger import Ledger
from workflows.maintenance import Event, Known, known, read_log

#: Loss factors of a table over the campaign's range, and instants of one estimate.
FACTORS, INSTANTS = 9, 72

log = structlog.get_logger()


class StateKeeper:
    """Estimates the state of one campaign's house.

    Parameters
    ----------
    campaign : Campaign
    site : Site
    ledger : Ledger
        Holds readings, surrogates, and the states so far.
    """

    def __init__(self, campaign: Campaign, site: Site, ledger: Ledger) -> None:
        self._campaign, self._site, self._ledger = campaign, site, ledger
        self._rules = campaign.following
        self._space = campaign.scenarios.space(site)
        self._feature_map = MastLogLaw.for_site(site)
        self._mast = site.mast.sensor
        rows = ledger.states()
        self._latest = rows[-1] if rows else None
        self._complained = self._heard = False
        self.state = self._latest.state if self._latest else SiteState(log_error=NEW_ERROR)
        """The newest estimate."""

    @property
    def follows(self) -> bool:
        """Whether this campaign's surrogates take the state at all."""
        return self._campaign.scenarios.screen_loss_factor is not None

    @property
    def hears(self) -> bool:
        """Whether there is anything to estimate from: an interior sensor has said something."""
        if self.follows and not self._heard:
            names = [s.name for s in self._site.sensors]
            self._heard = any(self._ledger.newest_reading(name) for name in names)
        return self._heard

    def look(self) -> bool:
        """Estimate anew if it is time to; return whether that was done."""
        if not self.follows or not self._site.sensors:
            return False
        newest = self._ledger.newest_reading(self._mast)
        if newest is None:
            return False
        until = _instant(newest)
        since = self._since()
        if since is None or until - since < timedelta(hours=self._rules.every_hours):
            return False
        table = self._table()
        if table is None:
            return False
        self._estimate(table, since, until, newest)
        return True

    def _since(self) -> datetime | None:
        """Return the data time up to which readings were looked at, or the first reading's."""
        if self._latest is not None:
            return _instant(self._latest.until)
        first = self._ledger.oldest_reading(self._mast)
        return None if first is None else _instant(first)

    def _table(self) -> SurrogateTable | None:
        """Return what the newest surrogate expects; none without one that takes the factor."""
        usable = [c for c in self._ledger.candidates() if c.state in {"accepted", "published"}]
        limits = self._campaign.scenarios.screen_loss_factor
        if not usable or limits is None:
            return None
        folder = Path(usable[-1].folder or "")
        try:
            columns = read_candidate(folder).columns
        except TrainingError:
            return None
        if LOSS_FACTOR not in columns:
            return None
        return SurrogateTable(
            model=(folder / MODEL).read_bytes(),
            columns=columns,
            weights=sensor_weights(self._site),
            factors=np.geomspace(*limits, FACTORS),
        )

    def _estimate(
        self, table: SurrogateTable, since: datetime, until: datetime, newest: str
    ) -> None:
        news = known(self._events(), until)
        state = told(self.state, news, since)
        table = self._in_torn_house(table, news)
        seen = self._seen(since)
        gains = self._gains(table, until)
        days = (until - since).total_seconds() / 86_400.0
        state = followed(state, table, seen, gains, days)
        self._ledger.add_state(state, newest, None if gains is None else tuple(gains.tolist()))
        self._latest, self.state = self._ledger.states()[-1], state
        self._ledger.event(
            "state_estimated",
            until=newest,
            screen_loss_factor=state.screen_loss_factor,
            log_error=state.log_error,
            readings=state.readings,
            torn=[t.panel for t in state.tears],
        )

    def _in_torn_house(self, table: SurrogateTable, news: Known) -> SurrogateTable:
        if not self._space.panels:
            return table
        if not self._space.tells(news.tears):
            log.warning("tears that surrogates cannot be told", tears=len(news.tears))
            return table
        names = [name for name, _ in self._space.columns][len(self._space.scalars) :]
        values = dict(zip(names, self._space.tear(news.tears), strict=True))
        return SurrogateTable(table.model, table.columns, table.weights, table.factors, values)

    def _seen(self, since: datetime, most: int = INSTANTS) -> Seen:
        start = since.replace(tzinfo=None).isoformat()
        inside = {s.name: self._ledger.readings(s.name, start) for s in self._site.sensors}
        mast = self._ledger.readings(self._mast, start)
        return together(mast, inside, self._feature_map, most)

    def _gains(self, table: SurrogateTable, until: datetime) -> np.ndarray | None:
        """Return what the sensors are off by: learnt once, while the screens were new."""
        if self._latest is not None and self._latest.gains is not None:
            return np.array(self._latest.gains)
        first = self._ledger.oldest_reading(self._mast)
        if self._rules.new_days == 0 or first is None:
            return None
        end = _instant(first) + timedelta(days=self._rules.new_days)
        if until < end:
            return None
        seen = self._seen(_instant(first), most=10 * INSTANTS)
        if seen.since is None or seen.until is None:
            return None
        span = (seen.until - seen.since).total_seconds()
        share = self._rules.new_days * 86_400.0 / max(span, 1.0)
        keep = max(1, round(min(1.0, share) * len(seen.winds)))
        return sensor_gains(table, seen.winds[:keep], seen.measured[:keep])

    def _events(self) -> tuple[Event, ...]:
        """Return what people wrote down; a log that cannot be read is said once, and left."""
        if self._rules.log is None:
            return ()
        try:
            events = read_log(ROOT / self._rules.log)
        except InvalidConfig as error:
            if not self._complained:
                log.warning("the maintenance log cannot be read", error=str(error))
                self._ledger.event("maintenance_log_unreadable", error=str(error))
            self._complained = True
            return ()
        self._complained = False
        return events


def _instant(time: str) -> datetime:
    at = datetime.fromisoformat(time)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
