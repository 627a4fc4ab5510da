import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.config import Budget, Campaign, FrozenSizes, Steering, Training
from workflows.decisions import FROZEN, Finish, Plan, Standing, Tally, Train, decide
from workflows.errors import CampaignError
from workflows.ledger import ROLES


def campaign(simulations=30, first=8, tears=0.0):
    return Campaign(
        name="t",
        steering=Steering(tears=tears),
        frozen=FrozenSizes(selection=4, calibration=4, evaluation=16),
        training=Training(first=first, growth=1.5),
        budget=Budget(simulations=simulations),
    )


def standing(**change):
    tallies = {role: Tally() for role in ROLES} | change.pop("tallies", {})
    base = {
        "room": 16, "tears": 0, "last_trained": 0, "candidate_open": False, "out_of_time": False
    }  # fmt: skip
    return Standing(tallies=tallies, **(base | change))


FULL = {
    "selection": Tally(done=4),
    "calibration": Tally(done=4),
    "evaluation": Tally(done=16),
}


def test_frozen_sets_come_first_and_training_follows_without_a_pause():
    assert decide(campaign(), standing(room=40)) == [
        Plan("selection", 4),
        Plan("calibration", 4),
        Plan("evaluation", 16),
        Plan("training", 16),
    ]


def test_simulations_go_on_while_a_candidate_is_open():
    now = standing(tallies=FULL | {"training": Tally(done=20)}, candidate_open=True)
    assert decide(campaign(), now) == [Plan("training", 10)]


def test_training_does_not_wait_for_running_simulations():
    now = standing(tallies=FULL | {"training": Tally(planned=8, done=8)}, room=0)
    assert decide(campaign(), now) == [Train()]


def test_a_house_is_followed_when_all_simulations_are_made():
    done = FULL | {"training": Tally(done=30)}
    followed = standing(tallies=done, last_trained=30, following=True)
    assert decide(campaign(), followed) == []
    moved = standing(tallies=done, last_trained=30, following=True, state_moved=True)
    assert decide(campaign(), moved) == [Train()]
    assert decide(campaign(), standing(tallies=done, last_trained=30)) == [Finish()]


def test_a_slow_machine_still_makes_the_first_training():
    late = standing(tallies=FULL | {"training": Tally(done=3)}, out_of_time=True)
    assert decide(campaign(first=8), late) == [Plan("training", 16)]
    late = standing(tallies=FULL | {"training": Tally(done=8)}, out_of_time=True)
    assert decide(campaign(first=8), late) == [Train()]


def test_a_failed_frozen_simulation_is_replaced():
    now = standing(tallies=FULL | {"selection": Tally(done=3, failed=1)}, out_of_time=True)
    assert Plan("selection", 1) in decide(campaign(), now)


def test_a_hopeless_frozen_set_ends_the_campaign():
    with pytest.raises(CampaignError, match="selection"):
        decide(campaign(), standing(tallies={"selection": Tally(failed=13)}))


def test_the_rest_is_trained_on_before_the_end():
    tallies = FULL | {"training": Tally(done=30)}
    assert decide(campaign(), standing(tallies=tallies, last_trained=24)) == [Train()]
    assert decide(campaign(), standing(tallies=tallies, last_trained=30)) == [Finish()]


def test_tears_are_a_share_of_the_training_runs_as_far_as_the_list_goes():
    done = FULL | {"training": Tally(done=10)}
    assert decide(campaign(simulations=20, tears=0.2), standing(tallies=done, tears=9)) == [
        Plan("training", 10),
        Plan("tear", 2),
        Train(),
    ]
    assert Plan("tear", 1) in decide(campaign(tears=1.0), standing(tallies=done, room=40, tears=1))
    assert not any(
        isinstance(action, Plan) and action.role == "tear"
        for action in decide(campaign(), standing(tallies=done, room=40, tears=9))
    )


@settings(max_examples=200)
@given(st.data())
def test_every_campaign_ends_within_its_budget(data):
    """Play the loop against a random world: tasks finish or fail in any order, at any time."""
    share, listed = data.draw(st.sampled_from([0.0, 0.3, 1.0])), data.draw(st.integers(0, 20))
    settings_ = campaign(simulations=data.draw(st.integers(1, 40)), first=8, tears=share)
    tallies = {role: Tally() for role in ROLES}
    last_trained, open_, late = 0, False, False
    for _ in range(400):
        in_flight = sum(t.planned for t in tallies.values())
        now = Standing(tallies, 16 - in_flight, listed, last_trained, open_, late)
        actions = decide(settings_, now)
        for action in actions:
            if isinstance(action, Plan):
                old = tallies[action.role]
                tallies[action.role] = Tally(old.planned + action.count, old.done, old.failed)
            elif isinstance(action, Train):
                assert not open_
                assert tallies["training"].done > last_trained
                last_trained, open_ = tallies["training"].done, True
            else:
                assert not open_
                assert not any(t.planned for t in tallies.values())
                assert all(tallies[r].done == getattr(settings_.frozen, r) for r in FROZEN)
                spent = tallies["training"].done + tallies["training"].failed
                assert late or spent == settings_.budget.simulations
                torn = tallies["tear"].done + tallies["tear"].failed
                assert torn <= min(listed, share * spent)
                return
        assert sum(t.planned for t in tallies.values()) <= 16
        running = [role for role in ROLES if tallies[role].planned]
        ends = data.draw(st.sampled_from([*running, *(["open"] if open_ else [])]))
        late = late or data.draw(st.integers(0, 30)) == 0
        if ends == "open":
            open_ = False
        else:
            old = tallies[ends]
            bad = data.draw(st.integers(0, 9)) == 0 and old.failed < 2
            tallies[ends] = Tally(old.planned - 1, old.done + (not bad), old.failed + bad)
    pytest.fail("the campaign does not end")
