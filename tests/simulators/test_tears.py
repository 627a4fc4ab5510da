"""Tears: what they are, what the grid makes of them, and the jet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apps.datasets import read_simulation
from apps.deadline import Unlimited
from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.base import Case, Fidelity, Resources
from apps.simulators.embedded import EmbeddedSimulator
from apps.simulators.flow.grid import build_grid
from apps.simulators.flow.problem import build_problem
from apps.simulators.flow.tears import left_of, smallest_tear, unresolved


def torn(*tears):
    return Scenario(wind_speed=4, wind_from_direction=270, tears=tears)


def test_order_does_not_matter():
    one = Tear(panel="east", centre=20, width=2)
    two = Tear(panel="east", centre=5, width=2, open_fraction=0.5)
    three = Tear(panel="roof", centre=5, width=2, span=(1, 3))
    assert torn(three, one, two).content_digest() == torn(one, two, three).content_digest()
    assert torn(one).content_digest() != torn(two).content_digest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"centre": float("nan")},
        {"width": 0},
        {"open_fraction": 1.1},
        {"open_fraction": float("nan")},
        {"span": (2, 1)},
    ],
)
def test_a_tear_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Tear.model_validate({"panel": "east", "centre": 5, "width": 2} | wrong)


def test_tears_of_a_panel_do_not_overlap():
    with pytest.raises(ValidationError, match="overlap"):
        torn(Tear(panel="east", centre=5, width=2), Tear(panel="east", centre=6, width=2))
    torn(
        Tear(panel="east", centre=5, width=2, span=(0, 2)),
        Tear(panel="east", centre=6, width=2, span=(2, 4)),
    )


@pytest.mark.parametrize(
    "tear",
    [
        Tear(panel="west_middle", centre=11, width=4),
        Tear(panel="west_middle", centre=30, width=4),
        Tear(panel="west_middle", centre=15, width=4, span=(3, 6)),
    ],
)
def test_a_tear_outside_its_panel_is_an_error(site, tear):
    with pytest.raises(SimulationError, match="is not within panel west_middle"):
        torn(tear).check(site)


@given(
    st.tuples(st.integers(6, 40), st.integers(6, 40), st.integers(4, 16)),
    st.floats(2, 28),
    st.floats(0.5, 4),
    st.floats(0, 1),
)
def test_a_tear_keeps_its_area_on_any_grid(site, cells, centre, width, open_fraction):
    grid = build_grid(site, cells)
    east = next(p for p in site.panels if p.name == "east")
    tear = Tear(panel="east", centre=centre, width=width, span=(1, 3), open_fraction=open_fraction)
    dy, dz = np.diff(grid.nodes[1]), np.diff(grid.nodes[2])
    area = dz[:, None] * dy
    left = left_of(east, torn(tear), grid)[:, :, 0]
    assert (left * area).sum() == pytest.approx(30 * 5 - open_fraction * width * 2)
    assert ((left >= 0) & (left <= 1 + 1e-9)).all()


def test_the_smallest_tear_that_keeps_its_shape_is_a_cell(site):
    grid = build_grid(site, (14, 18, 6))
    panel = next(p for p in site.panels if p.name == "east")
    width, span = smallest_tear(panel, grid)
    (j0, j1), (_, k1) = grid.house[1], grid.house[2]
    assert width == pytest.approx(np.diff(grid.nodes[1])[j0:j1].max())
    assert span == pytest.approx(np.diff(grid.nodes[2])[:k1].max())
    fits, thin = (
        Tear(panel="east", centre=10, width=width * factor, span=(0, span)) for factor in (1.0, 0.9)
    )
    low = Tear(panel="east", centre=10, width=width, span=(0, 0.9 * span))
    assert unresolved(site, torn(fits), grid) == ()
    assert unresolved(site, torn(thin), grid) == (thin,)
    assert unresolved(site, torn(low), grid) == (low,)


def test_an_unresolved_tear_is_named_in_the_file(site, store):
    tears = (Tear(panel="east", centre=10, width=0.2),)
    case = Case(site, torn(*tears), Fidelity(cells=(14, 12, 6), tolerance=2e-2))
    (end,) = EmbeddedSimulator(store).run([case], Resources(batch=1), None, Unlimited())
    attrs = read_simulation(end.path).attrs
    assert (attrs["torn_panels"], attrs["unresolved_tears"]) == ("east", "east")


def test_open_fraction_is_a_share_of_the_loss(site):
    grid = build_grid(site, (14, 12, 6))
    halves = [Tear(panel="west_middle", centre=15, width=10, open_fraction=f) for f in (0, 0.5, 1)]
    losses = [build_problem(site, [torn(t)], grid).screens[0].quadratic.sum() for t in halves]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2)


def test_a_torn_windward_panel_makes_a_jet(site, store):
    """The interior mean rises by a sixth at least, and most behind the tear."""
    fidelity = Fidelity(cells=(26, 24, 8))
    cases = [
        Case(site, scenario, fidelity)
        for scenario in (torn(), torn(Tear(panel="west_middle", centre=15, width=10)))
    ]
    ends = EmbeddedSimulator(store).run(cases, Resources(batch=2), None, Unlimited())
    whole, open_ = (read_simulation(e.path).wind for e in ends)
    means = [float(np.sqrt((w**2).sum(axis=0)).mean()) for w in (whole, open_)]
    assert means[1] > 1.16 * means[0], means
    gain = (open_ - whole)[0].mean(axis=0)
    behind, beside = gain[2:4, :2], gain[[0, -1], :2]
    assert behind.min() > 0.5
    assert behind.mean() > 4 * abs(beside.mean())
