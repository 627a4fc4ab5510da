"""The field side of an agent: what becomes of readings once they are on their way to the disk.

One thread looks at what came since it last looked, every ``LOOK_SECONDS``: it is not woken, so that
the answer to the next request never waits for it. It flags readings, brings those from MQTT and
pushes together and predicts from them, keeps prediction records, and tells the monitors.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from edge_agent.clock import Clock
from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.observation import (
    SILENT_MARK,
    PredictionRecord,
    Reading,
    instant_us,
)
from edge_agent.ingest.assemble import Assembler, ReadySet
from edge_agent.ingest.checks import Quality
from edge_agent.prediction import Prediction
from edge_agent.sensing import Sources
from edge_agent.settings import IngestSettings

log = structlog.get_logger(__name__)

Checked = tuple[Reading, datetime]

LOOK_SECONDS = 0.02
#: What may wait to be looked at; beyond it the oldest is passed over and counted.
MAX_WAITING = 50_000


class Predictor(Protocol):
    """What the field side needs of an agent."""

    @property
    def ready(self) -> bool:
        """Whether a release serves."""
        ...

    def sources(self) -> Sources:
        """Return what the active release predicts from; nothing before the first."""
        ...

    def predict_checked(self, readings: Sequence[Checked]) -> Prediction:
        """Predict from one instant's readings."""
        ...


class Watcher(Protocol):
    """What is told of readings and predictions: monitors, and `edge_agent.measured`."""

    def readings(self, readings: Sequence[tuple[Reading, int]]) -> None:
        """Take readings with their data times, us."""
        ...

    def prediction(self, record: PredictionRecord, instant: int) -> None:
        """Take what was predicted from the readings of a data time, us."""
        ...


class FieldSide:
    """Flags, assembles, predicts, records.

    Parameters
    ----------
    predictor : Predictor
    keep : callable
        Keeps a prediction record; does not wait.
    settings : IngestSettings
    clock : Clock
    watchers : sequence of Watcher
    """

    def __init__(
        self,
        predictor: Predictor,
        keep: Callable[[PredictionRecord], None],
        settings: IngestSettings,
        clock: Clock,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self._predictor = predictor
        self._keep = keep
        self._clock = clock
        self._watchers = tuple(watchers)
        self._waiting: deque[tuple[Sequence[Checked], PredictionRecord | None]] = deque()
        self.quality = Quality(settings)
        self.assembler = Assembler(settings)
        self.counts: Counter[str] = Counter(
            predicted=0, degraded=0, silent=0, failed=0, passed_over=0
        )
        """Predictions from assembled sets, those with a stand-in, those with a silent interior
        sensor, failures, and what came faster than it could be looked at."""
        self.publish: Callable[[PredictionRecord], None] = lambda _: None
        """Called with each prediction made from an assembled set."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rbf-field", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Look at what is left, and stop."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def observe(self, readings: Sequence[Checked], prediction: Prediction | None) -> None:
        """Take readings, and the prediction if one was made from them; returns at once."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.counts["passed_over"] += 1
        # The record and not the prediction: its fields would fill the memory while they wait.
        self._waiting.append((readings, None if prediction is None else as_record(prediction)))

    def status(self) -> dict[str, Any]:
        """Return the counts, as JSON values."""
        return {
            "flags": dict(self.quality.counts),
            "stuck": self.quality.stuck(),
            "missing": self.assembler.missing,
            "superseded": self.assembler.superseded,
            **self.counts,
        }

    def look(self) -> None:
        """Look at what came, once."""
        sources = self._predictor.sources()
        now = self._clock.monotonic()
        while self._waiting:
            readings, record = self._waiting.popleft()
            timed = [(r, instant_us(t)) for r, t in readings]
            flagged = [(r, at, "stuck" not in self.quality.flags(r, at)) for r, at in timed]
            for watcher in self._watchers:
                watcher.readings(timed)
            if record is not None:
                self._record(record, timed, sources)
            elif (ready := self.assembler.add(flagged, sources, now)) is not None:
                self._predict(ready)
        if (late := self.assembler.due(sources, now)) is not None:
            self._predict(late)

    def _record(
        self,
        record: PredictionRecord,
        timed: Sequence[tuple[Reading, int]],
        sources: Sources,
    ) -> None:
        instants = [at for r, at in timed if (r.sensor, r.quantity) in sources.needed]
        if not instants:
            return
        self.assembler.predicted(max(instants))
        self._done(record, max(instants))

    def _predict(self, ready: ReadySet) -> None:
        try:
            checked = [(r, datetime.fromisoformat(r.time)) for r in ready.readings]
            prediction = self._predictor.predict_checked(checked)
        except RbfError as error:
            self.counts["failed"] += 1
            log.warning("no prediction from readings", error=str(error))
            return
        self.counts["predicted"] += 1
        self.counts["degraded"] += bool(ready.degraded)
        self.counts["silent"] += bool(prediction.silent)
        record = as_record(prediction, ready.degraded)
        self._done(record, ready.instant)
        self.publish(record)

    def _done(self, record: PredictionRecord, instant: int) -> None:
        self._keep(record)
        for watcher in self._watchers:
            watcher.prediction(record, instant)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look_safely()
        self._look_safely()

    def _look_safely(self) -> None:
        try:
            self.look()
        except Exception:  # whatever comes from the field, the agent goes on
            self.counts["failed"] += 1
            log.exception("readings could not be looked at")


def as_record(prediction: Prediction, stand_ins: tuple[str, ...] = ()) -> PredictionRecord:
    """Return what is kept of a prediction from readings.

    Parameters
    ----------
    prediction : Prediction
    stand_ins : tuple of str
        ``SENSOR/QUANTITY`` whose last value was used.
    """
    return PredictionRecord(
        wall_time=prediction.wall_time,
        data_time=prediction.data_time,
        version=prediction.version,
        inputs=tuple(prediction.inputs[0].tolist()),
        sensors={name: s.wind_speed for name, s in prediction.sensors.items()},
        out_of_range=bool(prediction.out_of_range[0]),
        staleness_seconds=prediction.staleness_seconds,
        degraded=(*stand_ins, *(f"{name}{SILENT_MARK}" for name in prediction.silent)),
    )
