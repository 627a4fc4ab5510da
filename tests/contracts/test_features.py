import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.features import MastLogLaw, log_law_factor

MAP = MastLogLaw(
    sensor="mast", measurement_height=40.0, reference_height=10.0, roughness_length=0.05
)


def test_log_law_by_hand():
    # ln(10 / 0.05) / ln(40 / 0.05) = 5.2983 / 6.6846
    assert log_law_factor(40.0, 10.0, 0.05) == pytest.approx(0.79261, abs=1e-5)
    with pytest.raises(InvalidInput, match="roughness"):
        log_law_factor(40.0, 0.05, 0.05)


@given(st.floats(0, 60), st.floats(0, 360))
def test_one_reading_and_the_same_wind_at_reference_height_agree(speed, direction):
    """Training goes from the scenario, the agent from the mast: both must meet."""
    measured = MAP.from_readings({"wind_speed": [speed], "wind_from_direction": [direction]})
    factor = log_law_factor(40.0, 10.0, 0.05)
    assumed = MAP.from_wind(np.array([speed * factor]), np.array([direction]))[0]
    assert measured[0] == pytest.approx(assumed[0], rel=1e-6, abs=1e-30)
    assert abs((measured[1] - assumed[1] + 180) % 360 - 180) < 1e-3


def test_directions_average_across_north():
    inputs = MAP.from_readings({"wind_speed": [4, 4], "wind_from_direction": [350, 10]})
    assert (inputs[1] + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)


def test_calm_has_a_direction():
    inputs = MAP.from_readings({"wind_speed": [0], "wind_from_direction": [90]})
    assert inputs.tolist() == [0, pytest.approx(90)]


@pytest.mark.parametrize(
    "values",
    [
        {"wind_speed": [1.0]},
        {"wind_speed": [], "wind_from_direction": []},
        {"wind_speed": [1.0, 2.0], "wind_from_direction": [1.0]},
        {"wind_speed": [float("nan")], "wind_from_direction": [1.0]},
    ],
)
def test_unusable_windows_are_refused(values):
    with pytest.raises(InvalidInput):
        MAP.from_readings(values)
