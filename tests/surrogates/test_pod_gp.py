"""The kernel of scenarios, and POD + Gaussian processes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import scores
from apps.errors import TrainingError
from apps.surrogates import pod_gp, pod_regression
from apps.surrogates.base import Conditions, WarmStart
from apps.surrogates.export import canonical_bytes, run_onnx
from apps.surrogates.scenario_kernel import Hyper, ScenarioKernel
from apps.surrogates.symmetry import mirror_field, mirror_scenarios, symmetries

SETTINGS = pod_gp.Settings(harmonics=8)


def fit(data, site, seed=0, conditions=None, **settings):
    values = SETTINGS.model_copy(update=settings)
    return pod_gp.fit(data, site, values, seed, conditions or Conditions())


def kernel(data, site, group):
    return ScenarioKernel.of(data, site, group, harmonics=6, degree=3, speed_scale=1.0, waves=3)


@given(st.floats(0.5, 8), st.floats(0.05, 0.5), st.floats(0.05, 1.0))
def test_a_part_is_the_sum_over_mirror_images(small_site, make_houses, scale, decay, strength):
    """What the signs of features give is what all mirrored copies would."""
    data, group = make_houses(6, tears=True), symmetries(small_site)
    hyper = Hyper(direction_scale=scale, scalar_decay=decay, tear_strength=strength)
    whole = kernel(data, small_site, group)
    alone = dataclasses.replace(  # the same functions, with no mirror used
        whole, parts=np.ones((1, 1)), wave_signs=np.ones_like(whole.wave_signs[:1]),
        tears=dataclasses.replace(whole.tears, signs=np.ones_like(whole.tears.signs[:1])),
    )  # fmt: skip
    own = whole.coordinates(data.inputs)
    parts = whole.between(own, own, hyper)
    images = [
        whole.coordinates(mirror_scenarios(data.inputs, small_site, data.space, m)) for m in group
    ]
    for part, character in enumerate(whole.parts):
        total = sum(
            s * alone.between(own, image, hyper)[0]
            for s, image in zip(character, images, strict=True)
        )
        np.testing.assert_allclose(parts[part], total / len(group), atol=1e-6)
    np.testing.assert_allclose(
        whole.itself(own, hyper), np.diagonal(parts, axis1=1, axis2=2), atol=1e-12
    )
    assert min(np.linalg.eigvalsh(p).min() for p in parts) > -1e-9


def test_it_learns_states_and_tears(small_site, make_houses):
    for tears, most in ((False, 0.02), (True, 0.06)):
        truth = make_houses(48, 9, tears=tears)
        errors = []
        for n in (12, 32, 96):
            wind, _ = fit(make_houses(n, tears=tears), small_site).predict(truth.inputs)
            errors.append(scores.relative_l2(truth.wind, wind))
        assert errors[0] > errors[1] > errors[2], errors
        assert errors[2] < most, errors


def test_told_of_the_state_it_is_better_than_blind(small_site, make_houses):
    data, truth = make_houses(48), make_houses(32, 9)
    blind = dataclasses.replace(data, state=np.empty((48, 0)), space=type(data.space)())
    errors = [
        scores.rmse(truth.wind, model.predict(inputs)[0])
        for model, inputs in (
            (fit(data, small_site), truth.inputs),
            (fit(blind, small_site), truth.inputs[:, :2]),
        )
    ]
    assert errors[0] < 0.2 * errors[1]


def test_it_is_as_symmetric_as_the_site(small_site, make_houses):
    data = make_houses(24, tears=True)
    model, at = fit(data, small_site), make_houses(4, 9, tears=True).inputs
    wind, std = model.predict(at)
    for mirror in symmetries(small_site):
        seen = mirror_scenarios(at, small_site, data.space, mirror).astype(np.float32)
        there, deviation = model.predict(seen)
        np.testing.assert_allclose(there, mirror_field(wind, mirror), atol=2e-4)
        np.testing.assert_allclose(deviation, np.abs(mirror_field(std, mirror)), atol=2e-4)


def test_what_it_leaves_out_is_what_leaving_out_gives(small_site, make):
    data = make(16, 1, small_site)
    whole = fit(data, small_site, symmetry=False)
    process, wrong = whole.processes[0], 0.0
    lower = np.linalg.inv(process.whiten.T)
    covariance, y = lower @ lower.T, lower @ process.weights
    for i in range(16):
        rest = np.delete(np.arange(16), i)
        found = covariance[i, rest] @ np.linalg.solve(covariance[np.ix_(rest, rest)], y[rest])
        wrong += float(((found - y[i]) ** 2).sum())
    total = (data.wind / data.wind_speed[:, None, None, None, None]).astype(float)
    dropped = whole.residual_variance.astype(float).sum()
    expected = np.sqrt((wrong / 16 + dropped) / (total**2).sum(axis=(1, 2, 3, 4)).mean())
    assert whole.summary()["leave_one_out_relative_l2"] == pytest.approx(expected, rel=1e-4)


def test_it_is_less_sure_far_from_its_runs(small_site, make):
    data = make(60, 1, small_site)
    east = data.take((data.wind_from_direction > 20) & (data.wind_from_direction < 70))
    model = fit(east, small_site, symmetry=False)
    at = np.array([[5.0, 45.0], [5.0, 225.0]], np.float32)
    _, std = model.predict(at)
    assert std[1].mean() > 5 * std[0].mean()


def test_order_and_seed_do_not_matter(small_site, make_houses):
    data = make_houses(16, tears=True)
    one, two = (
        canonical_bytes(fit(d, small_site, seed).to_onnx())
        for d, seed in ((data, 0), (data.take(np.arange(16)[::-1]), 1))
    )
    assert one == two


def test_near_runs_do_not_spoil_the_export(small_site, make):
    """Where the covariance is nearly singular float32 would lose the variance."""
    data = make(40, 1, small_site)
    near = dataclasses.replace(
        data,
        wind_speed=5.0 + 1e-3 * np.arange(40),
        wind_from_direction=200.0 + 1e-2 * np.arange(40),
    )
    model = fit(near, small_site)
    wind, std = model.predict(near.inputs)
    for one, other in zip(run_onnx(canonical_bytes(model.to_onnx()), near.inputs), (wind, std),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_kept_basis_stays(small_site, make):
    first = fit(make(12, 1, small_site), small_site)
    start = WarmStart(first.state(), keep_basis=True)
    more = fit(make(24, 1, small_site), small_site, conditions=Conditions(start=start))
    assert more.summary()["basis_kept"]
    for before in first.processes:
        after = next(p for p in more.processes if p.part == before.part)
        np.testing.assert_array_equal(after.modes[: len(before.modes)], before.modes)


def test_what_it_cannot_do_is_said(small_site, make, make_houses):
    with pytest.raises(TrainingError, match="more than maximum_runs = 8"):
        fit(make(9, 1, small_site), small_site, maximum_runs=8)
    with pytest.raises(TrainingError, match="takes wind alone, not screen_loss_factor"):
        pod_regression.fit(make_houses(12), small_site, pod_regression.Settings(), 0)
    data = make_houses(12)
    broken = dataclasses.replace(data, state=np.where(np.arange(12)[:, None] == 3, np.nan, 1.0))
    with pytest.raises(TrainingError, match="not finite"):
        fit(broken, small_site)
