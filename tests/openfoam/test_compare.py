"""The two solvers beside each other, on one grid and behind one interface."""

import numpy as np
import pytest

from apps.datasets import load_simulations, read_simulation
from apps.deadline import Unlimited
from apps.discrepancy import error_table, fit_discrepancy
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from apps.simulators.registry import make
from edge_agent.contracts.site import CanopyRow

WINDS = ((5.0, 270.0), (5.0, 225.0), (3.0, 250.0), (8.0, 200.0), (4.0, 240.0), (6.0, 215.0))


def solve(simulator, site, scenario, cells, store):
    case = Case(site, scenario, Fidelity(simulator=simulator, cells=cells))
    (outcome,) = make(simulator, store).run([case], Resources(batch=1), None, Unlimited())
    return outcome


def speed(path):
    return np.sqrt((read_simulation(path).wind ** 2).sum(axis=0))


def trees(start, end):
    return (CanopyRow(start=start, end=end, height=3, drag_area_density=0.3),)


@pytest.mark.parametrize("angle", [0, 30])
def test_interior_wind_agrees(house, store, angle):
    """The issue's case, on the house of docs/validation.md: K = 3, 60 x 60 x 20 cells.

    Reached: 7.0 % at 0 degrees and 6.6 % at 30. With trees in all of the house, as in the trial,
    it is 9.2 % and 7.7 %: the solvers differ most at the ground below the trees.
    """
    site = house(0.0, 3.0).model_copy(update={"canopy": trees((6, 20), (94, 80))})
    wind = Scenario(wind_speed=5, wind_from_direction=270 - angle)
    ends = {n: solve(n, site, wind, (60, 60, 20), store) for n in ("embedded", "openfoam")}
    own, other = (speed(ends[n].path) for n in ("embedded", "openfoam"))
    assert np.linalg.norm(own - other) / np.linalg.norm(other) <= 0.09
    assert read_simulation(ends["openfoam"].path).attrs["mass_imbalance"] <= 1e-4


def test_a_few_runs_correct_the_others(house, store):
    """Screens whose loss falls with the speed; other speeds and directions are held out.

    Reached: 8.6 to 1.4 % and 7.6 to 1.1 %.
    """
    site = house(6.0, 3.0, cells=(10, 10, 5))
    scenarios = [Scenario(wind_speed=s, wind_from_direction=d) for s, d in WINDS]

    def runs(simulator, which):
        ends = [solve(simulator, site, s, (24, 24, 10), store) for s in which]
        return load_simulations(store, [e.digest for e in ends], site)

    learnt, held_out = scenarios[:4], scenarios[4:]
    fitted = fit_discrepancy(runs("embedded", learnt), runs("openfoam", learnt))
    table = error_table(fitted, runs("embedded", held_out), runs("openfoam", held_out))
    for row in table:
        assert row["before"] > 0.04
        assert row["after"] < 0.5 * row["before"], (fitted.method, table)
