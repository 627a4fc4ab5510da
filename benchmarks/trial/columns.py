"""Runs as the trial's models saw them, and the POD basis that most of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from apps.simulation_set import SimulationSet
from apps.space import WIDE, Space
from apps.surrogates.symmetry import mirror_field, mirror_scenarios, symmetries
from edge_agent.contracts.site import Panel, Site

#: Wind of some runs, (n, 3, nz, ny, nx) in m/s. What a run's own wind is may be looked at through
#: the readings of the site's sensors alone.
Predict = Callable[[SimulationSet], np.ndarray]
#: Trains on some runs of a site.
Fit = Callable[[SimulationSet, Site], Predict]


@dataclass(frozen=True)
class Columns:
    """The trial's numbers of a run, scaled by their means and deviations in training.

    Cosine and sine of the direction, logarithms of losses and drag, which wall is torn, the hole's
    place on it from its middle, and its width; the wind speed, too, where it is not always the
    same, which it was in the trial.
    """

    bearing: float
    """Compass bearing of the house's +x axis, degrees."""
    space: Space
    panels: tuple[Panel, ...]
    """Those that may be torn."""
    speeds: bool
    """Whether the wind speed is a column."""
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, data: SimulationSet, site: Site) -> Columns:
        """Return the columns of a training set."""
        named = {p.name: p for p in site.panels}
        plain = cls(
            bearing=site.footprint.x_axis_bearing,
            space=data.space,
            panels=tuple(named[name] for name in data.space.panels),
            speeds=bool(np.ptp(data.wind_speed) > 0),
            mean=np.zeros(1),
            spread=np.ones(1),
        )
        x = plain.raw(data.inputs)
        # So small a number beside the deviation is the trial's, as are all others here.
        return cls(**{**vars(plain), "mean": x.mean(axis=0), "spread": x.std(axis=0) + 1e-3})

    @property
    def lengths(self) -> np.ndarray:
        """(panels,) m."""
        return np.array([p.end[0] - p.start[0] for p in self.panels])

    def raw(self, inputs: np.ndarray) -> np.ndarray:
        """Return the columns, not scaled, of inputs (n, 2 + columns of the space).

        The last ones are of the hole: as many as there are panels, its place, its width.
        """
        inputs = np.asarray(inputs, float)
        angle = np.deg2rad(self.bearing - 180.0 - inputs[:, 1])
        found = [np.cos(angle), np.sin(angle)]
        if self.speeds:
            found.append(inputs[:, 0])
        found += [s.scaled(inputs[:, 2 + j]) for j, s in enumerate(self.space.scalars)]
        if self.panels:
            panel, centre, width = inputs[:, 2 + len(self.space.scalars) :].T[:, :, None]
            torn = np.abs(panel - np.arange(1, len(self.panels) + 1)) < 0.5
            starts = np.array([p.start[0] for p in self.panels])
            place = torn * ((centre - starts) / self.lengths - 0.5)
            found += [*torn.T.astype(float), place.sum(axis=1), width[:, 0] / WIDE]
        return np.stack(found, axis=1)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return the scaled columns, (n, columns) float64."""
        return (self.raw(inputs) - self.mean) / self.spread


@dataclass(frozen=True)
class Modes:
    """POD of the fields over the wind speed."""

    centre: np.ndarray
    modes: np.ndarray
    """(r, d)."""
    coefficients: np.ndarray
    """(n, r) of the training runs."""
    shape: tuple[int, ...]
    """(3, nz, ny, nx)."""

    @classmethod
    def of(cls, data: SimulationSet, most: int) -> Modes:
        """Return at most so many modes of some runs."""
        fields = over_speed(data)
        centre = fields.mean(axis=0)
        modes = np.linalg.svd(fields - centre, full_matrices=False)[2]
        modes = modes[: min(len(fields) - 1, most)]
        return cls(centre, modes, (fields - centre) @ modes.T, data.wind.shape[1:])

    def wind(self, coefficients: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """Return the wind, (n, 3, nz, ny, nx) m/s, of coefficients (n, r)."""
        fields = np.asarray(coefficients, float) @ self.modes + self.centre
        return (fields * speed[:, None]).reshape(-1, *self.shape)


def over_speed(data: SimulationSet) -> np.ndarray:
    """Return the fields over the wind speed, (n, d) float64."""
    return data.wind.reshape(len(data.wind), -1).astype(float) / data.wind_speed[:, None]


def mirrored(data: SimulationSet, site: Site) -> SimulationSet:
    """Return the runs and their images in the site's mirrors: four for one at most."""
    group = symmetries(site)
    inputs = np.concatenate([mirror_scenarios(data.inputs, site, data.space, m) for m in group])
    return SimulationSet(
        digests=tuple(f"{d}/{k}" for k in range(len(group)) for d in data.digests),
        wind_speed=inputs[:, 0],
        wind_from_direction=inputs[:, 1],
        wind=np.concatenate([mirror_field(data.wind, m) for m in group]),
        state=inputs[:, 2:],
        space=data.space,
    )
