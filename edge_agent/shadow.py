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

from edge_agent.contracts.errors import ReleaseError
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
    columns : sequence of str
        What the rows hold, in order.
    settings : PromotionSettings
    """

    def __init__(
        self, slot: Slot, other: Slot, columns: Sequence[str], settings: PromotionSettings
    ) -> None:
        self.slot, self.other = slot, other
        self._orders = (_order(slot, columns), _order(other, columns))
        self._limit = settings.latency_ms / 1e3
        self._same_grid = slot.release.grid == other.release.grid
        self._turn = 0

    @property
    def possible(self) -> bool:
        """Whether both take inputs that the rows hold."""
        return all(order is not None for order in self._orders)

    def row(self, row: Sequence[float]) -> Evidence:
        """Return what one live row shows; nothing if the other release cannot answer it."""
        found, others = self._runs(row)
        if others.outputs is None:
            return Evidence()
        if found.outputs is None:
            return Evidence(compared=1, errors=1)
        slow = found.seconds > max(self._limit, SLOWER * others.seconds)
        differed, difference = 0, 0.0
        if self._same_grid and self._in_range(row):
            theirs = others.outputs["wind"]
            size = float(np.linalg.norm(theirs))
            if size > 0:
                differed = 1
                difference = float(np.linalg.norm(found.outputs["wind"] - theirs)) / size
        return Evidence(compared=1, slow=int(slow), differed=differed, difference=difference)

    def measured(self, row: Sequence[float], speeds: Mapping[str, float]) -> Evidence:
        """Return what measurements in the house show; see `row`."""
        names = [n for n in self.slot.sensor_names if n in speeds and n in self.other.sensor_names]
        found, others = self._runs(row)
        if not names or others.outputs is None:
            return Evidence()
        if found.outputs is None:
            return Evidence(errors=1)
        worse = _error(self.slot, found.outputs, speeds, names) - _error(
            self.other, others.outputs, speeds, names
        )
        return Evidence(measured=1, worse=worse, worse_squares=worse**2)

    def _runs(self, row: Sequence[float]) -> tuple[_Run, _Run]:
        # In turns, so that neither always has the warm caches.
        self._turn ^= 1
        both = list(zip((self.slot, self.other), self._orders, strict=True))
        runs = [_run(slot, order, row) for slot, order in both[:: 1 if self._turn else -1]]
        first, second = runs[:: 1 if self._turn else -1]
        return first, second

    def _in_range(self, row: Sequence[float]) -> bool:
        return all(
            low <= row[i] <= high
            for slot, order in zip((self.slot, self.other), self._orders, strict=True)
            for i, (low, high) in zip(order or (), slot.limits, strict=True)
        )


def samples(*, shadow: bool) -> deque[list[float]]:
    """Return a ring for live rows."""
    return deque(maxlen=SHADOW_ROWS if shadow else SOAK_ROWS)


def _order(slot: Slot, columns: Sequence[str]) -> list[int] | None:
    try:
        return [columns.index(name) for name in slot.columns]
    except ValueError:
        return None


def _run(slot: Slot, order: list[int] | None, row: Sequence[float]) -> _Run:
    inputs = np.array([[row[i] for i in order or ()]], np.float32)
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
