"""How good a prediction is: pure functions of arrays.

Fields are (n, 3, nz, ny, nx), m/s, n scenarios on the site's output grid.
"""

from __future__ import annotations

import numpy as np

from apps.errors import ValidationError


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root mean square length of the error vector, m/s, over scenarios and cells."""
    error = np.asarray(predicted, float) - truth
    return float(np.sqrt((error**2).sum(axis=1).mean()))


def relative_l2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over scenarios of |error|_2 / |truth|_2, dimensionless."""
    flat = np.asarray(truth, float).reshape(len(truth), -1)
    error = np.asarray(predicted, float).reshape(len(truth), -1) - flat
    size = np.maximum(np.linalg.norm(flat, axis=1), np.finfo(float).tiny)
    return float((np.linalg.norm(error, axis=1) / size).mean())


def sensor_mae(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float | None:
    """Return the mean absolute error of wind speed at the sensors, m/s; none without sensors.

    Parameters
    ----------
    truth, predicted : fields
    weights : (sensors, nz ny nx) array
        From `edge_agent.contracts.geometry.interpolation_weights`.
    """
    if len(weights) == 0:
        return None
    speeds = [
        np.linalg.norm(np.asarray(f, float).reshape(len(f), 3, -1) @ weights.T, axis=1)
        for f in (truth, predicted)
    ]
    return float(np.abs(speeds[0] - speeds[1]).mean())


def coverage(truth: np.ndarray, wind: np.ndarray, std: np.ndarray, factor: float) -> float:
    """Return the share of values with |truth - wind| <= factor * std."""
    return float((np.abs(np.asarray(wind, float) - truth) <= factor * std).mean())


def conformal_factor(truth: np.ndarray, wind: np.ndarray, std: np.ndarray, level: float) -> float:
    """Return the factor that makes ``wind +- factor * wind_std`` cover `level`.

    Split conformal prediction (Lei et al. 2018, "Distribution-free predictive inference for
    regression", JASA 113:1094) with the score |error| / std: the k-th smallest of the N scores of
    the calibration set, k = ceil((N + 1) level). Scores are pooled over cells and components, since
    that is what an interval is asked about; values of one scenario are not independent, so `level`
    holds on average over calibration sets, not for each.

    Parameters
    ----------
    truth, wind, std : fields
    level : float, 0 to 1

    Returns
    -------
    float, > 0

    Raises
    ------
    ValidationError
        If there are too few values for the level.
    """
    scores = np.sort((np.abs(np.asarray(wind, float) - truth) / std).ravel())
    rank = int(np.ceil((len(scores) + 1) * level))
    if not 1 <= rank <= len(scores):
        msg = f"{len(scores)} calibration values cannot give a level of {level}"
        raise ValidationError(msg, level=level)
    return float(max(scores[rank - 1], np.finfo(np.float32).tiny))
