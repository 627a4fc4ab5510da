import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import baselines, scores
from apps.errors import ValidationError
from apps.gate import GateSettings, decide
from apps.surrogates.base import by_name
from apps.surrogates.pod_regression import Settings, fit
from apps.validate import assess, check_sets, score_set
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.release import ScoreSet

positive = st.floats(1e-3, 1e3)
share = st.floats(0, 1)


def score(rmse=0.1, coverage=0.9, **rivals):
    rivals = {"constant_ratio": 0.5, "nearest_simulation": 0.3} | rivals
    return ScoreSet(
        rmse=rmse, relative_l2=rmse, sensor_mae=rmse, coverage=coverage, baselines=rivals
    )


@given(positive, share, positive, positive, st.none() | positive, share)
def test_what_is_accepted_keeps_every_rule(rmse, coverage, constant, nearest, previous, gain):
    rivals = {"constant_ratio": constant, "nearest_simulation": nearest}
    if previous is not None:
        rivals["previous_release"] = previous
    settings = GateSettings(min_improvement=min(gain, 0.99))
    verdict = decide(score(rmse, coverage, **rivals), settings)
    assert verdict.accepted == (not verdict.reasons)
    limit = constant if previous is None else (1 - settings.min_improvement) * previous
    assert verdict.accepted == (rmse < limit and coverage >= settings.min_coverage)
    assert any("nearest_simulation" in r for r in verdict.remarks) == (rmse >= nearest)


@given(positive, positive)
def test_a_better_candidate_is_never_worse_off(a, b):
    rivals = {"previous_release": 1.0}
    low, high = (decide(score(r, **rivals), GateSettings()).accepted for r in sorted((a, b)))
    assert low or not high


def test_each_refusal_has_its_reason():
    assert decide(None, GateSettings()).reasons == ("a prediction is not finite",)
    assert "constant_ratio" in decide(score(0.6), GateSettings()).reasons[0]
    assert "serving release" in decide(score(previous_release=0.101), GateSettings()).reasons[0]
    assert "cover 20%" in decide(score(coverage=0.2), GateSettings()).reasons[0]
    unknown = decide(score(), GateSettings(must_beat=("oracle",)))
    assert unknown.reasons == ("baseline oracle was not computed",)


@given(positive)
def test_of_a_house_that_has_moved_it_need_only_not_be_worse(rmse):
    moved = GateSettings(state_moved=True, min_improvement=0.02)
    verdict = decide(score(rmse, previous_release=0.5), moved)
    assert verdict.accepted == (rmse <= 1.02 * 0.5)
    if not verdict.accepted:
        assert "more than 2% above" in verdict.reasons[0]


@pytest.fixture(scope="module")
def sets(make):
    return {n: make(8, 20 + k) for k, n in enumerate(("selection", "calibration", "evaluation"))}


@given(st.floats(-1e3, 1e3), st.booleans())
def test_the_evaluation_set_never_changes_the_verdict(sets, small_site, make, shift, broken):
    site = small_site
    frozen = {n: make(8, 20 + k, site) for k, n in enumerate(sets)}
    training = make(12, 1, site)
    model = fit(training, site, Settings(), 0)

    def verdict(evaluation, predict=model.predict):
        changed = frozen | {"evaluation": evaluation}
        answer = lambda data: by_name(predict)(data.inputs)  # noqa: E731
        return assess(site, training, changed, answer, None, 0.9, GateSettings())

    evaluation = frozen["evaluation"]

    def breaks_there(inputs):
        wind, std = model.predict(inputs)
        if broken and np.allclose(inputs[:, 0], evaluation.wind_speed):
            wind = wind * np.nan
        return wind, std

    plain = verdict(evaluation)
    moved = verdict(dataclasses.replace(evaluation, wind=evaluation.wind + np.float32(shift)))
    assert moved.verdict == plain.verdict
    assert moved.factor == plain.factor
    assert verdict(evaluation, breaks_there).verdict == plain.verdict


def test_a_model_that_gives_nan_is_refused_not_scored(sets, site, make):
    def answer(data):
        wind = np.full((len(data.digests), 3, *site.grid().shape), np.nan, np.float32)
        return {"wind": wind, "wind_std": np.ones_like(wind)}

    found = assess(site, make(12), sets, answer, None, 0.9, GateSettings())
    assert not found.verdict.accepted
    assert found.scores == {}


def test_scores_of_a_known_error(site, make):
    truth = make(4)
    off = truth.wind + np.array([0.3, 0.0, 0.4], np.float32)[:, None, None, None]
    assert scores.rmse(truth.wind, off) == pytest.approx(0.5, rel=1e-5)
    assert scores.relative_l2(truth.wind, 1.1 * truth.wind) == pytest.approx(0.1, rel=1e-4)
    points = np.array([s.position for s in site.sensors])
    weights = interpolation_weights(site.grid(), points)
    assert scores.sensor_mae(truth.wind, truth.wind, weights) == 0
    assert scores.sensor_mae(truth.wind, truth.wind, weights[:0]) is None
    std = np.full_like(off, 0.35)
    assert scores.coverage(truth.wind, off, std, 1.0) == pytest.approx(2 / 3)


@given(st.integers(0, 1000), st.floats(0.5, 0.95))
def test_conformal_factor_covers_the_calibration_set_itself(seed, level):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(5, 3, 2, 2, 2))
    std = rng.uniform(0.5, 2, truth.shape)
    factor = scores.conformal_factor(truth, np.zeros_like(truth), std, level)
    covered = scores.coverage(truth, 0 * truth, std, factor)
    # One value either way: the factor's own value may fall out by round-off.
    assert level - 1 / truth.size <= covered <= level + 2 / truth.size


def test_baselines(site, make):
    training, bearing = make(12), site.footprint.x_axis_bearing
    at_runs = np.stack([training.wind_speed, training.wind_from_direction], axis=1)
    np.testing.assert_allclose(
        baselines.nearest_simulation(training, at_runs), training.wind, rtol=1e-6
    )
    # Across north, and scaled.
    north = dataclasses.replace(
        training, wind_from_direction=np.where(np.arange(12) == 3, 359.0, 180.0)
    )
    got = baselines.nearest_simulation(north, np.array([[2 * north.wind_speed[3], 2.0]]))
    np.testing.assert_allclose(got[0], 2 * training.wind[3], rtol=1e-6)

    uniform = baselines.constant_ratio(training, at_runs, bearing)
    exact = dataclasses.replace(training, wind=0.3 * np.asarray(uniform))
    again = baselines.constant_ratio(exact, at_runs, bearing)
    np.testing.assert_allclose(again, exact.wind, rtol=1e-6)


def test_sets_must_be_disjoint():
    sets = {"selection": ("a",), "calibration": ("b",), "evaluation": ("c",)}
    check_sets(sets, ("d",))
    with pytest.raises(ValidationError, match="both selection and calibration"):
        check_sets(sets | {"calibration": ("a", "b")}, ("d",))
    with pytest.raises(ValidationError, match="both training and evaluation"):
        check_sets(sets, ("c",))
    with pytest.raises(ValidationError, match="evaluation"):
        check_sets({k: v for k, v in sets.items() if k != "evaluation"}, ())


def test_another_grid_is_an_error(site, small_site, make):
    model = fit(make(12, 1, small_site), small_site, Settings(), 0)
    with pytest.raises(ValidationError, match="the model gives fields of"):
        score_set(site, make(12), make(4, 2), lambda d: by_name(model.predict)(d.inputs), None, 1.0)
