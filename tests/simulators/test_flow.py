"""The solver's physics, on grids small enough to run in a second."""

import numpy as np
import pytest

from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.flow.grid import build_grid
from apps.simulators.flow.problem import build_problem
from benchmarks.validation.houses import solve

DOOR = Tear(panel="door", centre=1, width=1)


def winds(site, scenarios, cells=(14, 12, 6), tolerance=1e-2):
    """Return (3, nz, ny, nx) in units of the wind speed, per scenario."""
    return [run.wind for run in solve(site, scenarios, cells, tolerance)]


def speed(wind):
    return float(np.sqrt((wind**2).sum(axis=0)).mean())


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


def test_a_denser_screen_lets_less_in(site):
    scenarios = [
        Scenario(wind_speed=4, wind_from_direction=250, screen_loss_factor=f) for f in (0, 1, 10)
    ]
    open_, one, ten = (speed(w) for w in winds(site, scenarios))
    assert open_ > one > ten


def test_mass_is_kept(site):
    scenarios = [Scenario(wind_speed=s, wind_from_direction=d) for s, d in ((1, 37), (9, 270))]
    runs = solve(site, scenarios, (14, 12, 6), 1e-2)
    assert max(run.imbalance for run in runs) <= 1e-4


def test_unknown_panel_is_an_error(site):
    scenario = Scenario(wind_speed=4, wind_from_direction=0, tears=(DOOR,))
    with pytest.raises(SimulationError, match="no panel door"):
        build_problem(site, [scenario], build_grid(site, (14, 12, 6)))
