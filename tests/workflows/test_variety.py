"""What scenarios differ in beside the wind."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.scenarios import Scenario
from apps.space import WIND, space_of, space_of_columns
from edge_agent.contracts.site_state import SiteState, Tear
from workflows.config import Campaign, ScenarioRange
from workflows.steering import cover, next_scenarios
from workflows.variety import Variety

SITE = Campaign(name="t").load_site(Path("t.toml"))
SPEEDS = (0.5, 14.0)
VARIED = Variety.of(ScenarioRange(screen_loss_factor=(0.5, 3.0), torn=0.4), SITE)
WEST = Tear(panel="west", centre=27.0, width=20.0)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_every_state_is_of_the_site_and_can_be_told(shares):
    scenario = Scenario(wind_speed=5, wind_from_direction=10, **VARIED.state(shares))
    scenario.check(SITE)
    space = space_of(SITE, loss=True, tears=True)
    assert space.tells(scenario.tears)
    row = space.row(scenario)
    assert 0.5 <= row[0] <= 3.0
    assert (row[1] == 0) == (shares[1] >= 0.4)


@given(st.floats(0.1, 9.0), st.integers(0, 999))
def test_near_the_estimate_is_within_the_range(factor, seed):
    state = SiteState(screen_loss_factor=factor, tears=(WEST,))
    found = VARIED.near(state, np.random.default_rng(seed))
    assert 0.5 <= found["screen_loss_factor"] <= 3.0
    assert found["tears"] == (WEST,)
    assert Variety().near(state, np.random.default_rng(seed)) == {}


def test_the_cover_covers_states_and_goes_on_where_it_was():
    whole = cover("training", 0, 96, 1, SPEEDS, VARIED)
    assert cover("training", 40, 8, 1, SPEEDS, VARIED) == whole[40:48]
    factors = np.array([s.screen_loss_factor for s in whole])
    assert 0.35 < (np.log(factors / 0.5) / np.log(6)).mean() < 0.65
    torn = [s.tears[0].panel for s in whole if s.tears]
    assert 0.3 < len(torn) / 96 < 0.5
    assert set(torn) == {"west", "east", "south", "north"}


def test_without_variety_the_cover_is_what_it_was():
    assert cover("training", 0, 8, 1, SPEEDS) == cover("training", 0, 8, 1, SPEEDS, Variety())
    assert all(s.screen_loss_factor == 1 and not s.tears for s in cover("t", 0, 8, 1, SPEEDS))


def test_training_follows_weather_and_state():
    winds = np.array([[5.0, 200.0]] * 3)
    state = SiteState(screen_loss_factor=2.0)
    found = next_scenarios(0, 40, 1, SPEEDS, winds, 0.25, VARIED, state)
    near = [s for s in found if abs(s.wind_from_direction - 200) < 40]
    assert len(near) >= 30
    factors = np.array([s.screen_loss_factor for s in near])
    assert 1.5 < np.median(factors) < 2.6


def test_a_space_is_known_by_its_columns():
    for loss, tears in ((False, False), (True, False), (False, True), (True, True)):
        space = space_of(SITE, loss=loss, tears=tears)
        names = ["wind_speed", "wind_from_direction", *(n for n, _ in space.columns), "wu31"]
        assert space_of_columns(SITE, names) == space
    assert space_of(SITE, loss=False, tears=False) == WIND


@pytest.mark.parametrize(
    "tears",
    [
        (WEST, Tear(panel="east", centre=30, width=10)),
        (Tear(panel="west", centre=27, width=20, open_fraction=0.5),),
        (Tear(panel="west", centre=27, width=20, span=(0, 2)),),
        (Tear(panel="roof", centre=27, width=20),),
    ],
)
def test_what_the_columns_cannot_tell_is_not_in_the_space(tears):
    assert not space_of(SITE, loss=True, tears=True).tells(tears)
    assert not WIND.tells(tears)
    assert WIND.tells(())


def test_a_family_of_wind_alone_cannot_learn_varied_houses():
    with pytest.raises(ValueError, match=r"pod_regression takes wind alone.*pod_gp"):
        Campaign(name="t", scenarios=ScenarioRange(screen_loss_factor=(0.5, 2.0)))
    with pytest.raises(ValueError, match="screen_loss_factor: the lowest must be below"):
        ScenarioRange(screen_loss_factor=(2.0, 2.0))
