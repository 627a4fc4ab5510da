"""Loaded releases: the one that serves, the one before it, and a candidate.

A swap builds, checks and warms up the new release beside the old one, then changes one reference;
whoever reads the reference sees the old or the new release, whole. Which release is to serve is
decided, and put on the disk before the swap, by `edge_agent.promotion`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog

from edge_agent.batching import Cost, fitted
from edge_agent.clock import Clock
from edge_agent.columns import Columns
from edge_agent.contracts.errors import NoSuchRelease, ReleaseError
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.release import Release
from edge_agent.golden import check_golden, output_shapes
from edge_agent.inference import Model, load_model
from edge_agent.prediction import SensorWind, instant
from edge_agent.sensing import Sensing
from edge_agent.updates.store import StoredRelease, read_stored

log = structlog.get_logger(__name__)


class Live:
    """What live traffic leaves with a release; see `edge_agent.shadow`."""

    __slots__ = ("failed", "rows")

    def __init__(self) -> None:
        self.rows: deque[list[float]] | None = None
        """Rows for a look at releases side by side; none while nothing is on trial."""
        self.failed = 0
        """Runs that ended in an error of the engine's."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A loaded release, with everything an answer needs worked out beforehand."""

    version: int
    """The release's."""
    release: Release
    """Its manifest."""
    manifest: str
    """sha256 of the manifest."""
    model: Model
    """Ready to run."""
    cost: Cost
    """What a run costs."""
    columns: Columns
    """The inputs, in order."""
    outputs: tuple[str, ...]
    """Names of the outputs, in order."""
    diagnostics: tuple[str, ...]
    """Those that are one number a row."""
    diagnostic_limits: tuple[tuple[str, float], ...]
    """Of diagnostics, by name: beyond it an answer counts as out of range."""
    minimum: np.ndarray
    """(n,) float32: lower ends of the trained range."""
    maximum: np.ndarray
    """(n,) float32: upper ends."""
    limits: tuple[tuple[float, float], ...]
    """The same, as pairs."""
    sensing: Sensing
    """How readings become inputs."""
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
    live: Live = field(default_factory=Live)
    """What traffic leaves here."""


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
    columns = Columns.of(release.inputs)
    model = load_model(stored.files["model.onnx"], len(columns.names), output_shapes(release))
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
        manifest=stored.ref.manifest.sha256,
        model=model,
        cost=cost,
        columns=columns,
        outputs=tuple(o.name for o in release.outputs),
        diagnostics=tuple(o.name for o in release.outputs if o.diagnostic),
        diagnostic_limits=_diagnostic_limits(release),
        minimum=minimum,
        maximum=maximum,
        limits=tuple(zip(minimum.tolist(), maximum.tolist(), strict=True)),
        sensing=Sensing.of(release.feature_map, columns),
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


def _diagnostic_limits(release: Release) -> tuple[tuple[str, float], ...]:
    # As singles, like what is compared with them.
    with np.errstate(over="ignore"):
        return tuple((n, float(np.float32(v))) for n, v in release.uncertainty.limits.items())


def at_sensors(slot: Slot, wind: np.ndarray, std: np.ndarray) -> dict[str, SensorWind]:
    """Return the wind at the interior sensors.

    Parameters
    ----------
    slot : Slot
    wind, std : (3, nz, ny, nx) float32, m/s
        A field and its standard deviation.
    """
    wind = wind.reshape(3, -1) @ slot.sensor_weights
    std = std.reshape(3, -1) @ slot.sensor_weights
    speed = np.sqrt((wind**2).sum(axis=0))
    # First-order propagation of the components' deviations to the speed.
    along = np.abs(wind) / np.maximum(speed, 1e-6)
    speed_std = np.sqrt(((along * std) ** 2).sum(axis=0))
    return {
        name: SensorWind(s, d)
        for name, s, d in zip(slot.sensor_names, speed.tolist(), speed_std.tolist(), strict=True)
    }


def sensor_speeds(slot: Slot, wind: np.ndarray) -> list[float]:
    """Return the wind speed at the interior sensors, m/s, of a field (3, z, y, x), m/s."""
    at = wind.reshape(3, -1) @ slot.sensor_weights
    speeds: list[float] = np.sqrt((at**2).sum(axis=0)).tolist()
    return speeds


class Slots:
    """The loaded releases; changed by one thread, read by any.

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
    """

    def __init__(
        self, state: Path, clock: Clock, *, name: str, warm_up_runs: int, objective: float
    ) -> None:
        self.releases = state / "releases"
        self.pair = Pair(None, None)
        self.candidate: Slot | None = None
        """The release in the shadow."""
        self._retired: list[Slot] = []
        self._objective = objective
        self._clock = clock
        self._name = name
        self._warm_up_runs = warm_up_runs

    @property
    def loaded(self) -> list[Slot]:
        """The active one, the previous one, the candidate."""
        return [s for s in (*self.pair, self.candidate) if s is not None]

    def swap(self, active: Slot, previous: Slot | None) -> None:
        """Let a loaded release serve; whoever was reading goes on with what it has."""
        pair = Pair(active, previous)
        # Kept until `free_retired`: freeing a model takes up to a millisecond, and the last request
        # that uses it must not be the one to pay.
        keep = (*pair, self.candidate)
        self._retired += [s for s in self.pair if s is not None and s not in keep]
        if self.candidate is active:
            self.candidate = None
        self.pair = pair

    def set_candidate(self, slot: Slot | None) -> None:
        """Put a release into the shadow, or take the one there out."""
        if self.candidate is not None:
            self._retired.append(self.candidate)
        self.candidate = slot

    def free_retired(self) -> None:
        """Free the releases that were let go of before the last look; on the caller's thread."""
        self._retired.clear()

    def find(self, version: int) -> Slot:
        """Return a loaded slot by version; `NoSuchRelease` if there is none."""
        for slot in self.loaded:
            if slot.version == version:
                return slot
        loaded = ", ".join(str(s.version) for s in self.loaded) or "none"
        msg = f"release {version} is not loaded (loaded: {loaded})"
        raise NoSuchRelease(msg, version=version)

    def load(self, version: int) -> Slot:
        """Load a release from the device's own disk, every byte verified; see `load`.

        Raises
        ------
        ReleaseError
            If it must not serve.
        OSError
            If it cannot be read.
        """
        stored = read_stored(self.releases / str(version), name=self._name)
        return load(
            stored,
            now=self._clock.now(),
            warm_up_runs=self._warm_up_runs,
            objective=self._objective,
        )

    def try_load(self, version: int) -> Slot | None:
        """Return a release that is loaded or can be, or none."""
        for slot in self.loaded:
            if slot.version == version:
                return slot
        try:
            return self.load(version)
        except (ReleaseError, OSError) as error:
            log.warning("release not loaded", version=version, reason=str(error))
            return None
