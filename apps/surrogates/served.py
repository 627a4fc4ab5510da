"""What serves: a surrogate, the distance to its runs, and, if asked for, interior sensors.

Any family's graph is taken as it is; steps are added before and behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apps.surrogates.assimilation import Assimilation
from apps.surrogates.base import INPUT, WIND, WIND_STD, Surrogate
from apps.surrogates.graph import Step, extended, renamed
from apps.surrogates.places import Places, distance_steps

if TYPE_CHECKING:
    import onnx

DISTANCE, INNOVATION = "distance", "innovation"
#: What the surrogate's own tensors are called where others take their names.
_INNER = {INPUT: "scenario", WIND: "scenario_wind", WIND_STD: "scenario_wind_std"}


@dataclass(frozen=True)
class Served:
    """A surrogate as devices get it."""

    surrogate: Surrogate
    places: Places
    runs: np.ndarray
    """(n, 2 + columns) float32: scenarios of the training runs."""
    shape: tuple[int, int, int]
    """(nz, ny, nx)."""
    assimilation: Assimilation | None = None
    """None: wind and state alone are taken."""

    @property
    def columns(self) -> int:
        """Columns of the input."""
        own = int(self.runs.shape[1])
        return own if self.assimilation is None else own + self.assimilation.sensors

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """Outputs beside the fields: one number a row."""
        return (DISTANCE,) if self.assimilation is None else (DISTANCE, INNOVATION)

    def predict(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output.

        Parameters
        ----------
        inputs : (n, columns) float32

        Returns
        -------
        dict
            ``wind`` and ``wind_std``, (n, 3, nz, ny, nx) float32, m/s; ``distance`` to the nearest
            run (`apps.surrogates.places`) and perhaps ``innovation``, (n,) float32.
        """
        scenario = inputs[:, : self.runs.shape[1]]
        found = {DISTANCE: self.places.apart(scenario, self.runs).min(axis=1).astype(np.float32)}
        if self.assimilation is None:
            wind, std = self.surrogate.predict(inputs)
        else:
            wind, std, found[INNOVATION] = self.assimilation.answer(inputs, self.surrogate.predict)
        return {WIND: wind, WIND_STD: std, **found}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph that computes the same."""
        from apps.surrogates.assimilation_onnx import analysis_steps, point_steps

        model = self.surrogate.to_onnx()
        behind, constants = distance_steps(self.places, self.runs, INPUT, DISTANCE)
        before: Sequence[Step] = ()
        a = self.assimilation
        if a is not None:
            model = renamed(model, _INNER)
            before, more = point_steps(a, INPUT, _INNER[INPUT])
            names = (INPUT, _INNER[WIND], _INNER[WIND_STD])
            steps, others = analysis_steps(a, self.shape, names, (WIND, WIND_STD, INNOVATION))
            behind, constants = [*behind, *steps], constants | more | others
        outputs: list[tuple[str, tuple[str | int, ...]]] = [
            (n, ("batch", 3, *self.shape)) for n in (WIND, WIND_STD)
        ]
        outputs += [(n, ("batch",)) for n in self.diagnostics]
        return extended(model, before, behind, constants, self.columns, outputs)
