from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.space import WIND, space_of
from apps.surrogates.places import Places
from apps.surrogates.symmetry import symmetries
from edge_agent.contracts.site_state import SiteState, Tear
from workflows.acquisition import (
    choose,
    reach_of,
    relative_cost,
    spread_out,
    state_frequency,
    success,
    weather_frequency,
    worth,
)
from workflows.config import Campaign

SPEEDS = (0.5, 14.0)
NONE = np.empty((0, 2))


SITE = Campaign(name="t").load_site(Path("t.toml"))


def apart(a, b, mirrors=((False, False),)):
    return Places(SITE, WIND, mirrors, SPEEDS, ()).apart(a, b)


def winds(seed, n):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(*SPEEDS, n), rng.uniform(0, 360, n)], axis=1)


def test_frequent_weather_counts_more_and_fresh_weather_most():
    points = np.array([[3.0, 90.0], [3.0, 270.0], [12.0, 0.0]])
    past = np.array([[3.0, 90.0]] * 20 + [[3.0, 270.0]] * 20)
    ages = np.array([100.0] * 20 + [0.0] * 20)
    east, west, storm = weather_frequency(points, past, ages, 12.0)
    assert west > east > storm
    assert np.mean([east, west, storm]) == pytest.approx(1.0)
    assert (weather_frequency(points, NONE, np.empty(0), 12.0) == 1).all()


def test_states_near_the_estimate_count_more_and_so_does_a_known_tear():
    space = space_of(SITE, loss=True, tears=True)
    west = 1 + space.panels.index("west")
    states = np.array([[1.4, 0, 0, 0], [1.4, west, 27, 20], [0.6, west, 27, 20], [1.4, 2, 27, 20]])
    now = SiteState(screen_loss_factor=1.4, tears=(Tear(panel="west", centre=27, width=20),))
    whole, torn, clean, elsewhere = state_frequency(states, space, now)
    assert torn > max(whole, clean, elsewhere)
    assert whole == pytest.approx(elsewhere)
    alike = state_frequency(states[[0, 1, 3]], space, SiteState(screen_loss_factor=1.4))
    np.testing.assert_allclose(alike, 1.0)
    assert (state_frequency(np.empty((3, 0)), WIND, now) == 1).all()


def test_a_hole_is_worth_more_than_a_neighbourhood():
    same, often = np.ones(2), np.array([1.0, 2.0])
    near, far = worth(same, same, np.array([[0.1, 0.5], [0.4, 0.5]]))
    assert far == pytest.approx(16 * near)
    assert list(worth(same, often, np.empty((2, 0)))) == [1.0, 2.0]


def test_failures_tell_of_their_neighbourhood():
    near, far = np.array([[0.01], [3.0]]), np.array([[3.0], [3.0]])
    chance = success(far, near, 0.1)
    assert chance[0] == pytest.approx(0.5, abs=0.01)
    assert chance[1] == pytest.approx(1.0)
    assert success(near, near, 0.1)[0] > chance[0], "runs that ended well speak against it"


def test_dear_neighbourhoods_cost():
    to_done = np.array([[0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
    cheap, dear, unknown = relative_cost(to_done, np.array([1.0, 3.0]), 0.1)
    assert cheap < unknown < dear
    assert unknown == pytest.approx(1.0)
    assert (relative_cost(to_done, np.zeros(2), 0.1) == 1).all()


@given(st.integers(0, 1000), st.integers(0, 12), st.integers(1, 100))
def test_choices_differ_and_the_best_comes_first(seed, count, runs):
    points = winds(seed, 10)
    worth = np.random.default_rng(seed).uniform(0.1, 1, 10)
    between = apart(points, points, symmetries(SITE))
    chosen = choose(worth, between, np.empty((10, 0)), count, reach_of(runs))
    assert len(set(chosen)) == len(chosen) == min(count, 10)
    if chosen:
        assert chosen[0] == np.argmax(worth)


def test_what_is_being_simulated_is_not_chosen_again():
    points = np.array([[2.0, 10.0], [2.0, 100.0]])
    between = apart(points, points)
    taken = apart(points, points[:1])
    assert choose(np.array([5.0, 1.0]), between, taken, 1, 0.1) == [1]


def test_neighbours_of_a_choice_wait():
    points = np.array([[2.0, 10.0], [2.0, 10.5], [2.0, 200.0]])
    between = apart(points, points)
    assert choose(np.array([3.0, 2.9, 1.0]), between, np.empty((3, 0)), 2, 0.1) == [0, 2]


@given(st.integers(0, 99), st.integers(1, 20), st.integers(0, 5))
def test_a_start_covers_within_twice_of_the_best(seed, count, runs):
    """Gonzalez's bound: what was chosen lies as far apart as the farthest point lies from it."""
    points, done = winds(seed, 40), winds(seed + 1000, runs)
    between, to_runs = apart(points, points), apart(points, done)
    best = spread_out(np.ones(40), between, to_runs, count, 2)
    assert len(set(best)) == count
    left = np.concatenate([between[:, best], to_runs], axis=1).min(axis=1).max()
    spacing = between[np.ix_(best, best)] + np.diag(np.full(count, np.inf))
    assert spacing.min() >= left - 1e-12
    if runs:
        assert to_runs[best].min() >= left - 1e-12


def test_a_start_is_dense_where_the_weather_goes():
    points = winds(3, 400)
    often = np.where(points[:, 1] < 90.0, 9.0, 0.5)
    best = spread_out(often, apart(points, points), np.empty((400, 0)), 40, 2)
    assert points[best[0], 1] < 90.0
    # Spacing a fourth as wide or so: most of the runs in a quarter of the space, but not all.
    assert 20 <= (points[best, 1] < 90.0).sum() < 40
