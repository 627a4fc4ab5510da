"""How readings become a row of a release's inputs: pure.

The feature map gives its own columns; the others are taken from their defaults. A release that
takes interior sensors has an *analysis*, which has seen their readings, and a *background* (the
word is data assimilation's), the same row with all of them silent: what it expects of the sensors
before they have spoken. Whatever compares prediction and reading needs the background. The
analysis is near the readings by its making, whether the release is any good or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_agent.columns import Columns
from edge_agent.contracts.features import SILENT, FeatureMap, sensor_column

#: Sensor and quantity.
Source = tuple[str, str]


class Sources(NamedTuple):
    """The readings that a release predicts from."""

    needed: frozenset[Source] = frozenset()
    """Without which there is no prediction."""
    optional: frozenset[Source] = frozenset()
    """Interior sensors: used where they are there."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensing:
    """From readings to the inputs of one release; made by `Sensing.of`."""

    feature_map: FeatureMap
    """The release's."""
    sources: Sources
    """What it reads."""
    inside: tuple[tuple[Source, int], ...]
    """Interior sensors in order, and the position of each one's column."""
    _base: np.ndarray
    """(n,) float32: the defaults, zero where there is none."""
    _mapped: list[int]
    """Positions of the feature map's columns."""

    @classmethod
    def of(cls, feature_map: FeatureMap, columns: Columns) -> Sensing:
        """Return how a release senses whose columns hold those of its feature map."""
        at = columns.names.index
        optional = [(s.sensor, s.quantity) for s in feature_map.optional]
        return cls(
            feature_map=feature_map,
            sources=Sources(
                frozenset((s.sensor, s.quantity) for s in feature_map.sources),
                frozenset(optional),
            ),
            inside=tuple((source, at(sensor_column(source[0]))) for source in optional),
            _base=np.array([columns.defaults.get(n, 0.0) for n in columns.names], np.float32),
            _mapped=[at(name) for name, _ in feature_map.columns],
        )

    def uses(self, source: Source) -> bool:
        """Whether a reading of that source is one to predict from."""
        return source in self.sources.needed or source in self.sources.optional

    def row(self, values: Mapping[Source, Sequence[float]]) -> np.ndarray:
        """Return the inputs of one averaging window, (n,) float32.

        Raises
        ------
        InvalidInput
            As the feature map does.
        """
        row = self._base.copy()
        row[self._mapped] = self.feature_map.from_sources(values)
        return row

    def silent(self, values: Mapping[Source, Sequence[float]]) -> tuple[str, ...]:
        """Return ``SENSOR/QUANTITY`` of the interior sensors of which there is no value."""
        return tuple("/".join(source) for source, _ in self.inside if not values.get(source))

    def background(self, row: np.ndarray) -> np.ndarray:
        """Return the inputs (n,) with all interior sensors silent."""
        found = row.copy()
        found[[at for _, at in self.inside]] = SILENT
        return found
