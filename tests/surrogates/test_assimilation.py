"""Interior sensors as inputs: the analysis, and what serves."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import scores
from apps.answers import model_inputs, sensor_speeds, sensor_weights
from apps.errors import TrainingError
from apps.space import LOSS_FACTOR, WIND, Scalar, Space, space_of
from apps.surrogates.assimilation import Assimilation
from apps.surrogates.base import FAMILIES, family_settings
from apps.surrogates.export import canonical_bytes, run_model
from apps.surrogates.places import Places
from apps.surrogates.served import Served
from apps.surrogates.symmetry import symmetries
from edge_agent.contracts.features import SILENT, sensor_column
from edge_agent.contracts.release import ReadingErrors

QUICK = {name: {"steps": 40, "members": 2} for name, kind in FAMILIES.items() if kind.resumable}
STATEFUL = [name for name, kind in FAMILIES.items() if kind.takes_state]
NO_DOUBT = ReadingErrors(sensor_relative=0.01, sensor_absolute=1e-3, screen_loss=0.2)


def served(name, data, site, errors=None):
    kind = FAMILIES[name]
    model = kind.fit(data, site, family_settings(name, QUICK.get(name, {})), 0)
    weights = sensor_weights(site)
    taken = None if errors is None else Assimilation.of(data.space, errors, weights)
    places = Places.of(data, site, symmetries(site))
    return Served(model, places, data.inputs, site.grid().shape, taken)


def columns_of(data, site):
    return [*data.columns, *(sensor_column(s.name) for s in site.sensors)]


@pytest.mark.parametrize(
    ("name", "errors"),
    [("pod_gp", None)] + [(n, ReadingErrors(mast_speed=0.1, mast_direction=8.0)) for n in STATEFUL],
)
def test_what_is_exported_is_what_was_trained(small_site, make_houses, name, errors):
    data = make_houses(12, tears=True)
    whole = served(name, data, small_site, errors)
    model = canonical_bytes(whole.to_onnx())
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    asked = make_houses(5, 9, tears=True)
    inputs = asked.inputs
    if errors is not None:
        inputs = model_inputs(asked, columns_of(asked, small_site), small_site, errors)
        inputs[1, -2] = inputs[3, -3:] = SILENT
    got, wanted = run_model(model, inputs), whole.predict(inputs)
    assert got.keys() == wanted.keys() == {"wind", "wind_std", *whole.diagnostics}
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-3, atol=2e-4, err_msg=key)
    alone = run_model(model, inputs[:1])
    np.testing.assert_allclose(alone["wind"], got["wind"][:1], rtol=1e-4, atol=1e-5)


def test_families_of_wind_alone_serve_with_a_distance(small_site, make):
    whole = served("pod_regression", make(12, 1, small_site), small_site)
    found = run_model(canonical_bytes(whole.to_onnx()), whole.runs)
    assert (found["distance"] < 1e-3).all(), "each of its own runs is near"
    far = run_model(canonical_bytes(whole.to_onnx()), np.array([[60.0, 10.0]], np.float32))
    assert far["distance"][0] > 1.0


#: Of ln of the speed at each sensor by ln of the loss factor, in a model that is linear in it.
SLOPE = np.array([-0.5, -0.8, -0.3])


@given(
    st.floats(0.5, 2.0),
    st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_of_a_linear_model_it_is_the_kalman_filter(factor, off, silent):
    """One sensor after the other gives what solving for all together would."""
    errors = ReadingErrors(sensor_relative=0.1, sensor_absolute=1e-6, screen_loss=0.3)
    space = Space(scalars=(Scalar(name=LOSS_FACTOR),))
    taken, slope = Assimilation.of(space, errors, np.eye(4)[:3]), SLOPE
    prior = errors.screen_loss**2
    spread = np.log(taken.factors[:, 2])
    expected = (np.log(factor) + spread)[None, :, None] * slope + np.log(5.0)
    read = np.exp(np.log(factor) * slope + np.log(5.0) + np.array(off))
    read[np.array(silent)] = SILENT
    share, mixing, innovation = taken._analysis(expected, np.zeros((1, 3)), read[None])
    there = ~np.array(silent)
    h, y = slope[there], np.array(off)[there]
    covariance = np.outer(h, h) * prior + 0.01 * np.eye(there.sum())
    gain = prior * h @ np.linalg.inv(covariance)
    assert (share[0] * spread).sum() == pytest.approx(gain @ y, abs=1e-6)
    left = ((mixing[0].T @ spread) ** 2).mean()
    assert left == pytest.approx(prior - gain @ h * prior, rel=1e-5)
    squares = y @ np.linalg.inv(covariance) @ y
    assert innovation[0] ** 2 * max(there.sum(), 1) == pytest.approx(squares, abs=1e-6)


def test_the_sensors_tell_of_a_state_that_nobody_knew(small_site, make_houses):
    data, truth = make_houses(64), make_houses(32, 9)
    whole = served("pod_gp", data, small_site, NO_DOUBT)
    told = truth.inputs.copy()
    told[:, 2] *= np.exp(0.2 * np.where(np.arange(32) % 2, 1, -1))
    speeds = sensor_speeds(truth.wind, sensor_weights(small_site))
    seeing = np.concatenate([told, speeds], axis=1).astype(np.float32)
    blind = seeing.copy()
    blind[:, 3:] = SILENT
    one = blind.copy()
    one[:, 4] = seeing[:, 4]
    errors, spreads = [], []
    for inputs in (seeing, one, blind):
        found = whole.predict(inputs)
        errors.append(scores.rmse(truth.wind, found["wind"]))
        spreads.append(float(found["wind_std"].mean()))
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] < 0.4 * errors[2]
    assert spreads[0] < spreads[1] < spreads[2]


def test_what_nothing_explains_shows_in_the_innovation(small_site, make_houses):
    data, truth = make_houses(48), make_houses(16, 9)
    whole = served("pod_gp", data, small_site, ReadingErrors())
    names = columns_of(truth, small_site)
    usual = whole.predict(model_inputs(truth, names, small_site, ReadingErrors()))["innovation"]
    broken = model_inputs(truth, names, small_site, ReadingErrors())
    broken[:, -1] *= 6.0
    assert np.median(whole.predict(broken)["innovation"]) > 4 * np.median(usual)
    broken[:, 3:] = SILENT
    assert (whole.predict(broken)["innovation"] == 0).all()


def test_without_anything_to_correct_it_is_refused(small_site):
    weights = sensor_weights(small_site)
    with pytest.raises(TrainingError, match="nothing that the interior sensors could correct"):
        Assimilation.of(WIND, ReadingErrors(), weights)
    with pytest.raises(TrainingError, match="no interior sensors"):
        Assimilation.of(space_of(small_site, loss=True, tears=False), ReadingErrors(), weights[:0])
    assert Assimilation.of(WIND, ReadingErrors(mast_speed=0.1), weights).points == 2
