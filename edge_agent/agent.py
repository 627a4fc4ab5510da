"""The agent in one process: releases fetched and swapped on threads of their own, and predictions.

`EdgeAgent.predict` reads one reference and takes no lock; everything slow happens on
threads of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Self

import numpy as np
import structlog

from edge_agent.calls.settle import settle
from edge_agent.changes import Changes
from edge_agent.clock import Clock, SystemClock
from edge_agent.commands import Commands
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import (
    InvalidReading,
    NotReady,
    ReleaseError,
)
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.inventory import release_status
from edge_agent.journal import Journal
from edge_agent.metrics import Counters
from edge_agent.prediction import Inputs, Prediction, as_rows, instant
from edge_agent.process import hold_state, resident_bytes
from edge_agent.promotion import Promotion
from edge_agent.slots import Slot, Slots, at_sensors
from edge_agent.spool import Kept, Spool, SpooledReading
from edge_agent.trials import Trials
from edge_agent.updates.poller import Poller
from edge_agent.updates.source import ReleaseSource, make_source
from edge_agent.updates.store import clear_incoming

log = structlog.get_logger(__name__)

#: A reading that can be used, with its data time.
Checked = tuple[Reading, datetime]
#: Called with readings and, where the release needs them, the prediction made from them.
Observer = Callable[[Sequence[Checked], Prediction | None], None]

# The flags of a single row, shared by all answers.
_INSIDE, _OUTSIDE = np.zeros(1, bool), np.ones(1, bool)
_INSIDE.flags.writeable = _OUTSIDE.flags.writeable = False


class EdgeAgent(Commands):
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
        self._slots: Slots
        self._spool: Spool
        self._lock_file: int | None = None
        self._running = False
        self._newest: tuple[float, str] | None = None
        self._last_staleness: float | None = None
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

    def sources(self) -> frozenset[tuple[str, str]]:
        """Return the (sensor, quantity) that the active release needs; none before the first."""
        active = self._slots.pair.active
        return frozenset() if active is None else active.sources

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

    def slot(self, version: int | None = None) -> Slot:
        """Return the active slot, or the loaded one of a version.

        Raises
        ------
        NotReady
            If no release is loaded.
        NoSuchRelease
            If that version is neither active nor previous.
        """
        active = self._slots.pair.active
        if active is None:
            msg = f"no release of {self.config.name!r} is loaded yet; try again later"
            raise NotReady(msg, name=self.config.name)
        return active if version is None else self._slots.find(version)

    def predict(
        self, inputs: Inputs, *, version: int | None = None, slot: Slot | None = None
    ) -> Prediction:
        """Predict the wind in the house.

        Parameters
        ----------
        inputs : mapping or array
            Name to value (or to a column of values); or an array (n,) or (batch, n) in the
            release's order and units.
        version : int, optional
            A loaded version other than the active one.
        slot : Slot, optional
            What `slot` gave, for a caller that has looked at it.

        Raises
        ------
        InvalidInput
            For NaN or infinity, a wrong shape, an unknown or missing name.
        NotReady
            Before the first release.
        NoSuchRelease
            If `version` is not loaded.
        """
        slot = slot or self.slot(version)
        rows = as_rows(inputs, slot.columns, self.config.max_batch)
        return self._answer(slot, rows, self._newest)

    def predict_rows(self, slot: Slot, rows: np.ndarray) -> Prediction:
        """Predict from rows that `as_rows` has checked; see `predict`."""
        return self._answer(slot, rows, self._newest)

    def predict_readings(self, readings: Sequence[Reading]) -> Prediction:
        """Predict from one instant's (or window's) readings; says the wind at each sensor too.

        Raises
        ------
        InvalidReading
            If a reading cannot be used.
        InvalidInput
            If a reading that the release's feature map needs is missing.
        NotReady
            Before the first release.
        """
        return self.predict_checked([(r, check_reading(r)) for r in readings])

    def predict_checked(self, readings: Sequence[Checked]) -> Prediction:
        """Predict from readings already checked, with their data times."""
        slot = self.slot()
        values: dict[str, list[float]] = {}
        newest: tuple[float, str] | None = None
        for reading, time in readings:
            if (reading.sensor, reading.quantity) in slot.sources:
                values.setdefault(reading.quantity, []).append(reading.value)
                at = instant(time)
                if newest is None or at > newest[0]:
                    newest = (at, reading.time)
        row = slot.release.feature_map.from_readings(values)[None]
        prediction = self._answer(slot, row, newest)
        prediction.sensors.update(at_sensors(slot, prediction))
        return prediction

    def needs(self, readings: Sequence[Reading]) -> bool:
        """Whether any of the readings is one that the active release predicts from."""
        return any((r.sensor, r.quantity) in self.slot().sources for r in readings)

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

    def _answer(self, slot: Slot, rows: np.ndarray, newest: tuple[float, str] | None) -> Prediction:
        live = slot.live
        try:
            found = slot.model.run(rows)
        except ReleaseError:
            live.failed += len(rows) == 1  # of a large batch, the memory may be to blame
            raise
        first = rows[0].tolist()
        if live.rows is not None:
            live.rows.append(first)
        if len(rows) == 1:
            outside = _INSIDE
            for value, (low, high) in zip(first, slot.limits, strict=True):
                if not low <= value <= high:
                    outside = _OUTSIDE
        else:
            outside = np.any((rows < slot.minimum) | (rows > slot.maximum), axis=1)
        staleness = None
        if newest is not None and slot.data_until is not None:
            staleness = newest[0] - slot.data_until
        self._last_staleness = staleness
        counters = self.counters
        counters.answered += 1
        counters.out_of_range += outside is not _INSIDE and bool(outside.any())
        return Prediction(
            version=slot.version,
            wind=found["wind"],
            wind_std=found["wind_std"],
            out_of_range=outside,
            staleness_seconds=staleness,
            interval_factor=slot.interval_factor,
            data_time=None if newest is None else newest[1],
            wall_time=self.clock.now(),
            inputs=rows,
        )

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
