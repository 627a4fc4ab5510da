"""Interior sensors as inputs: what they read corrects what the scenario says.

A surrogate that takes wind and state is asked at points around what it is told: the wind of the
mast and the estimated state have errors. What it expects at the sensors in each is compared with
what they read, and the fields are weighed anew: the analysis step of an ensemble Kalman filter.

- Points: the cubature rule of third degree, 2 d points at sqrt(d) standard errors along each of the
  d uncertain quantities (Arasaratnam and Haykin 2009, "Cubature Kalman filters", IEEE Trans. Autom.
  Control 54:1254), log-normal in the loss factor and the wind speed.
- Analysis: one sensor after the other, the ensemble's deviations by the square-root update without
  perturbed observations (Whitaker and Hamill 2002, "Ensemble data assimilation without perturbed
  observations", Mon. Weather Rev. 130:1913), in the weights of the points: fields are combined
  once, at the end.
- Observed is ln of the speed. Its error variance is s^2 + e^2 / m^2 (delta method; s relative, e
  absolute error of a reading m), and that of the surrogate's own standard deviation there.
- A sensor that is silent has no weight. With all silent the answer is the mean over the points.

The variance of the answer is the mean of the surrogate's over the points, and what the analysis
leaves of their spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from apps.errors import TrainingError
from apps.space import LOSS_FACTOR, Space
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.release import ReadingErrors

if TYPE_CHECKING:
    from apps.surrogates.base import Predictor

#: Speeds below this are taken for it before the logarithm, m/s.
FLOOR = 0.05


@dataclass(frozen=True)
class Assimilation:
    """How interior sensors are taken in."""

    errors: ReadingErrors
    factors: np.ndarray
    """(points, columns): what each point multiplies the scenario's columns with."""
    shifts: np.ndarray
    """(points, columns): what it adds to them."""
    weights: np.ndarray
    """(cells, sensors): a flattened field times this gives the values at the sensors."""

    @classmethod
    def of(cls, space: Space, errors: ReadingErrors, weights: np.ndarray) -> Assimilation:
        """Return the assimilation of a surrogate that takes `space`.

        Parameters
        ----------
        space : Space
        errors : ReadingErrors
        weights : (sensors, cells) array
            From `edge_agent.contracts.geometry.interpolation_weights`.

        Raises
        ------
        TrainingError
            If there is no sensor, or nothing of the scenario is uncertain.
        """
        if not len(weights):
            msg = "the site has no interior sensors; take the signature of wind alone"
            raise TrainingError(msg)
        names = ["wind_speed", "wind_from_direction", *(name for name, _ in space.columns)]
        uncertain = [
            (names.index(name), error)
            for name, error in (
                (LOSS_FACTOR, errors.screen_loss),
                ("wind_speed", errors.mast_speed),
                ("wind_from_direction", errors.mast_direction),
            )
            if error > 0 and name in names
        ]
        if not uncertain:
            msg = (
                "nothing that the interior sensors could correct: give the scenarios a range of "
                "screen_loss_factor, or the mast an error"
            )
            raise TrainingError(msg)
        count, reach = 2 * len(uncertain), np.sqrt(len(uncertain))
        factors, shifts = np.ones((count, len(names))), np.zeros((count, len(names)))
        for k, ((column, error), side) in enumerate(product(uncertain, (1.0, -1.0))):
            if names[column] == "wind_from_direction":
                shifts[k, column] = side * reach * error
            else:
                factors[k, column] = np.exp(side * reach * error)
        return cls(errors, factors, shifts, np.asarray(weights, float).T)

    @property
    def columns(self) -> int:
        """Columns of a scenario."""
        return int(self.factors.shape[1])

    @property
    def points(self) -> int:
        """Number of points."""
        return len(self.factors)

    @property
    def sensors(self) -> int:
        """Number of sensors."""
        return int(self.weights.shape[1])

    def answer(
        self, inputs: np.ndarray, predict: Predictor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return wind, standard deviation and innovation; what the exported graph computes.

        Parameters
        ----------
        inputs : (n, columns + sensors) float32
            Scenario, then the speed that each sensor reads (m/s) or `SILENT`.
        predict : callable
            The surrogate.

        Returns
        -------
        wind, wind_std : (n, 3, nz, ny, nx) float32, m/s
        innovation : (n,) float32
            Root mean square, over the sensors that read, of what they read less what is expected,
            in standard deviations; nought if all are silent.
        """
        n, k = len(inputs), self.points
        scenario, read = np.split(np.asarray(inputs, np.float32), [self.columns], axis=1)
        asked = scenario[:, None] * self.factors + self.shifts
        fields, std = predict(asked.reshape(n * k, -1).astype(np.float32))
        shape = fields.shape[1:]
        fields, std = fields.reshape(n * k, 3, -1), std.reshape(n * k, 3, -1)
        speeds = np.linalg.norm(fields @ self.weights, axis=1)
        own = np.linalg.norm(std @ self.weights, axis=1) / np.maximum(speeds, FLOOR)
        expected = np.log(np.maximum(speeds, FLOOR)).reshape(n, k, -1)
        model = (own**2).reshape(n, k, -1).mean(axis=1)
        share, mixing, innovation = self._analysis(expected, model, read.astype(float))
        fields = fields.reshape(n, k, -1).astype(float)
        wind = np.einsum("nk,nkd->nd", share, fields)
        left = np.einsum("nkj,nkd->njd", mixing, fields)
        variance = (std.reshape(n, k, -1).astype(float) ** 2).mean(axis=1) + (left**2).mean(axis=1)
        return (
            wind.reshape(n, *shape).astype(np.float32),
            np.sqrt(variance).reshape(n, *shape).astype(np.float32),
            innovation.astype(np.float32),
        )

    def _analysis(
        self, expected: np.ndarray, model: np.ndarray, read: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weights (n, k), what makes deviations (n, k, k), and innovations (n,)."""
        n, k, sensors = expected.shape
        middle = expected.mean(axis=1)
        deviations = expected - middle[:, None]
        moved, mixing = np.zeros((n, k)), np.tile(np.eye(k), (n, 1, 1))
        squares = np.zeros(n)
        there = (read > SILENT / 2).astype(float)
        held = np.maximum(read, FLOOR)
        noise = self.errors.sensor_relative**2 + (self.errors.sensor_absolute / held) ** 2 + model
        for i in range(sensors):
            ours = np.einsum("nk,nkj->nj", deviations[:, :, i], mixing)
            total = (ours**2).mean(axis=1) + noise[:, i]
            away = np.log(held[:, i]) - middle[:, i] - (deviations[:, :, i] * moved).sum(axis=1)
            gain = np.einsum("nkj,nj->nk", mixing, ours) / k * (there[:, i] / total)[:, None]
            moved = moved + gain * away[:, None]
            shrink = 1.0 / (1.0 + np.sqrt(noise[:, i] / total))
            mixing = mixing - shrink[:, None, None] * gain[:, :, None] * ours[:, None]
            squares = squares + there[:, i] * away**2 / total
        centred = mixing - mixing.mean(axis=1, keepdims=True)
        share = 1.0 / k + moved - moved.mean(axis=1, keepdims=True)
        return share, centred, np.sqrt(squares / np.maximum(there.sum(axis=1), 1.0))
