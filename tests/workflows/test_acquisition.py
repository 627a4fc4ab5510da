import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.acquisition import (
    choose,
    reach_of,
    relative_cost,
    separation,
    success,
    weather_frequency,
    worth,
)

SPEEDS = (0.5, 14.0)
FOUR = ((False, False), (True, False), (False, True), (True, True))
ONE = ((False, False),)
NONE = np.empty((0, 2))


def winds(seed, n):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(*SPEEDS, n), rng.uniform(0, 360, n)], axis=1)


@given(st.integers(0, 1000), st.floats(0, 360))
def test_distance_is_a_distance_and_knows_the_mirrors(seed, bearing):
    points = winds(seed, 6)
    between = separation(points, points, SPEEDS, FOUR, bearing)
    assert np.allclose(between, between.T)
    assert np.allclose(np.diag(between), 0, atol=1e-9)
    image = points.copy()
    image[:, 1] = (2 * bearing - image[:, 1]) % 360  # across the house's x axis
    assert np.allclose(np.diag(separation(points, image, SPEEDS, FOUR, bearing)), 0, atol=1e-6)
    apart = np.abs((points[:, 1] - image[:, 1] + 180) % 360 - 180)
    assert np.allclose(np.diag(separation(points, image, SPEEDS, ONE, bearing)), apart / 360)


def test_the_whole_range_has_unit_area():
    ends = np.array([[SPEEDS[0], 0.0], [SPEEDS[1], 0.0], [SPEEDS[0], 180.0]])
    between = separation(ends, ends, SPEEDS, ONE, 0.0)
    assert between[0, 1] == pytest.approx(1.0)
    assert between[0, 2] == pytest.approx(0.5)


def test_frequent_weather_counts_more_and_fresh_weather_most():
    points = np.array([[3.0, 90.0], [3.0, 270.0], [12.0, 0.0]])
    past = np.array([[3.0, 90.0]] * 20 + [[3.0, 270.0]] * 20)
    ages = np.array([100.0] * 20 + [0.0] * 20)
    east, west, storm = weather_frequency(points, past, ages, 12.0)
    assert west > east > storm
    assert np.mean([east, west, storm]) == pytest.approx(1.0)
    assert (weather_frequency(points, NONE, np.empty(0), 12.0) == 1).all()


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
    between = separation(points, points, SPEEDS, FOUR, 0.0)
    chosen = choose(worth, between, np.empty((10, 0)), count, reach_of(runs))
    assert len(set(chosen)) == len(chosen) == min(count, 10)
    if chosen:
        assert chosen[0] == np.argmax(worth)


def test_what_is_being_simulated_is_not_chosen_again():
    points = np.array([[2.0, 10.0], [2.0, 100.0]])
    between = separation(points, points, SPEEDS, ONE, 0.0)
    taken = separation(points, points[:1], SPEEDS, ONE, 0.0)
    assert choose(np.array([5.0, 1.0]), between, taken, 1, 0.1) == [1]


def test_neighbours_of_a_choice_wait():
    points = np.array([[2.0, 10.0], [2.0, 10.5], [2.0, 200.0]])
    between = separation(points, points, SPEEDS, ONE, 0.0)
    assert choose(np.array([3.0, 2.9, 1.0]), between, np.empty((3, 0)), 2, 0.1) == [0, 2]
