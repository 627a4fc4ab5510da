"""The study's pure parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study import arrivals, openfoam
from benchmarks.study.bootstrap import compare, drawn
from benchmarks.study.moving import ALARM_DAYS, TEAR, TORN, WASHES, instant, log, true_state
from benchmarks.study.readings import Noise, made
from benchmarks.study.runs import Runs
from benchmarks.study.truth import (
    DEAR,
    FILE,
    FINE,
    SITE,
    TRAINING,
    frozen,
    load,
    replayed,
)
from edge_agent.contracts.site import Site
from workflows.maintenance import known

days = st.floats(0, 61)


@given(days, days)
def test_dust_gathers_and_only_a_wash_takes_it_off(a, b):
    early, late = sorted((a, b))
    washed = any(early < w <= late for w in WASHES)
    before, after = true_state(early), true_state(late)
    assert after.screen_loss_factor >= 1.0
    assert washed or after.screen_loss_factor >= before.screen_loss_factor
    assert after.canopy_factor >= before.canopy_factor


@given(days)
def test_people_learn_of_a_hole_after_the_alarm(day):
    news = known(log(), instant(24 * day))
    assert news.tears == ((TEAR,) if TORN[0] + ALARM_DAYS <= day < TORN[1] else ())
    assert not news.tears or true_state(day).tears
    washed = [w for w in WASHES if w <= day]
    if news.latest is not None and news.latest.kind == "washed":
        assert news.latest.at == instant(24 * washed[-1])


def test_a_grown_canopy_is_another_site():
    site = Site.from_toml(SITE)
    grown = true_state(40.0).site(site)
    assert grown.canopy[0].drag_area_density == pytest.approx(1.2 * 0.3)
    assert grown.content_digest() != site.content_digest()
    assert grown.panels == site.panels


def test_the_truth_is_what_it_says():
    truths = load()
    assert FILE.stat().st_size < 20e6
    for name in ("evaluation", "selection", "calibration"):
        truth = getattr(truths, name)
        wanted = [(s.wind_speed, s.wind_from_direction) for s in frozen(name)]
        np.testing.assert_allclose(truth.inputs, wanted)
        assert (truth.screen_loss_factor == 1).all()
        assert not truth.torn.any()
    assert len(truths.evaluation.inputs) >= 128
    for trained in (TRAINING, DEAR):
        assert all(f >= 2 * t for f, t in zip(FINE.cells, trained.cells, strict=True))
    replay = truths.replay
    moments = replayed(Site.from_toml(SITE))
    scenarios = {m.hours: m.scenario for m in moments}
    assert len(replay.hours) >= 0.99 * len(moments)
    for k in range(0, len(replay.hours), 37):
        here = scenarios[replay.hours[k]]
        wanted = (here.wind_speed, here.wind_from_direction)
        assert tuple(replay.inputs[k]) == pytest.approx(wanted)
        assert replay.screen_loss_factor[k] == pytest.approx(here.screen_loss_factor)
        assert replay.torn[k] == bool(here.tears)
    assert np.isfinite(replay.wind).all()
    assert np.abs(replay.wind).max() < 1.2 * replay.inputs[:, 0].max()


def test_what_is_shipped_is_restored_as_a_run(tmp_path):
    truth = load().selection
    runs = Runs(Site.from_toml(SITE), FINE, tmp_path)
    found = runs.load(runs.restore(frozen("selection", 3), truth.wind[:3]))
    np.testing.assert_array_equal(found.wind, truth.wind[:3])
    np.testing.assert_allclose(found.inputs, truth.inputs[:3], rtol=1e-6)
    assert runs.solver_seconds == 0


def test_readings_without_noise_are_the_truth_and_a_silent_sensor_is_silent():
    replay = load().replay
    site = Site.from_toml(SITE)
    exact = made(replay, site, Noise(0.0, 0.0, 0.0), 1, {2: 240.0})
    assert np.isfinite(exact.speed[:, :2]).all()
    assert np.isnan(exact.speed[replay.hours >= 240, 2]).all()
    assert np.isfinite(exact.speed[replay.hours < 240, 2]).all()
    noisy = made(replay, site, Noise(), 1)
    assert 0.05 < np.std(np.log(noisy.speed[:, 0] / exact.speed[:, 0])) < 0.3


@given(
    st.lists(st.floats(0, 200), min_size=1, max_size=20),
    st.lists(st.floats(0, 300), min_size=1, max_size=20),
)
def test_what_serves_has_arrived_and_is_the_newest_that_has(delays, hours):
    made_at = np.arange(1, len(delays) + 1) * 12.0
    arrives = made_at + np.array(delays)
    for hour, k in zip(hours, arrivals.in_service(np.array(hours), made_at, arrives), strict=True):
        there = [j for j in range(len(delays)) if arrives[j] <= hour]
        assert k == (max(there) if there else -1)


@pytest.mark.parametrize("cores", sorted(arrivals.PROBES))
def test_drawn_waits_are_within_the_published_ones(cores):
    waits = arrivals.published_waits(cores, 500, 1)
    low, high, _ = arrivals.PROBES[cores]
    assert low <= waits.min() <= waits.max() <= high
    assert (arrivals.published_waits(cores, 500, 1) == waits).all()


def test_more_cores_compute_sooner_and_wait_longer_on_the_kth_machine():
    assert arrivals.compute_seconds(16, 16) < arrivals.compute_seconds(16, 4)
    asked = [(12.0 * k, 7200.0) for k in range(1, 15)]
    few, many = (arrivals.kth_waits(asked, cores) for cores in (2, 64))
    assert (few >= 0).all()
    assert few.mean() < many.mean()


def test_blocks_are_blocks():
    index = drawn(100, 10, 5, 1)
    assert index.shape == (5, 100)
    assert ((index[:, 1:10] - index[:, :9]) % 100 == 1).all()


def test_paired_differences_know_what_is_common():
    rng = np.random.default_rng(1)
    weather = np.repeat(rng.gamma(1.0, 1.0, 60), 6)
    found = compare({"a": weather, "b": weather + 0.1}, "a", 4.0)
    assert found.against["a"].low == found.against["a"].high == 0
    assert found.against["b"].low > 0
    width = found.rmse["b"].high - found.rmse["b"].low
    assert found.against["b"].high - found.against["b"].low < width / 3


def test_intervals_of_an_autocorrelated_record_are_wider_in_blocks():
    weather = np.repeat(np.random.default_rng(2).gamma(1.0, 1.0, 60), 6)
    apart, together = (
        compare({"a": weather}, "a", 4.0, block_hours=hours).rmse["a"] for hours in (4.0, 72.0)
    )
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_openfoam_solved_the_first_of_the_evaluation_set():
    evaluation = load().evaluation
    wind = openfoam.load()
    assert wind.shape == (openfoam.COUNT, *evaluation.wind.shape[1:])
    # Another code on another grid, the same flow.
    fine = evaluation.wind[: openfoam.COUNT]
    assert np.corrcoef(wind.ravel(), fine.ravel())[0, 1] > 0.95
