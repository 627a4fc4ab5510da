"""The estimator of the screens' state: against a table whose answer is known."""

import numpy as np
import pytest

from apps.errors import StageError
from apps.site_state import (
    DIRECTIONS,
    FACTORS,
    INFLATION,
    SPEEDS,
    LossTable,
    combine,
    estimate,
    sensor_gains,
)
from edge_agent.contracts.site_state import SiteState


@pytest.fixture(scope="module")
def table():
    # Speed falls with loss as behind a screen: 1 / (1 + K / 4), K = 3 f; sensors see shares of it.
    through = 1 / (1 + 0.75 * np.array(FACTORS))
    turn = 1 + 0.3 * np.cos(np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS)
    speed = np.einsum("f,s,d,k->fsdk", through, SPEEDS, turn, (0.9, 0.6, 0.4))
    return LossTable(np.array(FACTORS), np.array(SPEEDS), speed)


@pytest.fixture
def winds():
    rng = np.random.default_rng(3)
    return np.stack([rng.uniform(2, 8, 40), rng.uniform(0, 360, 40)], axis=1)


def measured(table, winds, factor):
    nodes = np.log(table.factors)
    known = np.log(table.predict(winds))
    rows = [[np.interp(np.log(factor), nodes, known[i, :, k]) for k in range(3)] for i in range(40)]
    return np.exp(rows)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.3, 2.4])
def test_it_finds_the_factor(table, winds, factor):
    found = estimate(table, winds, measured(table, winds, factor))
    assert found.screen_loss_factor == pytest.approx(factor, rel=0.01)
    assert found.readings == 120
    assert found.log_error is not None


def test_noise_moves_it_by_about_what_it_says(table, winds):
    rng = np.random.default_rng(5)
    off, said = [], []
    for _ in range(50):
        noisy = measured(table, winds, 1.3) * np.exp(0.1 * rng.normal(size=(40, 3)))
        found = estimate(table, winds, noisy)
        off.append(np.log(found.screen_loss_factor / 1.3))
        said.append(found.log_error)
    assert abs(np.mean(off)) < 0.05
    assert 0.5 < np.std(off) / np.mean(said) * np.sqrt(INFLATION) < 2.0


def test_a_sensor_that_is_gone_is_left_out(table, winds):
    some = measured(table, winds, 1.3)
    some[:, 1] = np.nan
    some[3, 0] = 0.01  # calm: says nothing
    found = estimate(table, winds, some)
    assert found.screen_loss_factor == pytest.approx(1.3, rel=0.01)
    assert found.readings == 79


def test_gains_are_learnt_while_the_screens_are_new(table, winds):
    wrong = np.array([1.1, 0.9, 1.05])
    gains = sensor_gains(table, winds, measured(table, winds, 1.0) * wrong)
    assert gains == pytest.approx(np.log(wrong), abs=1e-6)
    found = estimate(table, winds, measured(table, winds, 1.7) * wrong, gains=gains)
    assert found.screen_loss_factor == pytest.approx(1.7, rel=0.01)


def test_nothing_to_go_by_is_said(table, winds):
    with pytest.raises(StageError, match="cannot be estimated"):
        estimate(table, winds, np.full((40, 3), np.nan))


def state(factor, error):
    return SiteState(screen_loss_factor=factor, log_error=error)


def test_two_estimates_weigh_by_their_errors():
    both = combine(state(1.0, 0.1), state(2.0, 0.1), days=0.0)
    assert both.screen_loss_factor == pytest.approx(2**0.5)
    assert both.log_error == pytest.approx(0.1 / 2**0.5)
    assert combine(state(1.0, 0.1), state(2.0, 1e-6), 0.0).screen_loss_factor == pytest.approx(2.0)
    assert combine(state(1.0, 1e-6), state(2.0, 0.1), 0.0).screen_loss_factor == pytest.approx(1.0)
    # The older what was known, the less it counts.
    later = combine(state(1.0, 0.1), state(2.0, 0.1), days=10.0)
    assert later.screen_loss_factor > both.screen_loss_factor


def test_an_estimate_without_an_error_counts_for_nothing():
    kept = combine(state(1.3, 0.1), state(2.0, None), days=1.0)
    assert kept.screen_loss_factor == pytest.approx(1.3)
    assert kept.log_error > 0.1
    assert combine(state(1.3, None), state(2.0, 0.1), 1.0).screen_loss_factor == pytest.approx(2.0)
    assert combine(state(1.3, None), state(2.0, None), 1.0).log_error is None
