"""Grid and geometry: lines on the walls, shares that keep area and volume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.scenarios import Scenario, Tear
from apps.simulators.flow.grid import MARGIN, TOP, build_grid
from apps.simulators.flow.problem import build_problem
from edge_agent.contracts.geometry import wind_vector

MIDDLE = Tear(panel="west_middle", centre=15, width=10)


@given(st.tuples(st.integers(4, 90), st.integers(4, 90), st.integers(4, 40)))
def test_grid_has_the_cells_asked_for_and_lines_on_the_walls(site, cells):
    grid = build_grid(site, cells)
    assert grid.cells == cells
    for nodes, (first, last), length in zip(grid.nodes, grid.house, (42, 30, 5), strict=True):
        assert (nodes[first], nodes[last]) == (0.0, pytest.approx(length))
        assert (np.diff(nodes) > 0).all()
    assert grid.nodes[0][0] == pytest.approx(-MARGIN)
    assert grid.nodes[2][-1] == pytest.approx(5 * TOP)


def test_panel_edges_get_a_line_where_cells_allow(site):
    fine, coarse = build_grid(site, (14, 18, 6)), build_grid(site, (14, 4, 6))
    assert {10.0, 20.0} <= set(np.round(fine.nodes[1], 9))
    assert not {10.0, 20.0} <= set(np.round(coarse.nodes[1], 9))


@pytest.mark.parametrize("cells", [(14, 12, 6), (9, 5, 4), (31, 22, 11)])
def test_canopy_and_screens_keep_their_amount_on_any_grid(site, cells):
    grid = build_grid(site, cells)
    scenario = Scenario(wind_speed=2, wind_from_direction=0, tears=(MIDDLE,))
    problem = build_problem(site, [scenario], grid)
    dx, dy, dz = (np.diff(n) for n in grid.nodes)
    volume = dz[:, None, None] * dy[:, None] * dx
    assert (problem.canopy * volume).sum() == pytest.approx(3 * 30 * 4 * 3 * 0.3)
    west = next(s for s in problem.screens if (s.axis, s.index) == (0, grid.house[0][0]))
    distance = grid.centres(0)[west.index] - grid.centres(0)[west.index - 1]
    area = dz[:, None, None, None] * dy[:, None, None]
    # Two of three panels are whole: 20 m of 30 m, 5 m high, K's constant part 3.6.
    assert (west.quadratic * area).sum() * distance == pytest.approx(0.5 * 3.6 * 20 * 5)
    assert (west.linear * area).sum() * distance == pytest.approx(0.5 * 6.0 / 2 * 20 * 5)


@given(st.floats(0.1, 60), st.floats(0, 360), st.floats(0, 359))
def test_wind_vector_keeps_speed_and_turns_with_the_wind(speed, direction, bearing):
    u, v = wind_vector(speed, direction, bearing)
    assert np.hypot(u, v) == pytest.approx(speed)
    opposite = wind_vector(speed, direction + 180, bearing)
    assert np.allclose(np.add((u, v), opposite), 0, atol=1e-9 * speed)
    # Turning wind and house together changes nothing.
    assert np.allclose(wind_vector(speed, direction + 33, bearing + 33), (u, v), atol=1e-7)


def test_wind_vector_of_the_four_winds():
    """+x points east: from the west is along +x, from the south along +y."""
    for direction, expected in ((270, (1, 0)), (90, (-1, 0)), (180, (0, 1)), (0, (0, -1))):
        assert np.allclose(wind_vector(1.0, direction, 90.0), expected, atol=1e-12)
