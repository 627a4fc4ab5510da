"""The discrepancy of two solvers, on fields whose discrepancy is known."""

import numpy as np
import pytest

from apps.discrepancy import error_table, errors, fit_discrepancy
from apps.errors import DatasetError
from apps.simulation_set import SimulationSet

SHAPE = (3, 2, 3, 4)
RNG = np.random.default_rng(7)
EAST, NORTH, BIAS, TURN = RNG.normal(size=(4, *SHAPE)) * [
    [[[[1]]]],
    [[[[1]]]],
    [[[[0.1]]]],
    [[[[0.1]]]],
]


def runs(name, speeds, directions, wind):
    speeds, directions = np.asarray(speeds, float), np.asarray(directions, float)
    fields = np.stack([wind(s, np.deg2rad(d)) for s, d in zip(speeds, directions, strict=True)])
    digests = tuple(
        f"{name}{k}{s}{d}" for k, (s, d) in enumerate(zip(speeds, directions, strict=True))
    )
    return SimulationSet(digests, speeds, directions, fields.astype(np.float32))


def cheap(speed, angle):
    return speed * (EAST * np.sin(angle) + NORTH * np.cos(angle) + 2)


def pair(speeds, directions, turns):
    def dear(speed, angle):
        return cheap(speed, angle) + speed * (BIAS + turns * TURN * np.sin(angle))

    return runs("low", speeds, directions, cheap), runs("high", speeds, directions, dear)


def test_one_pair_is_everyones():
    low, high = pair([4.0], [30], 0.0)
    fitted = fit_discrepancy(low, high)
    assert (fitted.method, fitted.scores) == ("mean", {})
    others, truth = pair([2.0, 8.0], [200, 300], 0.0)
    assert errors(others, truth).min() > 0.02
    assert errors(fitted.apply(others), truth).max() < 1e-5
    assert fitted.apply(others).digests == others.digests


def test_a_discrepancy_that_follows_the_wind_is_regressed():
    low, high = pair([1.0, 3, 5, 2, 8, 4], [0, 60, 120, 180, 240, 300], 1.0)
    fitted = fit_discrepancy(low, high)
    assert fitted.method.startswith("regression")
    assert fitted.scores[fitted.method] < 0.5 * fitted.scores["mean"]
    others, truth = pair([6.0, 2.5], [30, 200], 1.0)
    table = error_table(fitted, others, truth)
    assert [r["wind_speed"] for r in table] == [6.0, 2.5]
    assert all(r["after"] < 0.4 * r["before"] for r in table)


def test_noise_is_not_learnt():
    noise = np.random.default_rng(3)
    low, _ = pair([1.0, 3, 5, 2], [0, 60, 120, 180], 0.0)
    wild = noise.normal(size=low.wind.shape) * low.wind_speed[:, None, None, None, None]
    high = SimulationSet(
        tuple("abcd"), low.wind_speed, low.wind_from_direction, (low.wind + wild).astype(np.float32)
    )
    fitted = fit_discrepancy(low, high)
    assert fitted.scores[fitted.method] <= fitted.scores["none"]


def test_what_is_no_pair_is_refused():
    low, high = pair([4.0, 5.0], [30, 60], 0.0)
    other, _ = pair([4.0, 5.0], [30, 61], 0.0)
    empty, _ = pair([4.0, 5.0], [30, 60], 0.0)
    with pytest.raises(DatasetError, match="other winds"):
        fit_discrepancy(other, high)
    one = SimulationSet(
        low.digests[:1], low.wind_speed[:1], low.wind_from_direction[:1], low.wind[:1]
    )
    with pytest.raises(DatasetError, match="no pairs"):
        fit_discrepancy(one, high)
    fitted = fit_discrepancy(low, high)
    with pytest.raises(DatasetError, match="learnt from"):
        error_table(fitted, low, high)
    small = SimulationSet(
        empty.digests, empty.wind_speed, empty.wind_from_direction, empty.wind[..., :2]
    )
    with pytest.raises(DatasetError, match="grid of the discrepancy"):
        fitted.apply(small)
