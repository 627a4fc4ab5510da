import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contracts.geometry import interpolation_weights, wind_vector
from edge_agent.contracts.site import Grid

GRID = Grid(x=(1.0, 3.0, 5.0), y=(2.0, 6.0), z=(0.5, 1.5))


@pytest.mark.parametrize(
    ("direction", "bearing", "expected"),
    [
        (270, 90, (1, 0)),  # from the west, x points east: along +x
        (180, 90, (0, 1)),  # from the south: along +y
        (0, 90, (0, -1)),
        (90, 90, (-1, 0)),
        (180, 0, (1, 0)),  # x points north: from the south along +x
        (270, 0, (0, -1)),  # and from the west along -y, which points east
    ],
)
def test_direction_is_where_the_wind_comes_from(direction, bearing, expected):
    assert np.allclose(wind_vector(1.0, float(direction), float(bearing)), expected, atol=1e-12)


@given(st.floats(0.1, 50), st.floats(0, 360), st.floats(0, 359))
def test_speed_is_kept(speed, direction, bearing):
    u, v = wind_vector(speed, direction, bearing)
    assert np.hypot(u, v) == pytest.approx(speed)


@given(st.tuples(st.floats(1, 5), st.floats(2, 6), st.floats(0.5, 1.5)))
def test_interpolation_is_exact_for_linear_fields(point):
    z, y, x = np.meshgrid(GRID.z, GRID.y, GRID.x, indexing="ij")
    field = 2 * x - 3 * y + 5 * z + 1
    value = interpolation_weights(GRID, np.array([point])) @ field.ravel()
    assert value[0] == pytest.approx(2 * point[0] - 3 * point[1] + 5 * point[2] + 1)


def test_outside_the_cell_centres_the_nearest_value_is_taken():
    weights = interpolation_weights(GRID, np.array([[-9.0, 99.0, 9.0]]))
    assert weights.reshape(GRID.shape)[1, 1, 0] == 1.0
    assert weights.sum() == pytest.approx(1.0)
