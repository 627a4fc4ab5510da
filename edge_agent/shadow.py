"""Live inputs, kept for a look at two releases side by side, away from the requests.

The path of a request does one thing for this: while something is on trial it appends the row it
has just checked to a bounded ring. A row that nobody gets to is pushed out by newer ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import structlog

from edge_agent.columns import Columns
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.features import SILENT
from edge_agent.settings import PromotionSettings
from edge_agent.slots import Slot, sensor_speeds
from edge_agent.trial import SLOWER, Evidence

log = structlog.get_logger(__name__)

#: Live rows waiting to be looked at: in a shadow, and for a soak alone, which lasts longer.
SHADOW_ROWS, SOAK_ROWS = 64, 2
#: Predictions with measurements that wait to be looked at.
MEASURED_ROWS = 256


class Measured(NamedTuple):
    """A prediction's inputs, and what was measured in the house at that time."""

    version: int
    """Release that predicted: says which inputs these are."""
    row: tuple[float, ...]
    """Its inputs."""
    speeds: Mapping[str, float]
    """Wind speed at interior sensors, m/s."""


class _Run(NamedTuple):
    outputs: dict[str, np.ndarray] | None
    """None if it failed or some value is not finite."""
    seconds: float


class Beside:
    """A release on trial beside another one.

    Parameters
    ----------
    slot : Slot
        The release on trial.
    other : Slot
        What it is compared with.
    columns : Columns
        What the rows hold: those of the release that answered.
    settings : PromotionSettings
    """

    def __init__(
        self, slot: Slot, other: Slot, columns: Columns, settings: PromotionSettings
    ) -> None:
        self.slot, self.other = slot, other
        self._both = (_Own(slot, columns), _Own(other, columns))
        self._limit = settings.latency_ms / 1e3
        self._same_grid = slot.release.grid == other.release.grid
        self._turn = 0

    @property
    def possible(self) -> bool:
        """Whether the rows hold all that either needs."""
        return all(own.possible for own in self._both)

    def row(self, row: Sequence[float]) -> Evidence:
        """Return what one live row shows; nothing if the other release cannot answer it."""
        rows = [own.inputs(row) for own in self._both]
        found, others = self._runs(rows)
        if others.outputs is None:
            return Evidence()
        if found.outputs is None:
            return Evidence(compared=1, errors=1)
        slow = found.seconds > max(self._limit, SLOWER * others.seconds)
        differed, difference = 0, 0.0
        if self._same_grid and self._in_range(rows):
            theirs = others.outputs["wind"]
            size = float(np.linalg.norm(theirs))
            if size > 0:
                differed = 1
                difference = float(np.linalg.norm(found.outputs["wind"] - theirs)) / size
        return Evidence(compared=1, slow=int(slow), differed=differed, difference=difference)

    def measured(self, row: Sequence[float], speeds: Mapping[str, float]) -> Evidence:
        """Return what measurements in the house show; see `row`.

        Neither release sees them: with interior sensors among its inputs it would be praised for
        repeating what it was told.
        """
        names = [n for n in self.slot.sensor_names if n in speeds and n in self.other.sensor_names]
        found, others = self._runs([own.background(row) for own in self._both])
        if not names or others.outputs is None:
            return Evidence()
        if found.outputs is None:
            return Evidence(errors=1)
        worse = _error(self.slot, found.outputs, speeds, names) - _error(
            self.other, others.outputs, speeds, names
        )
        return Evidence(measured=1, worse=worse, worse_squares=worse**2)

    def _runs(self, rows: Sequence[Sequence[float]]) -> tuple[_Run, _Run]:
        # In turns, so that neither always has the warm caches.
        self._turn ^= 1
        both = list(zip((self.slot, self.other), rows, strict=True))
        runs = [_run(slot, row) for slot, row in both[:: 1 if self._turn else -1]]
        first, second = runs[:: 1 if self._turn else -1]
        return first, second

    def _in_range(self, rows: Sequence[Sequence[float]]) -> bool:
        return all(
            low <= value <= high
            for slot, row in zip((self.slot, self.other), rows, strict=True)
            for value, (low, high) in zip(row, slot.limits, strict=True)
        )


class _Own:
    """How a row of one release's columns becomes another's inputs.

    A column that the row lacks takes its default. So does one that holds the default of the release
    that answered: nobody gave it, and a release whose estimate of the house's state has moved is to
    be judged with its own.
    """

    def __init__(self, slot: Slot, columns: Columns) -> None:
        own, names = slot.columns.defaults, columns.names
        self.possible = all(name in names for name in slot.columns.required)
        self._base = [own.get(name, 0.0) for name in slot.columns.names]
        self._taken = [
            (i, names.index(name), columns.defaults.get(name) if name in own else None)
            for i, name in enumerate(slot.columns.names)
            if name in names
        ]
        self._inside = [at for _, at in slot.sensing.inside]

    def inputs(self, row: Sequence[float]) -> list[float]:
        """Return the inputs; `possible` must hold."""
        found = self._base.copy()
        for i, at, theirs in self._taken:
            if row[at] != theirs:
                found[i] = row[at]
        return found

    def background(self, row: Sequence[float]) -> list[float]:
        """Return the inputs with all interior sensors silent."""
        found = self.inputs(row)
        for at in self._inside:
            found[at] = SILENT
        return found


def samples(*, shadow: bool) -> deque[list[float]]:
    """Return a ring for live rows."""
    return deque(maxlen=SHADOW_ROWS if shadow else SOAK_ROWS)


def _run(slot: Slot, row: Sequence[float]) -> _Run:
    inputs = np.array([row], np.float32)
    began = time.perf_counter()
    try:
        outputs = slot.model.run(inputs)
    except ReleaseError as error:
        log.warning("a run beside failed", version=slot.version, reason=str(error))
        return _Run(None, 0.0)
    seconds = time.perf_counter() - began
    finite = all(bool(np.isfinite(array).all()) for array in outputs.values())
    return _Run(outputs if finite else None, seconds)


def _error(
    slot: Slot, outputs: Mapping[str, np.ndarray], speeds: Mapping[str, float], names: list[str]
) -> float:
    """Return the mean absolute error of the wind speed at sensors, m/s."""
    found = dict(zip(slot.sensor_names, sensor_speeds(slot, outputs["wind"][0]), strict=True))
    return float(np.mean([abs(found[n] - speeds[n]) for n in names]))
