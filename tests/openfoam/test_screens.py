"""Screens in OpenFOAM: what they lose in a duct, through the path that a case would take."""

import json

import numpy as np
import pytest

from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.flow.grid import build_grid
from apps.simulators.flow.problem import build_problem
from apps.simulators.foam import calibration, duct
from apps.simulators.foam.plan import (
    RELAX,
    SLOWEST,
    THICK,
    plan,
    refined,
    relaxation,
    through_speed,
    zone_cells,
)
from apps.simulators.foam.screens import Baffle, baffles, canopy_zones

APPROACH, VISCOSITY = 0.87, 3e-6
ACROSS = (((0.0, 0.0), (1.0, 1.0)),)
#: Lines of a duct with the four thin cells of a zone.
WIDTHS = np.array([1.0] * 8 + [0.25] * THICK + [1.0] * 8)


def screen(linear, constant):
    return Baffle("screen", 0, 8.0, ACROSS, linear, constant)


@pytest.mark.parametrize(
    ("linear", "constant", "path"),
    [
        (0.0, 0.5, "baffle"),
        (0.0, 3.0, "baffle"),
        (0.0, 10.0, "baffle"),
        (0.0, 40.0, "baffle"),
        (1.2, 3.7, "baffle"),  # Lindcove's screens at 5 m/s, K = 8
        (12.0, 3.7, "baffle"),  # and at 0.5 m/s, K = 200
        (0.0, 1000.0, "zone"),
        (60.0, 3.7, "zone"),
    ],
)
def test_loss_in_a_duct(linear, constant, path, tmp_path):
    """Within 2 %, whichever way the screen takes; baffles are exact."""
    one = screen(linear, constant)
    speed = through_speed(linear, constant, APPROACH)
    wanted = constant + linear / speed
    relax = relaxation(one, APPROACH)
    assert (relax >= SLOWEST) == (path == "baffle")
    nodes = np.concatenate([[0.0], np.cumsum(WIDTHS)])
    if path == "baffle":
        found = duct.loss_coefficient(nodes, speed, VISCOSITY, relax, baffle=one)
        assert found == pytest.approx(wanted, rel=1e-4)
        return
    args = (WIDTHS, 8, linear + constant * speed, speed, VISCOSITY, RELAX, tmp_path)
    factor = calibration._calibrated(*args)
    assert factor > 1.1, "an uncalibrated zone loses too little"
    (kept,) = tmp_path.glob("*.json")
    assert json.loads(kept.read_bytes())["achieved"] == pytest.approx(1, abs=0.005)


def test_a_calibration_is_run_once(tmp_path, monkeypatch):
    asked = []

    def half(_nodes, speed, _viscosity, _relax_u, zone):
        asked.append(zone.linear[0])
        return 0.5 * zone.linear[0] * 2 * 1.0 / speed  # a zone that loses half

    monkeypatch.setattr(calibration, "loss_coefficient", half)
    args = (WIDTHS, 8, 6.0, 0.1, VISCOSITY, RELAX, tmp_path)
    assert calibration._calibrated(*args) == pytest.approx(2.0)
    assert len(asked) == 2
    assert calibration._calibrated(*args) == pytest.approx(2.0)
    assert len(asked) == 2
    next(tmp_path.glob("*.json")).write_bytes(b"{")
    assert calibration._calibrated(*args) == pytest.approx(2.0)
    assert len(asked) == 4


def test_a_zone_that_cannot_be_calibrated(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "loss_coefficient", lambda *_, **__: 1.0)
    with pytest.raises(SimulationError, match="no zone coefficient gives K = 60"):
        calibration._calibrated(WIDTHS, 8, 6.0, 0.1, VISCOSITY, RELAX, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("linear", "constant"), [(0.0, 3.0), (6.0, 3.7), (1e4, 0.0), (0.0, 1e6)])
def test_through_speed_uses_up_the_wind(linear, constant):
    u = through_speed(linear, constant, APPROACH)
    assert u**2 + linear * u + constant * u**2 == pytest.approx(APPROACH**2)


def test_denser_screens_are_relaxed_more():
    relax = [relaxation(screen(0.0, k), APPROACH) for k in (0.5, 3, 10, 40, 200)]
    assert relax == sorted(relax, reverse=True)
    assert relax[0] == RELAX


def test_tears_split_a_wall(house):
    site = house(0.0, 3.0)
    grid = build_grid(site, (20, 20, 9))
    tear = Tear(panel="west", centre=50, width=30, open_fraction=0.5)
    gone = Tear(panel="east", centre=50, width=100)
    scenario = Scenario(wind_speed=5, wind_from_direction=270, tears=(tear, gone))
    found = baffles(build_problem(site, [scenario], grid))
    west = [b for b in found if b.axis == 0]
    assert {b.place for b in west} == {0.0}, "the east wall is gone"
    assert {round(b.constant, 6) for b in west} >= {1.5, 3.0}
    area = {}
    for b in west:
        for (y0, z0), (y1, z1) in b.rectangles:
            area[b.constant] = area.get(b.constant, 0.0) + (y1 - y0) * (z1 - z0)
    assert sum(area.values()) == pytest.approx(500)
    assert sum(k * a for k, a in area.items()) == pytest.approx(3.0 * (500 - 0.5 * 150), rel=1e-5)


def test_canopy_keeps_its_drag(house):
    site = house(0.0, 3.0)
    grid = build_grid(site, (20, 20, 9))
    problem = build_problem(site, [Scenario(wind_speed=5, wind_from_direction=270)], grid)
    total = sum(z.cells * z.quadratic[0] for z in canopy_zones(problem))
    assert np.allclose(total, 2 * problem.canopy, rtol=1e-5)


def test_thick_screens_get_their_cells(house):
    site = house(0.0, 3.0)
    grid = build_grid(site, (20, 20, 9))
    scenario = Scenario(wind_speed=5, wind_from_direction=270, screen_loss_factor=1000)
    found = plan(baffles(build_problem(site, [scenario], grid)), APPROACH)
    assert (len(found.thick), len(found.baffles)) == (5, 0)
    fine = refined(grid, found.thick)
    assert fine.cells == (20 + 6, 20 + 6, 9 + 3)
    for axis, (first, last) in enumerate(fine.house):
        assert fine.nodes[axis][first] == grid.nodes[axis][grid.house[axis][0]]
        assert fine.nodes[axis][last] == grid.nodes[axis][grid.house[axis][1]]
    again = plan(baffles(build_problem(site, [scenario], fine)), APPROACH)
    for one in again.thick:
        cells = zone_cells(one, fine)
        others = [a for a in range(3) if a != one.axis]
        sizes = [fine.house[a][1] - fine.house[a][0] for a in others]
        assert cells.sum() == THICK * sizes[0] * sizes[1]
