"""What a dear simulator says more than a cheap one: learnt from few pairs, added to many runs.

The discrepancy of a case, (dear - cheap) / wind speed, changes little from case to case, because
the two solvers differ in their turbulence more than in anything that a scenario sets. With few
pairs it is estimated as a weighted sum of the known ones; with more of them, and a site whose
mirrors are known, by the same Gaussian process that learns flows (`apps.surrogates.pod_gp`), as in
multi-fidelity kriging with a scale of one (Kennedy and O'Hagan 2000, Biometrika 87:1). Which it is,
and how the weights follow from the case, is chosen by leaving out one pair after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from apps.errors import DatasetError
from apps.simulation_set import SimulationSet

if TYPE_CHECKING:
    from apps.surrogates.base import Surrogate
    from edge_agent.contracts.site import Site

#: Ratio of wind speeds that counts as much as a radian of direction.
_RATIO = 4.0
#: Distance below which pairs count alike, radians.
_NEAR = 0.3
#: Ridge of the regression on the cheap fields, shares of their mean square.
_RIDGES = (0.03, 0.3, 3.0)
#: A candidate must be better than a simpler one by this share.
_WORTH = 0.02
#: Raised when the numbers change: part of the digest of what was learnt from corrected runs.
VERSION = "2"
PROCESS = "process"
#: Fewest pairs that a Gaussian process is learnt from, one left out.
_FEWEST = 6

Weights = Callable[["_Cases", "_Cases"], np.ndarray]


@dataclass(frozen=True)
class _Cases:
    """Cases as the weights see them."""

    places: np.ndarray
    """(n, 3) direction as a unit vector, logarithm of the wind speed."""
    fields: np.ndarray
    """(n, m) cheap wind over the wind speed."""

    @classmethod
    def of(cls, data: SimulationSet) -> _Cases:
        angle = np.deg2rad(data.wind_from_direction)
        speed = np.log(data.wind_speed) / np.log(_RATIO)
        return cls(np.stack([np.cos(angle), np.sin(angle), speed], axis=1), _normalised(data))

    def take(self, index: np.ndarray) -> _Cases:
        return _Cases(self.places[index], self.fields[index])


@dataclass(frozen=True)
class Discrepancy:
    """A fitted discrepancy; `fit_discrepancy` makes one."""

    method: str
    """How the weights follow from the case."""
    scores: dict[str, float]
    """Error of each method where one pair was left out: relative L2 of the wind speed; empty for
    a single pair."""
    low_digests: tuple[str, ...]
    """The cheap runs that it was learnt from."""
    high_digests: tuple[str, ...]
    """The dear runs that it was learnt from."""
    _known: _Cases
    _fields: np.ndarray
    _process: Surrogate | None = None

    @property
    def left_out(self) -> float | None:
        """Error of the chosen method where one pair was left out; none for a single pair."""
        return self.scores.get(self.method)

    def predict(self, low: SimulationSet) -> np.ndarray:
        """Return what is to be added to cheap runs, (n, 3, nz, ny, nx) in m/s."""
        if self._process is not None:
            return self._process.predict(low.inputs)[0]
        weights = _METHODS[self.method](self._known, _Cases.of(low))
        added = (weights @ self._fields).reshape(low.wind.shape)
        return np.asarray(added * low.wind_speed[:, None, None, None, None], dtype=np.float32)

    def apply(self, low: SimulationSet) -> SimulationSet:
        """Return cheap runs as the dear simulator would see them; the digests stay.

        Raises
        ------
        DatasetError
            If they are on another grid.
        """
        if int(np.prod(low.wind.shape[1:])) != self._fields.shape[1]:
            msg = f"runs shaped {low.wind.shape[1:]} are not on the grid of the discrepancy"
            raise DatasetError(msg)
        return replace(low, wind=low.wind + self.predict(low))


def fit_discrepancy(
    low: SimulationSet, high: SimulationSet, site: Site | None = None
) -> Discrepancy:
    """Learn the discrepancy of two simulators from runs of the same scenarios.

    Parameters
    ----------
    low, high : SimulationSet
        The cheap and the dear runs, in the same order; a single pair's discrepancy is everyone's.
    site : Site, optional
        Whose mirrors are used; without it a Gaussian process is not tried.

    Raises
    ------
    DatasetError
        If there is no pair, or the runs do not match.
    """
    _check(low, high)
    cases, fields = _Cases.of(low), _normalised(high) - _normalised(low)
    scores: dict[str, float] = {}
    method = "mean"
    if len(fields) > 1:
        scores = {name: _left_out(weights, cases, fields) for name, weights in _METHODS.items()}
        method = "none"
        if site is not None and len(fields) >= _FEWEST:
            scores[PROCESS] = _process_left_out(low, high, site)
        for name, score in scores.items():
            if score < (1 - _WORTH) * scores[method]:
                method = name
    process = None
    if method == PROCESS and site is not None:
        process = _process(low, high, site)
    return Discrepancy(method, scores, low.digests, high.digests, cases, fields, process)


def errors(runs: SimulationSet, truth: SimulationSet) -> np.ndarray:
    """Return the relative L2 error of the wind speed of each run, (n,)."""
    return _errors(_normalised(runs), _normalised(truth))


def error_table(
    discrepancy: Discrepancy, low: SimulationSet, high: SimulationSet
) -> list[dict[str, float | str]]:
    """Return the error of cheap runs against held-out dear ones, before and after.

    Returns
    -------
    list of dict
        One per run: ``digest``, ``wind_speed`` (m/s), ``wind_from_direction`` (degrees), ``before``
        and ``after`` (relative L2 of the wind speed).

    Raises
    ------
    DatasetError
        If the runs do not match, or one of them was learnt from.
    """
    _check(low, high)
    if seen := set(high.digests) & set(discrepancy.high_digests):
        msg = f"{len(seen)} of the held-out runs were learnt from"
        raise DatasetError(msg)
    before, after = errors(low, high), errors(discrepancy.apply(low), high)
    columns = (high.digests, low.wind_speed, low.wind_from_direction, before, after)
    return [
        {
            "digest": digest,
            "wind_speed": float(speed),
            "wind_from_direction": float(direction),
            "before": float(one),
            "after": float(other),
        }
        for digest, speed, direction, one, other in zip(*columns, strict=True)
    ]


def _none(known: _Cases, asked: _Cases) -> np.ndarray:
    return np.zeros((len(asked.places), len(known.places)))


def _mean(known: _Cases, asked: _Cases) -> np.ndarray:
    return np.full((len(asked.places), len(known.places)), 1.0 / len(known.places))


def _nearest(known: _Cases, asked: _Cases) -> np.ndarray:
    """Weight by inverse square distance in direction and speed."""
    apart = ((asked.places[:, None] - known.places[None]) ** 2).sum(axis=-1)
    weights = 1.0 / (apart + _NEAR**2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _regression(ridge: float) -> Weights:
    """Return weights of a ridge regression of the discrepancy on the cheap field.

    It is done in the space that the known fields span, so a few pairs are enough; whatever changes
    the flow, wind, dust or a tear, is in its field.
    """

    def weights(known: _Cases, asked: _Cases) -> np.ndarray:
        n = len(known.fields)
        middle = known.fields.mean(axis=0)
        spread, other = known.fields - middle, asked.fields - middle
        gram = spread @ spread.T
        scale = float(np.trace(gram)) / n
        if scale == 0.0:
            return _mean(known, asked)
        slope = np.linalg.solve(gram + ridge * scale * np.eye(n), spread @ other.T).T
        # The mean discrepancy, plus the slope acting on deviations from it.
        return np.asarray(1.0 / n + slope - slope.mean(axis=1, keepdims=True))

    return weights


#: From simple to less so.
_METHODS: dict[str, Weights] = {
    "none": _none,
    "mean": _mean,
    "nearest": _nearest,
    **{f"regression {ridge:g}": _regression(ridge) for ridge in _RIDGES[::-1]},
}


def _left_out(weights: Weights, cases: _Cases, fields: np.ndarray) -> float:
    """Return the mean error of a method over pairs that it has not seen."""
    everyone = np.arange(len(fields))
    found = []
    for k in everyone:
        rest, one = np.delete(everyone, k), everyone[k : k + 1]
        guess = weights(cases.take(rest), cases.take(one)) @ fields[rest]
        truth = cases.fields[one] + fields[one]
        found.append(_errors(cases.fields[one] + guess, truth)[0])
    return float(np.mean(found))


def _process(low: SimulationSet, high: SimulationSet, site: Site) -> Surrogate:
    from apps.surrogates.pod_gp import Settings, fit

    apart = replace(low, wind=high.wind - low.wind)
    return fit(apart, site, Settings(minimum_runs=4), 0)


def _process_left_out(low: SimulationSet, high: SimulationSet, site: Site) -> float:
    """Return the mean error of a Gaussian process over pairs that it has not seen."""
    everyone, found = np.arange(len(low.digests)), []
    for k in everyone:
        rest, one = np.delete(everyone, k), everyone[k : k + 1]
        asked = low.take(one)
        added = _process(low.take(rest), high.take(rest), site).predict(asked.inputs)[0]
        guess = replace(asked, wind=asked.wind + added)
        found.append(errors(guess, high.take(one))[0])
    return float(np.mean(found))


def _errors(runs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the relative L2 error of the wind speed, (n,), of fields shaped (n, 3 * cells)."""
    one, other = (np.linalg.norm(f.reshape(len(f), 3, -1), axis=1) for f in (runs, truth))
    return np.asarray(np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1))


def _normalised(data: SimulationSet) -> np.ndarray:
    flat = data.wind.reshape(len(data.wind), -1).astype(float)
    return np.asarray(flat / data.wind_speed[:, None])


def _check(low: SimulationSet, high: SimulationSet) -> None:
    if len(low.digests) == 0 or low.wind.shape != high.wind.shape:
        msg = f"runs shaped {low.wind.shape} and {high.wind.shape} are no pairs"
        raise DatasetError(msg)
    same = np.array_equal(low.wind_speed, high.wind_speed)
    same = same and np.array_equal(low.wind_from_direction, high.wind_from_direction)
    if not same or not np.array_equal(low.state, high.state):
        msg = "cheap and dear runs are of other winds or states, or in another order"
        raise DatasetError(msg)
