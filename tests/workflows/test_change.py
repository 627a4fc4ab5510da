import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.change import (
    ChangeTest,
    as_series,
    block_means,
    mean_time_between,
    resampled,
    run,
    tune,
)


def record(days, seed=0, shift_at=None, shift=0.0):
    """Ten-minute winds with a daily course and an autocorrelation of hours."""
    rng = np.random.default_rng(seed)
    n = days * 144
    slow = np.zeros((n, 2))
    for i in range(1, n):
        slow[i] = 0.97 * slow[i - 1] + 0.24 * rng.standard_normal(2)
    east, north = 4 + 2 * np.sin(np.arange(n) * 2 * np.pi / 144) + slow[:, 0], slow[:, 1]
    if shift_at is not None:
        east[shift_at * 144 :] += shift
    speed, direction = np.hypot(east, north), np.degrees(np.arctan2(east, north)) % 360
    return np.arange(n) * 600.0, np.stack([speed, direction], axis=1)


def means(days, **options):
    seconds, winds = record(days, **options)
    return block_means(seconds, as_series(winds), 3.0)


TUNED = tune(means(40), run_length_days=7.0, replicates=60)


def test_the_stated_run_length_holds_on_weather_like_that_it_was_tuned_on():
    other = resampled(means(40, seed=7), 3.0, 28.0, 3, 60, seed=3)
    assert 4.0 < mean_time_between(TUNED, other) < 14.0


def test_a_lasting_change_is_found():
    alarms = run(TUNED, means(20, seed=3, shift_at=10, shift=6.0)).alarms
    found = alarms[alarms >= 80]
    assert len(found)
    assert found[0] < 80 + 16, "within two days"


def test_a_new_regime_is_no_further_change():
    alarms = run(TUNED, means(40, seed=3, shift_at=10, shift=6.0)).alarms
    assert len(alarms[alarms > 100]) <= 6, "about as often as the run length says"


def test_it_is_no_alarm_to_stand_still():
    assert not len(run(TUNED, np.ones((500, 3))).alarms)
    assert not len(run(TUNED, np.empty((0, 3))).alarms)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True))
def test_blocks_without_values_take_the_last_ones(minutes):
    seconds = np.sort(np.array(minutes)) * 600.0
    found = block_means(seconds, seconds[:, None], 3.0)
    first, last = seconds[0] // 10_800, seconds[-1] // 10_800
    assert len(found) == last - first + 1
    assert np.isfinite(found).all()
    here = seconds[seconds // 10_800 == last]
    assert found[-1, 0] == pytest.approx(here.mean())


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_what_comes_later_changes_no_alarm(seed):
    values = np.random.default_rng(seed).normal(0, 3, (60, 3)).cumsum(axis=0)
    test = ChangeTest(deviation=(1.0, 1.0, 1.0), threshold=10.0, run_length_days=7.0)
    whole, part = run(test, values).alarms, run(test, values[:40]).alarms
    assert list(whole[whole < 40]) == list(part)


def test_strength_and_bearing():
    series = as_series(np.array([[4.0, 90.0], [9.0, 180.0]]))
    assert np.allclose(series, [[2.0, 2.0, 0.0], [3.0, 0.0, -3.0]], atol=1e-12)
