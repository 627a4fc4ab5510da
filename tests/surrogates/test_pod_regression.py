import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import scores
from apps.errors import TrainingError
from apps.surrogates.base import FAMILIES, Conditions, WarmStart, family_settings
from apps.surrogates.export import canonical_bytes
from apps.surrogates.pod_regression import Settings, fit, leave_one_out


def inputs_of(data):
    return np.stack([data.wind_speed, data.wind_from_direction], axis=1).astype(np.float32)


def test_the_error_falls_with_the_number_of_runs(site, make):
    truth = make(48, 9)
    errors = [
        scores.relative_l2(
            truth.wind, fit(make(n), site, Settings(), 0).predict(inputs_of(truth))[0]
        )
        for n in (12, 24, 48, 96)
    ]
    assert all(b < a for a, b in itertools.pairwise(errors)), errors
    assert errors[1] < 0.03
    assert errors[-1] < 0.01


def test_intervals_cover_about_what_they_promise(site, make):
    model = fit(make(40), site, Settings(), 0)
    calibration, truth = make(32, 7), make(64, 8)
    wind, std = model.predict(inputs_of(calibration))
    factor = scores.conformal_factor(calibration.wind, wind, std, 0.9)
    wind, std = model.predict(inputs_of(truth))
    assert (std > 0).all()
    assert scores.coverage(truth.wind, wind, std, factor) == pytest.approx(0.9, abs=0.05)


def test_the_spread_is_larger_where_no_run_was(site, make):
    data = make(60)
    keep = (data.wind_from_direction < 30) | (data.wind_from_direction > 90)
    some = dataclasses.replace(
        data,
        digests=tuple(np.array(data.digests)[keep]),
        wind_speed=data.wind_speed[keep],
        wind_from_direction=data.wind_from_direction[keep],
        wind=data.wind[keep],
    )
    model = fit(some, site, Settings(symmetry=False), 0)
    _, std = model.predict(np.array([[5.0, 60.0], [5.0, 150.0]], np.float32))
    assert std[0].mean() > 1.2 * std[1].mean()


def test_the_order_of_the_runs_does_not_matter_and_the_seed_does(site, make):
    data = make(20)
    back = dataclasses.replace(
        data,
        digests=data.digests[::-1],
        wind_speed=data.wind_speed[::-1],
        wind_from_direction=data.wind_from_direction[::-1],
        wind=data.wind[::-1],
    )
    one, two, other = (
        canonical_bytes(fit(d, site, Settings(), s).to_onnx())
        for d, s in ((data, 0), (back, 0), (data, 1))
    )
    assert one == two
    assert one != other


def test_parity_is_checked(site, make, parity):
    one, two = (fit(make(20, s), site, Settings(), 0) for s in (1, 2))
    with pytest.raises(TrainingError, match="differs from the trained model"):
        parity(one, canonical_bytes(two.to_onnx()))


def test_beyond_the_range_the_pattern_holds_and_scales(site, make):
    model = fit(make(20), site, Settings(), 0)
    highest = model.basis.highest
    wind, _ = model.predict(np.array([[highest, 50.0], [2 * highest, 50.0]], np.float32))
    np.testing.assert_allclose(wind[1], 2 * wind[0], rtol=1e-5)
    wind, std = model.predict(np.array([[0.0, 50.0]], np.float32))
    assert (wind == 0).all()
    assert (std > 0).all()


def test_what_cannot_be_learnt_from_is_refused(site, make):
    data = make(20)
    with pytest.raises(TrainingError, match="5 training runs; at least 8 are needed") as caught:
        fit(make(5), site, Settings(), 0)
    assert caught.value.needed == 8
    broken = data.wind.copy()
    broken[3, 0, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit(dataclasses.replace(data, wind=broken), site, Settings(), 0)
    with pytest.raises(TrainingError, match="has no wind"):
        fit(dataclasses.replace(data, wind_speed=data.wind_speed * 0), site, Settings(), 0)
    twice = (data.digests[0], *data.digests[:-1])
    with pytest.raises(TrainingError, match="twice"):
        fit(dataclasses.replace(data, digests=twice), site, Settings(), 0)


def test_unknown_families_and_settings_are_named():
    with pytest.raises(TrainingError, match="known: pod_regression"):
        family_settings("crystal_ball", {})
    with pytest.raises(TrainingError, match="membres"):
        family_settings("pod_regression", {"membres": 3})


def test_a_basis_that_is_kept_is_added_to(site, make):
    first = fit(make(12), site, Settings(), 0)
    start = WarmStart(first.state(), keep_basis=True)
    fresh = fit(make(28), site, Settings(), 0)
    more = fit(make(28), site, Settings(), 0, Conditions(start=start))
    assert more.chosen["basis_kept"]
    before, after = first.state(), more.state()
    assert list(before) == list(after)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name][: len(value)], value)
    assert len(more.modes) > len(first.modes)
    limit = 1.01 * Settings().dropped_energy
    assert max(m.chosen["dropped_energy"] for m in (more, fresh)) < limit
    truth = make(32, 9)
    errors = [scores.rmse(truth.wind, m.predict(inputs_of(truth))[0]) for m in (more, fresh)]
    assert errors[0] < 1.1 * errors[1]
    names = [[i.name for i in m.to_onnx().graph.initializer] for m in (first, more)]
    assert names[0] == names[1]
    other = fit(make(28), site, Settings(symmetry=False), 0, Conditions(start=start))
    assert not other.chosen["basis_kept"], "of other mirrors it does not fit"


def test_a_kept_basis_has_room_for_no_more_modes_than_asked_for(site, make):
    first = fit(make(12), site, Settings(), 0)
    count = len(first.modes) + 2
    start = WarmStart(first.state(), keep_basis=True)
    more = fit(make(28), site, Settings(modes=count), 0, Conditions(start=start))
    assert len(more.modes) == count
    full = fit(make(28), site, Settings(modes=count - 5), 0, Conditions(start=start))
    np.testing.assert_array_equal(full.modes, first.modes)


def test_one_wind_speed_is_enough(site, make, parity):
    data = dataclasses.replace(make(20), wind_speed=np.full(20, 4.0))
    model = fit(data, site, Settings(), 0)
    assert np.isfinite(model.predict(inputs_of(data))[0]).all()
    assert parity(model, canonical_bytes(model.to_onnx()), 4.0, 4.0) < 1e-4


@given(st.integers(0, 2**32 - 1), st.integers(5, 12), st.integers(1, 20))
def test_leave_one_out_is_what_leaving_one_out_gives(seed, n, p):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, p)), rng.normal(size=(n, 2))
    ridge = 0.1
    (short,) = leave_one_out(x, y, (ridge,))
    for i in range(n):
        keep = np.arange(n) != i
        a = x[keep]
        w = np.linalg.solve(a.T @ a + ridge * np.eye(p), a.T @ y[keep])
        np.testing.assert_allclose(short[i], y[i] - x[i] @ w, rtol=1e-6, atol=1e-8)


def test_the_numbers_are_those_of_the_declared_version(small_site, make):
    """If this fails on purpose, raise the family's version: old candidates must not be reused."""
    assert FAMILIES["pod_regression"].version == "2"
    model = fit(make(12, 1, small_site), small_site, Settings(), 0)
    wind, std = model.predict(np.array([[1.0, 20.0], [6.0, 200.0]], np.float32))
    expected = [[-0.00717696, -0.01950989, 0.00117141], [0.18894713, 0.51791394, -0.03106148]]
    np.testing.assert_allclose(wind[:, :, 1, 2, 3], expected, atol=2e-5)
    expected = [[0.00163022, 0.00163821, 0.00103558], [0.00563905, 0.00763047, 0.00125894]]
    np.testing.assert_allclose(std[:, :, 1, 2, 3], expected, rtol=0.02)
