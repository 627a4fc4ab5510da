"""What every family promises, and what every family of networks does beside."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest

from apps import scores
from apps.errors import OutOfTime
from apps.surrogates.base import FAMILIES, Conditions, WarmStart, family_settings
from apps.surrogates.export import canonical_bytes, run_onnx

NETWORKS = [name for name, kind in FAMILIES.items() if kind.resumable]
#: Enough to see that it learns, on a grid of 144 cells.
QUICK = {name: {"steps": 60, "members": 2, "batch": 8} for name in NETWORKS}


def inputs_of(data):
    return np.stack([data.wind_speed, data.wind_from_direction], axis=1).astype(np.float32)


def fit(name, data, site, seed=0, conditions=None, **settings):
    values = family_settings(name, QUICK.get(name, {}) | settings)
    return FAMILIES[name].fit(data, site, values, seed, conditions or Conditions())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_export_is_the_model(small_site, make, name, parity):
    data = make(20, 1, small_site)
    model = fit(name, data, small_site)
    exported = canonical_bytes(model.to_onnx())
    onnx.checker.check_model(onnx.load_from_string(exported))
    assert parity(model, exported) < 1e-5
    wind, std = run_onnx(exported, inputs_of(data))
    assert wind.shape == std.shape == data.wind.shape
    assert wind.dtype == std.dtype == np.float32
    assert (std > 0).all()
    assert b"site-packages" not in exported
    assert b"apps/surrogates" not in exported


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_from_more_runs(small_site, make, name):
    truth = make(32, 9, small_site)
    errors = []
    for n in (8, 48):
        model = fit(name, make(n, 1, small_site), small_site, steps=300)
        errors.append(scores.relative_l2(truth.wind, model.predict(inputs_of(truth))[0]))
    assert errors[1] < 0.7 * errors[0], errors
    assert errors[1] < 0.25


class Ends:
    """A block that ends after so many questions."""

    def __init__(self, questions):
        self.left = questions

    def remaining(self):
        self.left -= 1
        return 1000.0 if self.left >= 0 else -1.0

    def stop_requested(self):
        return self.left < 0


@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_five_times_it_gives_the_same_bytes(small_site, make, name, tmp_path):
    data = make(16, 1, small_site)
    whole = fit(name, data, small_site)
    path = tmp_path / "checkpoint"
    progress = []
    for _ in range(5):
        with pytest.raises(OutOfTime) as caught:
            fit(name, data, small_site, conditions=Conditions(Ends(9), path))
        progress.append(caught.value.progress)
    assert all(b > a for a, b in itertools.pairwise([0, *progress])), progress
    resumed = fit(name, data, small_site, conditions=Conditions(checkpoint=path))
    # Exported bytes follow from these; `test_train_deadline` compares them too.
    for key, value in whole.state().items():
        np.testing.assert_array_equal(resumed.state()[key], value)
    at = inputs_of(data)
    for one, other in zip(whole.predict(at), resumed.predict(at), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_damaged_checkpoint_costs_time_not_the_training(small_site, make, name, tmp_path):
    data, path = make(16, 1, small_site), tmp_path / "checkpoint"
    path.write_bytes(b"half a che")
    model = fit(name, data, small_site, conditions=Conditions(checkpoint=path))
    assert model.summary()["steps"] == QUICK[name]["steps"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_the_runs_does_not_matter_and_the_seed_does(small_site, make, name):
    data = make(16, 1, small_site)
    back = dataclasses.replace(
        data,
        digests=data.digests[::-1],
        wind_speed=data.wind_speed[::-1],
        wind_from_direction=data.wind_from_direction[::-1],
        wind=data.wind[::-1],
    )
    at = inputs_of(data)
    one, two, other = (
        fit(name, d, small_site, seed, steps=10).predict(at)[0]
        for d, seed in ((data, 0), (back, 0), (data, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_warm_start_keeps_graph_and_folds_and_is_better_soon(small_site, make, name):
    some, more = make(16, 1, small_site), make(24, 1, small_site)
    first = fit(name, some, small_site, steps=300)
    start = WarmStart(first.state(), frozenset(some.digests), keep_basis=True)
    warm = fit(name, more, small_site, conditions=Conditions(start=start))
    cold = fit(name, more, small_site, conditions=Conditions(), steps=18)
    assert warm.summary()["warm_start"]
    assert warm.summary()["steps"] == 18, "a warm start takes a share of the steps"
    truth = make(32, 9, small_site)
    errors = [scores.rmse(truth.wind, m.predict(inputs_of(truth))[0]) for m in (warm, cold)]
    assert errors[0] < errors[1]
    # What a delta needs: the same tensors, grown at their ends at most.
    named = [{k: v for k, v in m.state().items() if k.startswith("core.")} for m in (first, warm)]
    shapes = [{k: v.shape for k, v in one.items()} for one in named]
    assert list(shapes[0]) == list(shapes[1])
    for before, after in zip(shapes[0].values(), shapes[1].values(), strict=True):
        assert len(before) == len(after)
        assert all(a <= b for a, b in zip(before, after, strict=True))
    if "core.modes" in first.state():
        old, new = (m.state()["core.modes"] for m in (first, warm))
        np.testing.assert_array_equal(new[: len(old)], old)
    folds = [
        dict(zip(m.state()["fold_digests"].tolist(), m.state()["folds"].tolist(), strict=True))
        for m in (first, warm)
    ]
    assert folds[0].items() <= folds[1].items()


@pytest.mark.parametrize("name", NETWORKS)
def test_of_another_architecture_it_starts_cold(small_site, make, name):
    data = make(16, 1, small_site)
    first = fit(name, data, small_site, steps=2)
    start = WarmStart(first.state(), frozenset(data.digests))
    other = fit(name, data, small_site, conditions=Conditions(start=start), steps=2, members=3)
    assert not other.summary()["warm_start"]


def test_the_residual_of_the_coordinate_network_is_its_divergence(small_site):
    import torch

    from apps.surrogates.coordinate_network import CoordinateNetwork, Settings

    generator = torch.Generator().manual_seed(0)
    network = CoordinateNetwork(7, small_site, Settings(members=2), generator).double()
    points = torch.rand(5, 3, generator=generator, dtype=torch.float64) * 2 - 1
    box, step = small_site.footprint, 1e-5
    expected = 0
    for axis, length in enumerate((box.length_x, box.length_y, box.height)):
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        up, down = (network._modes(points + s * offset) for s in (1, -1))
        slope = ((up - down) / (2 * step)).reshape(2, -1, 3, 5)[:, :, axis]
        expected = expected + slope * 2 / length * box.height
    torch.testing.assert_close(network._divergences(points), expected, rtol=1e-4, atol=1e-6)


def test_the_matrix_products_are_a_fourier_transform():
    import torch

    from apps.surrogates import fourier_operator

    settings = fourier_operator.Settings(members=2, width=3, layers=1, modes=(4, 3))
    generator = torch.Generator().manual_seed(0)
    operator = fourier_operator.FourierOperator(7, (3, 6, 8), settings, generator)
    x = torch.randn(2, 4, 48, 3, generator=generator)
    with torch.no_grad():
        got = operator._spectral(x, 0).numpy().reshape(2, 4, 6, 8, 3)
    weights = [getattr(operator, n).detach().numpy() for n in ("real_0", "imaginary_0")]
    # (members, kx, ky, in, out)
    weight = (weights[0] + 1j * weights[1]).reshape(2, 4, 5, 3, 3)
    period = fourier_operator._PERIOD
    waves_x, waves_y = np.arange(4), np.arange(-2, 3)
    a = np.exp(-2j * np.pi / period * np.outer(waves_x, (np.arange(8) + 0.5) / 8))
    b = np.exp(-2j * np.pi / period * np.outer(waves_y, (np.arange(6) + 0.5) / 6))
    plan = x.numpy().reshape(2, 4, 6, 8, 3)
    spectrum = np.einsum("px,qy,mbyxc->mbpqc", a, b, plan) / 48
    product = np.einsum("mbpqc,mpqcd->mbpqd", spectrum, weight)
    share = np.where(waves_x > 0, 2.0, 1.0)
    expected = np.einsum("p,px,qy,mbpqd->mbyxd", share, a.conj(), b.conj(), product).real
    np.testing.assert_allclose(got, expected, atol=1e-4)
