"""The agent in one process: releases fetched and swapped on threads of their own, and predictions.

How it answers is in `edge_agent.answering`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Self

import structlog

from edge_agent.answering import Answering, Checked
from edge_agent.calls.settle import settle
from edge_agent.changes import Changes
from edge_agent.clock import Clock, SystemClock
from edge_agent.commands import Commands
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import InvalidReading
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.inventory import release_status
from edge_agent.journal import Journal
from edge_agent.metrics import Counters
from edge_agent.prediction import Prediction, instant
from edge_agent.process import hold_state, resident_bytes
from edge_agent.promotion import Promotion
from edge_agent.slots import Slot, Slots
from edge_agent.spool import Kept, Spool, SpooledReading
from edge_agent.trials import Trials
from edge_agent.updates.poller import Poller
from edge_agent.updates.source import ReleaseSource, make_source
from edge_agent.updates.store import clear_incoming

log = structlog.get_logger(__name__)

#: Called with readings and, where the release needs them, the prediction made from them.
Observer = Callable[[Sequence[Checked], Prediction | None], None]


class EdgeAgent(Commands, Answering):
    """Serves a site's newest good release.

    Parameters
    ----------
    config : AgentConfig
    clock : Clock, optional
    source : ReleaseSource, optional
        Where releases come from; the configured repository by default.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        clock: Clock | None = None,
        source: ReleaseSource | None = None,
    ) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.counters = Counters()
        self.started_at = self.clock.now()
        self.source: ReleaseSource = source or make_source(config, self.clock)
        """Where releases come from."""
        self._spool: Spool
        self._lock_file: int | None = None
        self._running = False
        self._newest = None
        self._last_staleness = None
        self.after_swap: Callable[[], None] = lambda: None
        """Called on the changes' thread after each swap; to be set before `start`."""
        self.observers: list[Observer] = []
        """See `observe`; each must return within microseconds (queue the work elsewhere)."""
        self.gauges: dict[str, tuple[str, Callable[[], float | None]]] = {}
        """Metric name (without ``rbf_``) to help text and value; read when scraped."""
        self.sections: dict[str, Callable[[], Any]] = {}
        """Further parts of `status`, by name; each gives JSON values."""

    def start(self) -> Self:
        """Take the state folder, load what served last, and begin to look for releases.

        Raises
        ------
        InvalidConfig
            If another live agent holds the state folder, or it cannot be written.
        SpoolError
            If the spool cannot be opened.
        """
        config = self.config
        self._lock_file = hold_state(config.state)
        try:
            self._spool = Spool(
                config.state / "spool.sqlite",
                self.clock,
                self.counters,
                max_rows=config.spool_rows,
                max_queue=config.spool_queue,
                hold=config.upstream is not None,
            )
            settle(config, self.clock)
            self._restore()
        except BaseException:
            self._release_lock()
            raise
        self._changes.start()
        self._poller.start()
        self._running = True
        return self

    def close(self) -> None:
        """Finish what is under way and let go of the state folder; may be called twice."""
        if not self._running:
            return
        self._running = False
        self._poller.stop()
        self._changes.stop()
        self._spool.close()
        self._release_lock()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether a release serves."""
        return self._slots.pair.active is not None

    @property
    def spool(self) -> Spool:
        """The readings on disk; for those that send them on."""
        return self._spool

    @property
    def versions(self) -> list[int]:
        """The loaded versions: the active one, the previous one, the candidate."""
        return [s.version for s in self._slots.loaded]

    @property
    def loaded(self) -> list[Slot]:
        """The loaded releases: the active one, the previous one, the candidate."""
        return self._slots.loaded

    @property
    def source_trouble(self) -> str | None:
        """Why no release can be had now; none if it can."""
        return self._poller.trouble

    @property
    def last_staleness(self) -> float | None:
        """Of the last answer, s."""
        return self._last_staleness

    def check_readings(
        self, readings: Sequence[Reading]
    ) -> tuple[list[Checked], list[InvalidReading]]:
        """Return the readings that can be used, with their data times, and errors for the rest."""
        good: list[Checked] = []
        bad: list[InvalidReading] = []
        latest = self.clock.now() + self.config.ingest.ahead_seconds
        for reading in readings:
            try:
                good.append((reading, check_reading(reading, latest)))
            except InvalidReading as error:
                self.counters.rejected[error.reason] += 1
                bad.append(error)
        return good, bad

    def keep_readings(self, readings: Sequence[Checked]) -> Future[Kept]:
        """Queue checked readings for the disk; the future resolves once they are committed.

        Raises
        ------
        SpoolError
            If too much is waiting for the disk.
        """
        kept = self._spool.append(readings)
        for reading, time in readings:
            at = instant(time)
            if self._newest is None or at > self._newest[0]:
                self._newest = (at, reading.time)
        return kept

    def observe(self, readings: Sequence[Checked], prediction: Prediction | None) -> None:
        """Tell the observers of readings taken and what was predicted from them.

        The server calls this after the answer has gone out. An observer that raises is logged and
        counted, and harms nobody else.
        """
        for observer in self.observers:
            try:
                observer(readings, prediction)
            except Exception:  # whatever an observer does, serving goes on
                self.counters.observer_errors += 1
                log.exception("an observer failed")

    def readings(self, after: int = 0, limit: int = 1000) -> list[SpooledReading]:
        """Return kept readings after a sequence number; raises `SpoolError`."""
        return self._spool.after(after, limit)

    def status(self) -> dict[str, Any]:
        """Return what the agent is and has done, as JSON values; times in s."""
        newest = self._newest
        return {
            "pid": os.getpid(),
            "site": self.config.name,
            "device": self.config.device,
            "channel": self.config.channel,
            **release_status(self._promotion, self.config.promotion),
            "source_trouble": self._poller.trouble,
            "updates": self._poller.status(),
            "counters": self.counters.as_dict(),
            "latency_ms": self.counters.latencies.summary(),
            "staleness_seconds": self._last_staleness,
            "last_data_time": None if newest is None else newest[1],
            "started_at": self.started_at,
            "now": self.clock.now(),
            "rss_bytes": resident_bytes(),
            **{name: section() for name, section in self.sections.items()},
        }

    def _restore(self) -> None:
        """Load what should serve, and make what changes it; the threads are still to be started."""
        config, clock = self.config, self.clock
        self._slots = Slots(
            config.state,
            clock,
            name=config.name,
            warm_up_runs=config.warm_up_runs,
            objective=config.latency_objective_ms / 1e3,
        )
        clear_incoming(self._slots.releases)
        journal = Journal(config.state, max_bytes=config.journal_bytes)
        self._promotion = Promotion(self._slots, journal, config.promotion, clock, self.counters)
        self._promotion.restore()
        self._promotion.after_swap = self.after_swap
        trials = Trials(self._promotion, config.promotion, clock)
        self._changes = Changes(config, clock, self._promotion, trials)
        self._poller = Poller(config, clock, self.source, self._changes, self.counters)

    def _release_lock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
