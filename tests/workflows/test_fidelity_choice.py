"""When a run of the dear simulator is worth its cost."""

import dataclasses
from contextlib import closing
from pathlib import Path

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.scenarios import Scenario
from apps.simulators.base import Fidelity
from workflows.config import Campaign, FrozenSizes, Reference, Training
from workflows.decisions import Plan, Standing, Tally, Train, decide
from workflows.draw import Draw
from workflows.fidelity_choice import FIRST, GROWTH, Level, pairs_wanted
from workflows.ledger import ROLES, Ledger
from workflows.tasks import correction, is_dear, levels, made_with, simulation_name

errors = st.floats(1e-4, 1.0)
counts = st.integers(1, 200)
costs = st.floats(1e-2, 1e3)


@given(errors, counts, costs, errors, counts, costs, st.integers(1, 300))
def test_pairs_never_go_and_grow_slowly(e, n, c, f, m, d, most):
    wanted = pairs_wanted(Level(e, n, c), Level(f, m, d), most)
    assert wanted <= most
    assert min(m, most) <= wanted <= max(m, int(GROWTH * m) + 1)


@given(errors, counts, costs, errors, counts, costs)
def test_a_dear_run_is_worth_it_while_its_second_takes_more_off(e, n, c, f, m, d):
    wanted = pairs_wanted(Level(e, n, c), Level(f, m, d), 10**6)
    assert (wanted > m) == (f**2 / (m * d) > e**2 / (n * c))


@given(errors, counts, costs, errors, counts, costs, st.floats(1.1, 10))
def test_dearer_runs_are_not_more_of_them(e, n, c, f, m, d, factor):
    cheap = Level(e, n, c)
    assert pairs_wanted(cheap, Level(f, m, factor * d), 500) <= pairs_wanted(
        cheap, Level(f, m, d), 500
    )


def test_before_anything_is_known():
    nothing = Level(None, 0, None)
    assert pairs_wanted(nothing, nothing, 10) == 0
    assert pairs_wanted(Level(0.1, 8, 1.0), nothing, 10) == FIRST
    assert pairs_wanted(Level(0.1, 8, 1.0), nothing, 2) == 2


@pytest.fixture
def campaign():
    return Campaign(
        name="t",
        simulators=("embedded", "embedded"),
        fidelity=Fidelity(cells=(16, 12, 8)),
        reference=Reference(
            fidelity=Fidelity(cells=(32, 24, 16)), pairs=0, most=12, held_out=0, frozen=True
        ),
        frozen=FrozenSizes(selection=4, calibration=4, evaluation=16),
        training=Training(first=8),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pairs": 0}, "pairs"),
        ({"pairs": 4, "most": 2, "frozen": True}, "less than pairs"),
        ({"pairs": 4, "most": 8}, "set frozen"),
    ],
)
def test_what_cannot_be_is_refused(change, says):
    with pytest.raises(pydantic.ValidationError, match=says):
        Reference(**change)


def test_the_same_grid_twice_is_no_second_simulator():
    with pytest.raises(pydantic.ValidationError, match="or on another grid"):
        Campaign(
            name="t",
            simulators=("embedded", "embedded"),
            reference=Reference(fidelity=Fidelity()),
        )


def test_the_frozen_sets_are_dear_and_training_is_cheap(campaign):
    assert is_dear(campaign, "evaluation")
    assert is_dear(campaign, "reference")
    assert not is_dear(campaign, "training")
    assert made_with(campaign, "selection")[0].cells == (32, 24, 16)
    one = campaign.model_copy(update={"simulators": ("embedded",)})
    assert not is_dear(one, "evaluation")


def standing(training, reference=0, pairs=0):
    tallies = {role: Tally() for role in ROLES} | {
        "selection": Tally(done=4),
        "calibration": Tally(done=4),
        "evaluation": Tally(done=16),
        "training": Tally(done=training),
        "reference": Tally(done=reference),
    }
    return Standing(
        tallies=tallies, room=10, tears=0, last_trained=8, candidate_open=True,
        out_of_time=False, pairs=pairs,
    )  # fmt: skip


def test_pairs_that_are_wanted_come_first(campaign):
    assert decide(campaign, standing(10, 2, 5)) == [Plan("reference", 3), Plan("training", 7)]
    assert decide(campaign, standing(10, 5, 5)) == [Plan("training", 10)]
    assert decide(campaign, standing(4, 0, 5)) == [Plan("training", 10)], "none to pair yet"


def test_more_pairs_are_trained_with(campaign):
    now = dataclasses.replace(standing(10, 3, 3), candidate_open=False, last_trained=10)
    assert Train() in decide(campaign, now)
    assert Train() not in decide(campaign, dataclasses.replace(now, last_pairs=3))


def scenario(number):
    return Scenario(wind_speed=1.0 + number, wind_from_direction=37.0 * number)


def test_pairs_are_taken_from_training_runs_and_make_a_correction(campaign, tmp_path):
    site = campaign.load_site(Path("t.toml"))
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        planned = [
            (i, simulation_name(campaign, site, scenario(i), "training"), scenario(i))
            for i in range(8)
        ]
        ledger.plan("training", planned, None)
        for _, digest, _ in planned:
            ledger.finish(digest, 1.0)
        assert correction(ledger, "reference") is None
        drawn = Draw(campaign, site, ledger).next("reference", 3)
        assert len(drawn.planned) == 3
        assert {s for _, _, s in drawn.planned} <= {scenario(i) for i in range(8)}
        ledger.plan("reference", drawn.planned, None)
        for _, digest, _ in drawn.planned:
            ledger.finish(digest, 4.0)
        pairs = correction(ledger, "reference")
        assert pairs is not None
        assert set(pairs.low) <= {digest for _, digest, _ in planned}
        more = Draw(campaign, site, ledger).next("reference", 3)
        assert not {s for _, _, s in more.planned} & {s for _, _, s in drawn.planned}
        number = ledger.add_candidate(
            {"digests": ["a"] * 8, "correction": pairs.model_dump(mode="json")}
        )
        ledger.update_candidate(number, "trained", left_out=0.05, correction_left_out=0.02)
        cheap, dear = levels(ledger.simulations(), ledger.candidates())
        assert cheap == Level(0.05, 8, 1.0)
        assert dear == Level(0.02, 3, 4.0)
