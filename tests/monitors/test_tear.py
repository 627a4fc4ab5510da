"""The detector on a made house of four sensors: no solver, a few seconds of data."""

import numpy as np
import pytest

from edge_agent.contracts.errors import InvalidMonitors
from edge_agent.contracts.monitors import (
    Calibration,
    Hypothesis,
    SignatureMeta,
    Signatures,
    table_at,
)
from edge_agent.monitors import tear
from edge_agent.monitors.runlength import alarms
from edge_agent.monitors.tear import Pairs, TearDetector

DAY = 86_400_000_000
STEP = 600_000_000
PANELS = ("west", "east", "north")


def made_signatures():
    """A tear lets wind in at the sensor behind it while its panel is to windward."""
    bearings = np.arange(16) * 22.5
    facing = {"west": 270.0, "east": 90.0, "north": 0.0}
    change = np.zeros((4, 2, 16, 3))
    for k, panel in enumerate(PANELS):
        towards = np.clip(np.cos(np.deg2rad(bearings - facing[panel])), 0, 1)
        for s, speed in enumerate((3.0, 9.0)):
            change[k, s, :, k] = 0.1 * speed * towards
    change[3] = -0.03 * np.array([3.0, 9.0])[:, None, None]
    hypotheses = tuple(Hypothesis(name=f"{p} at 1 m", kind="tear", panel=p) for p in PANELS)
    meta = SignatureMeta(
        site="house",
        site_digest="0" * 64,
        sensors=("a", "b", "c"),
        hypotheses=(*hypotheses, Hypothesis(name="dust", kind="state")),
        fidelity="made",
    )
    return Signatures(meta, np.array([3.0, 9.0]), bearings, change)


def winds(days, seed):
    rng = np.random.default_rng(seed)
    n = days * 144
    walk = np.cumsum(rng.normal(size=n)) * 12.0
    level = np.zeros(n)
    for i in range(1, n):
        level[i] = 0.96 * level[i - 1] + 0.28 * rng.normal()
    return np.exp(1.4 + 0.4 * level), walk % 360.0


def record(days, seed, tear_of=None, amplitude=1.0):
    signatures = made_signatures()
    rng = np.random.default_rng(seed + 1000)
    speed, direction = winds(days, seed)
    n = len(speed)
    predicted = 0.4 * speed[:, None] * np.ones(3)
    error = np.zeros((n, 3))
    for i in range(1, n):
        error[i] = 0.96 * error[i - 1] + 0.28 * rng.normal(size=3)
    bias = 0.03 * np.sin(np.deg2rad(direction))[:, None]
    measured = predicted + speed[:, None] * (bias + 0.03 * error)
    if tear_of is not None:
        measured += amplitude * signatures.at(speed, direction)[:, tear_of]
    return Pairs(np.arange(n) * STEP, speed, direction, predicted, measured)


@pytest.fixture(scope="module")
def tuned():
    signatures = made_signatures()
    return signatures, tear.calibrate(signatures, record(40, 1), replicates=100)


def run(detector, pairs):
    verdicts = [
        detector.add(*row)
        for row in zip(
            pairs.instant.tolist(),
            pairs.wind_speed,
            pairs.wind_from_direction,
            pairs.predicted,
            pairs.measured,
            strict=True,
        )
    ]
    return [v for v in verdicts if v is not None]


@pytest.mark.parametrize("panel", range(3))
def test_a_torn_panel_is_found_within_days_and_named(tuned, panel):
    verdicts = run(TearDetector(*tuned), record(14, 50 + panel, panel))
    first = next(k for k, v in enumerate(verdicts) if v.alarm)
    assert first < 4 * 10
    assert verdicts[-1].panel == PANELS[panel]


def test_dust_is_no_tear(tuned):
    verdicts = run(TearDetector(*tuned), record(30, 60, 3, amplitude=1.5))
    assert verdicts[-1].alarm
    assert (verdicts[-1].hypothesis, verdicts[-1].panel) == ("dust", None)


def test_health_raises_about_as_many_alarms_as_it_was_tuned_for(tuned):
    signatures, calibration = tuned
    raised = 0
    for seed in range(70, 76):
        blocks, x, energy = tear.block_sums(signatures, calibration, record(60, seed))
        grow = tear.increments(signatures, calibration, x, energy)
        daily = tear.by_day(blocks, grow, calibration.block_seconds)
        raised += alarms(daily, np.arange(len(daily))[None], calibration.threshold)[0]
    # 360 days, tuned for one alarm in 365: Poisson, and a calibration of forty days.
    assert raised <= 4


def test_errors_that_hang_together_inflate_the_sums(tuned):
    assert all(5 < v < 40 for v in tuned[1].inflation)


def test_in_service_it_is_the_same_test_as_in_tuning(tuned):
    signatures, calibration = tuned
    pairs = record(6, 80, 0)
    verdicts = run(TearDetector(signatures, calibration), pairs)
    _, x, energy = tear.block_sums(signatures, calibration, pairs)
    grow = tear.increments(signatures, calibration, x, energy)
    state = np.zeros(grow.shape[1])
    for verdict, step in zip(verdicts, grow[: len(verdicts)], strict=True):
        state = np.clip(state + step, 0, 2 * calibration.threshold)
        assert verdict.statistic == pytest.approx(state.max())


def test_late_pairs_and_calm_are_left_out(tuned):
    detector = TearDetector(*tuned)
    detector.add(DAY, 5.0, 0.0, np.ones(3), np.ones(3))
    assert detector.add(0, 5.0, 0.0, np.ones(3), np.ones(3)) is None
    verdict = detector.add(2 * DAY, 0.2, 0.0, np.ones(3), 9 * np.ones(3))
    assert verdict is not None
    assert detector.add(3 * DAY, 5.0, 0.0, np.ones(3), np.ones(3)).statistic <= verdict.statistic


def test_tables_are_interpolated_round_the_circle_and_in_proportion_beyond():
    table = np.zeros((1, 2, 4, 1))
    table[0, :, :, 0] = [[1, 2, 3, 4], [3, 6, 9, 12]]
    found = table_at(
        table,
        np.array([1.0, 3.0]),
        4,
        np.array([1.0, 2.0, 3.0, 6.0, 0.5, 1.0]),
        np.array([0.0, 45.0, 315.0, 90.0, 90.0, 720.0]),
    )
    assert found[:, 0, 0].tolist() == [1.0, 3.0, 7.5, 12.0, 1.0, 1.0]


def test_signatures_come_back_from_their_file(tmp_path):
    made = made_signatures()
    made.save(tmp_path / "s.npz")
    found = Signatures.load(tmp_path / "s.npz")
    assert found.meta == made.meta
    np.testing.assert_allclose(found.change, made.change, rtol=1e-6)


def test_a_calibration_comes_back_from_its_file(tmp_path, tuned):
    made = Calibration(site="house", made_from="a test", tear=tuned[1])
    (tmp_path / "c.json").write_text(made.model_dump_json())
    assert Calibration.load(tmp_path / "c.json") == made


@pytest.mark.parametrize("content", [None, b"", b"not a file of ours", b"PK\x03\x04 torn"])
def test_files_that_cannot_be_used_are_named(tmp_path, content):
    path = tmp_path / "bad.file"
    if content is not None:
        path.write_bytes(content)
    for load in (Signatures.load, Calibration.load):
        with pytest.raises(InvalidMonitors, match=r"bad\.file"):
            load(path)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    made = made_signatures()
    Signatures(made.meta, made.wind_speed, made.wind_from_direction[:-1], made.change).save(
        tmp_path / "s.npz"
    )
    with pytest.raises(InvalidMonitors, match="do not fit"):
        Signatures.load(tmp_path / "s.npz")
