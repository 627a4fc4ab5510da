"""The solver's physics, on grids small enough to run in a second."""

import numpy as np
import pytest

from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.flow.grid import SolverGrid, build_grid
from apps.simulators.flow.march import March
from apps.simulators.flow.problem import Problem, ScreenPlane, build_problem
from apps.simulators.flow.sample import sample

DOOR = Tear(panel="door", centre=1, width=1)
MIDDLE = Tear(panel="west_middle", centre=15, width=10)


def march(problem, tolerance=1e-2):
    """March to the end and return (fields on the house's cells, end) per case."""
    solver, found = March(problem, tolerance), {}
    while solver.active:
        for end in solver.step():
            fields = [solver.flow.metrics.unpack(f, end.case) for f in solver.flow.velocity]
            pressure = solver.flow.metrics.unpack(solver.flow.pressure, end.case)
            found[end.case] = (fields, pressure, end)
    return [found[k] for k in range(problem.size)]


def winds(site, scenarios, cells=(14, 12, 6), tolerance=1e-2):
    """Return (3, nz, ny, nx) in units of the wind speed, per scenario."""
    grid, target = build_grid(site, cells), site.grid()
    return [
        np.stack([sample(f, a, grid, target) for a, f in enumerate(fields)])
        for fields, _, _ in march(build_problem(site, scenarios, grid), tolerance)
    ]


def speed(wind):
    return float(np.sqrt((wind**2).sum(axis=0)).mean())


@pytest.mark.parametrize("k", [0.5, 4.0, 40.0])
def test_duct_screen_loses_k_dynamic_pressures(k):
    """Uniform flow through a screen across the whole domain: dp = K U^2 / 2 by definition.

    One case has all of K in its constant part, one all in its viscous part, one half and half.
    """
    nodes = (np.linspace(0, 20, 21), np.linspace(0, 4, 5), np.linspace(0, 4, 5))
    grid = SolverGrid(nodes, ((2, 18), (0, 4), (0, 4)))
    viscous = np.array([0.0, 1.0, 0.5])
    plane = np.ones((4, 4, 1, 1))
    screen = ScreenPlane(0, 10, plane * (0.5 * k * viscous), plane * (0.5 * k * (1 - viscous)))
    problem = Problem(
        grid=grid,
        inflow=np.stack([np.ones((4, 3)), np.zeros((4, 3))]),
        into=np.array([[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]),
        out=np.array([[0.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3]),
        screens=(screen,),
        canopy=np.zeros((4, 4, 20)),
        mixing_length=np.zeros((4, 4, 20)),
        ground_drag=0.0,
        start=np.ones((4, 4, 20)),
    )
    for _, pressure, end in march(problem, tolerance=1e-4):
        assert end.reason == "converged"
        drop = pressure[:, :, 1].mean() - pressure[:, :, -2].mean()
        assert drop / 0.5 == pytest.approx(k, rel=1e-3)


def test_inside_is_calmer_and_speed_matters(site):
    """A dense screen's K falls with speed, so a stronger wind keeps a larger share inside."""
    scenarios = [Scenario(wind_speed=s, wind_from_direction=270) for s in (0.5, 3, 12)]
    shares = [speed(w) for w in winds(site, scenarios)]
    outside = np.log1p(2.5 / 0.05) / np.log1p(10 / 0.05)
    assert shares[0] < shares[1] < shares[2] < 0.6 * outside
    assert shares[2] > 1.15 * shares[0]


def test_opposite_wind_gives_the_turned_field(site):
    """The house is symmetric but for panel names, so half a turn of the wind turns the field."""
    pair = [Scenario(wind_speed=4, wind_from_direction=d) for d in (290, 110)]
    one, other = winds(site, pair)
    turned = other[:, :, ::-1, ::-1] * np.array([-1, -1, 1])[:, None, None, None]
    assert np.linalg.norm(turned - one) <= 1e-4 * np.linalg.norm(one)


def test_direction_is_meteorological(site):
    """With +x to the east, a wind from the west blows along +x, one from the south along +y."""
    west, south = winds(site, [Scenario(wind_speed=4, wind_from_direction=d) for d in (270, 180)])
    assert west[0].mean() > 5 * abs(west[1].mean())
    assert south[1].mean() > 5 * abs(south[0].mean())


def test_no_jump_where_the_wind_is_along_a_side(site):
    """A hundredth of a degree off the axis opens a side of the domain only a little."""
    pair = [Scenario(wind_speed=4, wind_from_direction=d) for d in (270, 270.01)]
    one, other = winds(site, pair)
    assert np.linalg.norm(other - one) <= 2e-3 * np.linalg.norm(one)


def test_torn_panel_lets_wind_in(site):
    whole = Scenario(wind_speed=4, wind_from_direction=270)
    torn = whole.model_copy(update={"tears": (MIDDLE,)})
    before, after = winds(site, [whole, torn])
    assert speed(after) > 1.05 * speed(before)
    # The jet stands behind the tear: more there than beside it.
    gain = (after - before)[0].mean(axis=0)
    assert gain[2:4, :3].mean() > 2 * abs(gain[[0, -1], :3].mean())


def test_a_denser_screen_lets_less_in(site):
    scenarios = [
        Scenario(wind_speed=4, wind_from_direction=250, screen_loss_factor=f) for f in (0, 1, 10)
    ]
    open_, one, ten = (speed(w) for w in winds(site, scenarios))
    assert open_ > one > ten


def test_mass_is_kept(site):
    scenarios = [Scenario(wind_speed=s, wind_from_direction=d) for s, d in ((1, 37), (9, 270))]
    problem = build_problem(site, scenarios, build_grid(site, (14, 12, 6)))
    assert max(end.imbalance for *_, end in march(problem)) <= 1e-4


def test_unknown_panel_is_an_error(site):
    scenario = Scenario(wind_speed=4, wind_from_direction=0, tears=(DOOR,))
    with pytest.raises(SimulationError, match="no panel door"):
        build_problem(site, [scenario], build_grid(site, (14, 12, 6)))
