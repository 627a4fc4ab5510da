"""Simulations of one site in memory, as trainings and scores take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from apps.space import WIND, Space


@dataclass(frozen=True)
class SimulationSet:
    """Simulations of one site on its output grid."""

    digests: tuple[str, ...]
    """In the order asked for."""
    wind_speed: np.ndarray
    """(n,) float64, m/s, at the site's reference height."""
    wind_from_direction: np.ndarray
    """(n,) float64, degrees."""
    wind: np.ndarray
    """(n, 3, nz, ny, nx) float32, m/s."""
    state: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """(n, columns) float64: the state of the house, in the columns of `space`."""
    space: Space = WIND
    """What the columns of `state` are."""

    def __post_init__(self) -> None:
        if not self.space.columns:  # no columns need not be given
            object.__setattr__(self, "state", np.empty((len(self.digests), 0)))

    @property
    def inputs(self) -> np.ndarray:
        """(n, 2 + columns) float32: wind speed, direction and state, as a surrogate takes them."""
        wind = np.stack([self.wind_speed, self.wind_from_direction], axis=1)
        return np.concatenate([wind, self.state], axis=1).astype(np.float32)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `inputs`."""
        return ("wind_speed", "wind_from_direction", *(name for name, _ in self.space.columns))

    def take(self, index: np.ndarray | slice) -> SimulationSet:
        """Return some of the simulations, in the order of `index`."""
        return SimulationSet(
            digests=tuple(np.array(self.digests, dtype=object)[index]),
            wind_speed=self.wind_speed[index],
            wind_from_direction=self.wind_from_direction[index],
            wind=self.wind[index],
            state=self.state[index],
            space=self.space,
        )


def joined(sets: Sequence[SimulationSet]) -> SimulationSet:
    """Return several sets of one space as one."""
    return SimulationSet(
        digests=tuple(d for s in sets for d in s.digests),
        wind_speed=np.concatenate([s.wind_speed for s in sets]),
        wind_from_direction=np.concatenate([s.wind_from_direction for s in sets]),
        wind=np.concatenate([s.wind for s in sets]),
        state=np.concatenate([s.state for s in sets]),
        space=sets[0].space,
    )
