"""Loaded releases: the one that serves and the one before it.

A swap builds, checks and warms up the new release beside the old one, then changes one reference;
whoever reads the reference sees the old or the new release, whole. What serves is journalled after
the swap, so a crash at any point restarts into the old or the new one.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import structlog

from edge_agent.batching import Cost, fitted
from edge_agent.clock import Clock
from edge_agent.contracts.errors import GoldenMismatch, NoSuchRelease, ReleaseError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.release import Release
from edge_agent.inference import Model, load_model
from edge_agent.journal import ActiveState, Journal, Swap
from edge_agent.prediction import Prediction, SensorWind, instant
from edge_agent.promotion import held_after_rollback
from edge_agent.updates.store import StoredRelease, read_stored, stored_versions

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A loaded release, with everything an answer needs worked out beforehand."""

    version: int
    """The release's."""
    release: Release
    """Its manifest."""
    model: Model
    """Ready to run."""
    cost: Cost
    """What a run costs."""
    columns: tuple[str, ...]
    """Names of the inputs, in order."""
    column_list: list[str]
    """The same, as a list."""
    outputs: tuple[str, ...]
    """Names of the outputs, in order."""
    minimum: np.ndarray
    """(n,) float32: lower ends of the trained range."""
    maximum: np.ndarray
    """(n,) float32: upper ends."""
    limits: tuple[tuple[float, float], ...]
    """The same, as pairs."""
    sources: frozenset[tuple[str, str]]
    """(sensor, quantity) of the readings that the feature map needs."""
    sensor_names: tuple[str, ...]
    """Interior sensors."""
    sensor_weights: np.ndarray
    """(cells, sensors) float32: a flattened field times this gives the values at the sensors."""
    data_until: float | None
    """Data time of the newest reading behind the release, s since the Unix epoch."""
    interval_factor: float
    """Multiplies the standard deviation."""
    loaded_at: float
    """Wall time, s since the Unix epoch."""


#: Runs of each size, and rows of the larger size, from which a release's cost is worked out. Few,
#: because they take processor time from requests under way.
MEASURED_RUNS, MEASURED_ROWS = 2, 4
#: Below this, s, a run keeps the interpreter lock: giving it up for so short a time only lets
#: another thread take it, for up to a switch interval (p99 beside a busy thread: 93 us held, 190 us
#: not).
HOLD_LOCK_SECONDS = 5e-5


class Pair(NamedTuple):
    """What is loaded; replaced as a whole."""

    active: Slot | None
    previous: Slot | None


def load(stored: StoredRelease, *, now: float, warm_up_runs: int, objective: float = 0.0) -> Slot:
    """Build a slot: load the model, run the golden examples, warm up, measure.

    Parameters
    ----------
    stored : StoredRelease
    now : float, s since the Unix epoch
    warm_up_runs : int
    objective : float, s
        Longest run for which requests may be put together.

    Raises
    ------
    GoldenMismatch
        If the model does not reproduce its golden examples.
    ReleaseError
        If the model cannot be loaded or does not fit its manifest.
    """
    release = stored.release
    shape = (3, *release.grid.shape)
    model = load_model(
        stored.files["model.onnx"], len(release.inputs), {o.name: shape for o in release.outputs}
    )
    inputs = check_golden(stored, model)
    for _ in range(warm_up_runs):
        model.run(np.ascontiguousarray(inputs[:1]))
    cost = measure(model, inputs[0], objective)
    model.hold_lock(cost.first < HOLD_LOCK_SECONDS)
    points = np.array([s.position for s in release.sensors], dtype=float).reshape(-1, 3)
    until = release.training.data_until
    minimum = np.array([v.minimum for v in release.inputs], dtype=np.float32)
    maximum = np.array([v.maximum for v in release.inputs], dtype=np.float32)
    return Slot(
        version=release.version,
        release=release,
        model=model,
        cost=cost,
        columns=tuple(v.name for v in release.inputs),
        column_list=[v.name for v in release.inputs],
        outputs=tuple(o.name for o in release.outputs),
        minimum=minimum,
        maximum=maximum,
        limits=tuple(zip(minimum.tolist(), maximum.tolist(), strict=True)),
        sources=frozenset((s.sensor, s.quantity) for s in release.feature_map.sources),
        sensor_names=tuple(s.name for s in release.sensors),
        sensor_weights=np.ascontiguousarray(
            interpolation_weights(release.grid, points).T, dtype=np.float32
        ),
        data_until=None if until is None else instant(until),
        interval_factor=release.uncertainty.factor,
        loaded_at=now,
    )


def measure(model: Model, row: np.ndarray, objective: float) -> Cost:
    """Return what runs of one and of several rows cost.

    A model slower than the objective (s) is never run for several requests: it is not measured so.
    """

    def fastest(rows: int) -> float:
        inputs = np.tile(row, (rows, 1))
        times = []
        for _ in range(MEASURED_RUNS):
            began = time.perf_counter()
            model.run(inputs)
            times.append(time.perf_counter() - began)
        return min(times)

    one = fastest(1)
    if one > objective:
        return Cost(one, one)
    return fitted(one, fastest(MEASURED_ROWS), MEASURED_ROWS)


def check_golden(stored: StoredRelease, model: Model) -> np.ndarray:
    """Run the golden examples; return their inputs, (n, inputs) float32."""
    release, files = stored.release, stored.files
    inputs = _array(files["golden_inputs.npy"], release.version)
    if inputs.ndim != 2 or inputs.shape[1] != len(release.inputs) or not len(inputs):
        msg = f"golden inputs of release {release.version} have shape {inputs.shape}"
        raise GoldenMismatch(msg, version=release.version, output="inputs")
    try:
        found = model.run(np.ascontiguousarray(inputs))
    except Exception as error:  # whatever the engine raises, this release must not serve
        msg = f"release {release.version} fails on its golden examples: {error}"
        raise GoldenMismatch(msg, version=release.version, output=None) from error
    tolerance = release.golden.absolute_tolerance
    for name in release.golden.outputs:
        expected = _array(files[f"golden_{name}.npy"], release.version)
        shape = (len(inputs), 3, *release.grid.shape)
        if expected.shape != shape or found[name].shape != shape:
            msg = (
                f"release {release.version}: {name} has shape {found[name].shape}, "
                f"its golden examples {expected.shape}, its grid asks for {shape}"
            )
            raise GoldenMismatch(msg, version=release.version, output=name)
        worst = float(np.abs(found[name] - expected).max())
        if not worst <= tolerance:  # also when it is NaN
            msg = (
                f"release {release.version} misses its golden {name} by {worst:.3g}, "
                f"more than {tolerance:.3g}"
            )
            raise GoldenMismatch(msg, version=release.version, output=name, error=worst)
    return inputs


def at_sensors(slot: Slot, prediction: Prediction) -> dict[str, SensorWind]:
    """Return the wind at the interior sensors of a single-row prediction."""
    wind = prediction.wind[0].reshape(3, -1) @ slot.sensor_weights
    std = prediction.wind_std[0].reshape(3, -1) @ slot.sensor_weights
    speed = np.sqrt((wind**2).sum(axis=0))
    # First-order propagation of the components' deviations to the speed.
    along = np.abs(wind) / np.maximum(speed, 1e-6)
    speed_std = np.sqrt(((along * std) ** 2).sum(axis=0))
    return {
        name: SensorWind(s, d)
        for name, s, d in zip(slot.sensor_names, speed.tolist(), speed_std.tolist(), strict=True)
    }


def _array(data: bytes, version: int) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        msg = f"golden examples of release {version} are not an array file: {error}"
        raise GoldenMismatch(msg, version=version, output=None) from error
    return np.asarray(array, dtype=np.float32)


class Slots:
    """The active and the previous release; changed by one thread, read by any.

    Parameters
    ----------
    state : Path
        The agent's state folder.
    clock : Clock
    name : str
        Model name.
    warm_up_runs : int
    objective : float, s
        See `load`.
    journal_bytes : int
        Size at which the audit record is rotated.
    """

    def __init__(
        self,
        state: Path,
        clock: Clock,
        *,
        name: str,
        warm_up_runs: int,
        objective: float,
        journal_bytes: int,
    ) -> None:
        self.releases = state / "releases"
        self.journal = Journal(state, max_bytes=journal_bytes)
        self.pair = Pair(None, None)
        self.held: int | None = None
        self._retired: list[Slot] = []
        self._objective = objective
        self._clock = clock
        self._name = name
        self._warm_up_runs = warm_up_runs

    def restore(self) -> None:
        """Load what served last; failing that, the newest release that verifies; or nothing."""
        started = self._clock.now()
        state = self.journal.read_active()
        wanted = [] if state is None else [state.active, state.previous]
        self.held = None if state is None else state.held
        stored = stored_versions(self.releases)[::-1]
        # What was rolled back from is the last resort: a doubtful answer, but an answer.
        order = [v for v in wanted if v is not None]
        order += [v for v in stored if v != self.held] + [v for v in stored if v == self.held]
        slots: list[Slot] = []
        for version in dict.fromkeys(order):
            slot = self._try_load(version)
            if slot is not None:
                slots.append(slot)
            # The previous slot only comes from the journal: an old release nobody chose is no
            # place to roll back to.
            if slots and (len(slots) == 2 or version not in wanted[:1]):
                break
        if slots:
            previous = slots[1] if len(slots) == 2 and slots[1].version in wanted else None
            if self.held is not None and self.held <= slots[0].version:
                self.held = None
            self._swap(Pair(slots[0], previous), reason="restart", started=started)

    def promote(self, version: int, *, started: float) -> Slot:
        """Load a downloaded release and let it serve.

        Raises
        ------
        ReleaseError
            If it must not serve; what served goes on serving.
        OSError
            If the disk fails.
        """
        slot = self._load(version)
        failpoint("slots.loaded")
        if self.held is not None and self.held <= version:
            self.held = None
        self._swap(Pair(slot, self.pair.active), reason="release", started=started)
        return slot

    def rollback(self) -> Slot:
        """Let the previous release serve, and hold the one left.

        Raises
        ------
        NoSuchRelease
            If there is no previous release.
        OSError
            If the disk does not take the record.
        """
        active, previous = self.pair
        if active is None or previous is None:
            msg = "there is no previous release to roll back to"
            raise NoSuchRelease(msg, version=None)
        started = self._clock.now()
        self.held = held_after_rollback(self.held, left=active.version, now=previous.version)
        self._swap(Pair(previous, active), reason="rollback", started=started)
        return previous

    def free_retired(self) -> None:
        """Free the releases that were swapped out before the last look; on the caller's thread."""
        self._retired.clear()

    def find(self, version: int) -> Slot:
        """Return a loaded slot by version; `NoSuchRelease` if it is neither of the two."""
        for slot in self.pair:
            if slot is not None and slot.version == version:
                return slot
        loaded = ", ".join(str(s.version) for s in self.pair if s is not None) or "none"
        msg = f"release {version} is not loaded (loaded: {loaded})"
        raise NoSuchRelease(msg, version=version)

    def _swap(
        self, pair: Pair, *, reason: Literal["release", "rollback", "restart"], started: float
    ) -> None:
        before, active = self.pair.active, pair.active
        if active is None:
            msg = "a swap needs a release"
            raise ValueError(msg)
        failpoint("slots.before_swap")
        # Kept until `free_retired`: freeing a model takes up to a millisecond, and the last request
        # that uses it must not be the one to pay.
        self._retired += [s for s in self.pair if s is not None and s not in pair]
        self.pair = pair
        swapped = self._clock.now()
        failpoint("slots.after_swap")
        self.journal.write_active(
            ActiveState(
                active=active.version,
                previous=None if pair.previous is None else pair.previous.version,
                held=self.held,
            )
        )
        failpoint("slots.journalled")
        self.journal.swapped(
            Swap(
                version=active.version,
                from_version=None if before is None else before.version,
                reason=reason,
                loading_started_at=started,
                swapped_at=swapped,
                finished_at=self._clock.now(),
            )
        )

    def _load(self, version: int) -> Slot:
        stored = read_stored(self.releases / str(version), name=self._name)
        return load(
            stored,
            now=self._clock.now(),
            warm_up_runs=self._warm_up_runs,
            objective=self._objective,
        )

    def _try_load(self, version: int) -> Slot | None:
        try:
            return self._load(version)
        except (ReleaseError, OSError) as error:
            log.warning("release not restored", version=version, reason=str(error))
            return None
