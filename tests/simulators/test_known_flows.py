"""Flows with known answers; docs/validation.md has the whole comparison."""

import numpy as np
import pytest

from benchmarks.validation.houses import rotation_error, solve, square_house, torn
from benchmarks.validation.known import cavity_error
from benchmarks.validation.setups import duct, pressure_drop, settle


def test_duct_screen_loses_k_dynamic_pressures():
    """Uniform flow through a screen across the whole duct: dp = K U^2 / 2 by definition.

    Cases have all of K in its constant part, all in its viscous part, or half and half.
    """
    losses = np.array([0.5, 1.0, 4.0, 10.0, 40.0])
    viscous = np.repeat([0.0, 0.5, 1.0], 5)
    k = np.tile(losses, 3)
    for end, loss in zip(settle(duct(k * viscous, k * (1 - viscous)), 1e-5, 2000), k, strict=True):
        assert pressure_drop(end) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("angle", [30, 45])
def test_a_screen_acts_on_the_normal_velocity(angle):
    (end,) = settle(duct([0.0], [4.0], angle), 1e-5, 2000)
    assert pressure_drop(end) == pytest.approx(4 * np.cos(np.deg2rad(angle)) ** 2, rel=1e-3)


def test_cavity_at_re_100():
    """Ghia, Ghia and Shin 1982, both centrelines."""
    error, _ = cavity_error(64, 100, 1e-3)
    assert np.sqrt(np.mean(error**2)) <= 0.005


def test_turning_house_tear_and_wind_turns_the_answer():
    assert rotation_error((20, 20, 8)) <= 1e-5


def test_speed_is_a_factor_at_constant_loss_alone():
    two = [torn(250, "x0", 30).model_copy(update={"wind_speed": s}) for s in (2.0, 5.0)]
    one, other = (r.wind for r in solve(square_house((0.0, 3.0)), two, (16, 16, 6), 1e-2))
    assert np.linalg.norm(other - one) <= 1e-5 * np.linalg.norm(one)
    one, other = (r.wind for r in solve(square_house((6.0, 3.0)), two, (16, 16, 6), 1e-2))
    assert np.linalg.norm(other - one) >= 0.05 * np.linalg.norm(one)
