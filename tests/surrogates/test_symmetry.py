import numpy as np
import pytest

from apps.surrogates.pod_regression import Settings, fit
from apps.surrogates.spectral import TensorBasis
from apps.surrogates.symmetry import mirror_direction, mirror_field, symmetries

ALL = ((False, False), (True, False), (False, True), (True, True))


def changed(site, **panel):
    first, *rest = site.panels
    return site.model_copy(update={"panels": (first.model_copy(update=panel), *rest)})


def test_the_example_site_has_all_four_mirrors(site):
    assert symmetries(site) == ALL


def test_a_different_screen_or_tree_row_breaks_the_mirror_across_it(site):
    west = changed(site, screen=site.panels[0].screen.model_copy(update={"constant": 9.0}))
    assert symmetries(west) == (ALL[0], ALL[2])
    row = site.canopy[0].model_copy(update={"height": 1.0})
    rows = site.model_copy(update={"canopy": (row, *site.canopy[1:])})
    assert symmetries(rows) == (ALL[0], ALL[1])
    short = changed(site, end=(40.0, 5.0))
    assert symmetries(short) == (ALL[0],)


def test_sensors_do_not_count(site):
    assert symmetries(site.model_copy(update={"sensors": site.sensors[:1]})) == ALL


@pytest.mark.parametrize("mirror", ALL)
@pytest.mark.parametrize("bearing", [90.0, 37.0])
def test_basis_functions_change_sign_as_they_say(mirror, bearing):
    basis = TensorBasis(
        bearing=bearing, harmonics=5, degree=2, lowest=1.0, highest=10.0, speed_scale=1.0
    )
    inputs = np.array([[2.0, 13.0], [7.0, 222.0], [9.0, 359.0]])
    seen = inputs.copy()
    seen[:, 1] = mirror_direction(inputs[:, 1], mirror, bearing)
    np.testing.assert_allclose(
        basis.evaluate(seen), basis.evaluate(inputs) * basis.signs(mirror), atol=1e-12
    )


def test_a_symmetric_model_is_exactly_symmetric(site, make):
    model = fit(make(20), site, Settings(), 0)
    inputs = np.array([[3.0, 100.0], [8.0, 301.0]], np.float32)
    for mirror in ALL:
        seen = inputs.copy()
        seen[:, 1] = mirror_direction(inputs[:, 1], mirror, site.footprint.x_axis_bearing)
        for given, mirrored in zip(model.predict(inputs), model.predict(seen), strict=True):
            expected = mirror_field(given, mirror)
            expected = np.abs(expected) if given.min() > 0 else expected
            np.testing.assert_allclose(mirrored, expected, atol=2e-4)


def test_mirrors_are_worth_runs(site, make):
    truth = make(40, 9)
    inputs = np.stack([truth.wind_speed, truth.wind_from_direction], axis=1)
    errors = [
        np.square(
            fit(make(16), site, Settings(symmetry=s), 0).predict(inputs)[0] - truth.wind
        ).sum()
        for s in (True, False)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_an_asymmetric_site_is_not_augmented(site, make):
    lopsided = changed(site, end=(40.0, 5.0))
    data = make(16, 1, lopsided)
    model = fit(data, lopsided, Settings(), 0)
    assert model.chosen["mirrors"] == 1
    without = fit(data, lopsided, Settings(symmetry=False), 0)
    np.testing.assert_array_equal(model.parts[0].weights, without.parts[0].weights)
