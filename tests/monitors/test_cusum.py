import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.monitors.cusum import BlockMean, Cusum
from edge_agent.monitors.runlength import (
    alarms,
    cusum_paths,
    drawn_days,
    mean_run_length,
    threshold_for,
)
from edge_agent.monitors.series import block_means, tune

HOUR_US = 3_600_000_000
STEP_US = 600_000_000


def autoregressive(n, phi, seed, shift=0.0, at=0):
    """Unit variance, lag-1 correlation phi, shifted from `at` on."""
    noise = np.random.default_rng(seed).normal(size=n) * np.sqrt(1 - phi**2)
    x = np.empty(n)
    x[0] = noise[0]
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    x[at:] += shift
    return x


def test_block_means_are_those_of_the_blocks():
    block = BlockMean(3600.0)
    ends = [block.add(n * STEP_US, float(n)) for n in range(13)]
    assert [e for e in ends if e is not None] == [2.5, 8.5]


def test_late_values_and_thin_blocks_are_left_out():
    block = BlockMean(3600.0, at_least=2)
    assert block.add(2 * HOUR_US, 1.0) is None
    assert block.add(HOUR_US, 100.0) is None
    assert block.add(3 * HOUR_US, 1.0) is None
    assert block.add(3 * HOUR_US, 3.0) is None
    assert block.add(4 * HOUR_US, 0.0) == 2.0


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=60), st.floats(0, 1))
def test_the_sum_is_that_of_the_stretch_that_makes_it_largest(values, slack):
    cusum = Cusum(slack, threshold=1e6)
    for value in values:
        cusum.update(value)
    stretches = [sum(v - slack for v in values[k:]) for k in range(len(values))]
    assert cusum.high == pytest.approx(max(0.0, *stretches), abs=1e-9)
    stretches = [sum(-v - slack for v in values[k:]) for k in range(len(values))]
    assert cusum.low == pytest.approx(max(0.0, *stretches), abs=1e-9)


def test_an_alarm_ends_after_its_cause_has():
    cusum = Cusum(0.5, 4.0)
    assert not any(cusum.update(0.0) for _ in range(50))
    assert [cusum.update(-2.0) for _ in range(4)] == [False, False, True, True]
    told = [cusum.update(0.0) for _ in range(20)]
    assert told[0]
    assert not told[-1]


def test_drawn_days_hang_together():
    chosen = drawn_days(10, 7, 50, np.random.default_rng(0), together=3)
    assert chosen.shape == (50, 7)
    steps = (np.diff(chosen, axis=1) % 10)[:, [0, 1, 3, 4]]
    assert (steps == 1).all()


def test_run_lengths_of_a_known_test():
    """Independent increments that pass with chance p a step: the mean run length is 1 / p."""
    rng = np.random.default_rng(1)
    statistic = (rng.random((4000, 200)) < 0.02).astype(float)
    assert mean_run_length(statistic, 0.5, 1.0) == pytest.approx(50, rel=0.05)
    assert mean_run_length(statistic, 1.5, 1.0) == np.inf
    statistic = rng.normal(size=(4000, 200))
    threshold = threshold_for(statistic, 100.0, 1.0)
    assert threshold == pytest.approx(2.326, abs=0.03)  # the normal 99 % point


def test_paths_and_alarms_follow_the_recursion():
    increments = np.array([[[1.0], [-3.0]], [[2.0], [2.0]]])
    chosen = np.array([[0, 1, 1]])
    assert cusum_paths(increments, chosen)[0, :, 0].tolist() == [1, 0, 2, 4, 6, 8]
    assert alarms(increments, chosen, 3.5).tolist() == [2]


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_a_tuned_sum_keeps_its_run_length_on_data_that_hang_together(phi):
    days, a_day = 60, 144
    instant = np.arange(days * a_day) * STEP_US
    tuned = tune(
        instant,
        autoregressive(days * a_day, phi, 3),
        block_seconds=21_600.0,
        run_length_days=60.0,
        replicates=100,
    )
    false = 0
    for seed in range(10, 14):
        cusum = Cusum(tuned.slack, tuned.threshold)
        _, means = block_means(instant, autoregressive(days * a_day, phi, seed), 21_600.0)
        standing = [cusum.update((m - tuned.mean) / tuned.deviation) for m in means]
        false += np.sum(np.diff([0, *standing]) == 1)
    assert false <= 12  # four records of one run length each
    cusum = Cusum(tuned.slack, tuned.threshold)
    shifted = autoregressive(days * a_day, phi, 20, shift=1.5, at=days * a_day // 2)
    _, means = block_means(instant, shifted, 21_600.0)
    standing = [cusum.update((m - tuned.mean) / tuned.deviation) for m in means]
    half = len(means) // 2
    assert any(standing[half : half + 4 * 10])


class TestBesideRiver:
    """The stock detectors take samples as independent; ours does not need them to be."""

    @pytest.fixture
    def river(self):
        return pytest.importorskip("river.drift", reason="river is in the extra [dev]")

    def false_alarms(self, detector, values):
        count = 0
        for value in values:
            detector.update(float(value))
            count += detector.drift_detected
        return count

    def ours(self, values, tuned):
        cusum, count, stood = Cusum(tuned.slack, tuned.threshold), 0, False
        _, means = block_means(np.arange(len(values)) * STEP_US, values, tuned.block_seconds)
        for mean in means:
            standing = cusum.update((mean - tuned.mean) / tuned.deviation)
            count += standing and not stood
            stood = standing
        return count

    def tuned(self):
        record = autoregressive(8640, 0.96, 0)
        return tune(np.arange(8640) * STEP_US, record, block_seconds=21_600.0, replicates=100)

    def test_on_data_like_the_mast_river_cries_wolf_and_we_do_not(self, river):
        values = autoregressive(20_000, 0.96, 5)
        theirs = [self.false_alarms(make(), values) for make in (river.ADWIN, river.PageHinkley)]
        assert min(theirs) > 30
        assert self.ours(values, self.tuned()) <= 1

    def test_on_the_same_block_means_both_find_the_same_shift(self, river):
        tuned = self.tuned()
        values = autoregressive(20_000, 0.96, 6, shift=2.0, at=10_000)
        _, means = block_means(np.arange(20_000) * STEP_US, values, tuned.block_seconds)
        score = (means - tuned.mean) / tuned.deviation
        half = 10_000 * 600 // 21_600
        page = river.PageHinkley(
            min_instances=20, delta=tuned.slack, threshold=tuned.threshold, alpha=1.0
        )
        cusum = Cusum(tuned.slack, tuned.threshold)
        found = {}
        for n, value in enumerate(score):
            page.update(float(value))
            if page.drift_detected:
                found.setdefault("river", n)
            if cusum.update(float(value)):
                found.setdefault("ours", n)
        assert found["ours"] >= half
        assert found["river"] >= half
        # Page and Hinkley's test is the same sum about a mean that it has to learn.
        assert abs(found["ours"] - found["river"]) <= 8
