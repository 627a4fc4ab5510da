"""The pure machine: which release is taken, and every way from state to state."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.contracts.errors import NoSuchRelease, ReleaseError
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.lifecycle import (
    REFUSALS_KEPT,
    Refusal,
    State,
    drop_candidate,
    fall_back,
    refuse,
    restored,
    roll_back,
    set_hold,
    set_pin,
    soaked,
    switch,
    to_shadow,
    withdraw,
)
from edge_agent.offers import Offer, check_promotable, decide, fallbacks, restore_order
from edge_agent.trial import Evidence

versions = st.integers(1, 6)


def ref(version: int, content: str = "") -> ReleaseRef:
    digest = sha256(f"{version}{content}".encode())
    return ReleaseRef(
        version=version, manifest=TargetFile(path="release.json", sha256=digest, length=1)
    )


def refusal(version: int) -> Refusal:
    return Refusal(version=version, manifest=ref(version).manifest.sha256, reason="bad")


states = st.builds(
    State,
    active=st.none() | versions,
    candidate=st.none() | versions,
    held=st.none() | versions,
    pinned=st.none() | versions,
    hold=st.booleans(),
    refused=st.sets(versions).map(lambda found: tuple(refusal(v) for v in found)),
    withdrawn=st.dictionaries(versions, st.just("bad")),
)


@given(states, st.none() | versions, st.booleans(), st.booleans())
def test_what_is_taken(state, offered, pinned, shadow):
    offer = None if offered is None else Offer(ref(offered), pinned)
    decision = decide(offer, state, shadow=shadow)
    if not decision.take:
        return
    assert offered not in state.withdrawn
    assert state.refusal(offered) is None
    assert offered != state.active
    if state.pinned is not None:
        assert offered == state.pinned
        return
    assert not state.hold
    if pinned:
        assert offered != state.held
        return
    assert offered > (state.held or 0)
    gone = state.active in state.withdrawn
    if state.active is not None and offered < state.active:
        assert gone
    assert decision.direct == (state.active is None or gone or not shadow)
    assert state.candidate is None or gone or state.active is None


def test_what_the_disk_has_lost_is_taken_again():
    state = State(active=2, candidate=3, shadow=Evidence(), hold=True)
    for version in (1, 2):
        decision = decide(Offer(ref(version)), state, serving=False)
        assert (decision.take, decision.direct) == (True, True)
    assert switch(state, 2, "lost", "").state.previous is None
    assert switch(state, 1, "lost", "").transition.kind == "rolled_back"
    assert not decide(Offer(ref(2)), state).take


def test_a_refused_version_is_tried_again_with_another_manifest():
    state = refuse(State(active=2), refusal(3), "golden").state
    assert decide(Offer(ref(3)), state).why == "refused"
    assert decide(Offer(ref(3, "repaired")), state).take
    assert decide(Offer(ref(4)), state).take


def test_a_newer_release_waits_for_the_candidate_to_be_judged():
    state = to_shadow(State(active=1), 2).state
    assert decide(Offer(ref(3)), state).why == "waits"
    assert decide(Offer(ref(3)), switch(state, 2, "time", "").state).take
    assert decide(Offer(ref(3)), refuse(state, refusal(2), "errors").state).take


def test_the_owners_pin_goes_back_on_record_and_comes_forward_again():
    state = State(active=5)
    decision = decide(Offer(ref(3), pinned=True), state)
    assert (decision.take, decision.direct) == (True, True)
    step = switch(state, 3, decision.why, "")
    assert step.transition.kind == "rolled_back"
    assert decide(Offer(ref(5)), step.state).take


def test_a_promotion_to_an_older_release_is_not_undone_by_the_channel():
    step = switch(State(active=5), 3, "promote", "", hold=True)
    assert step.transition.kind == "rolled_back"
    assert decide(Offer(ref(5)), step.state).why == "held"
    assert decide(Offer(ref(6)), step.state).take


def test_a_release_that_must_not_serve_is_no_place_to_return_to():
    state = withdraw(State(active=2, previous=1), {1: "bad"}).state
    assert state.previous is None
    with pytest.raises(NoSuchRelease):
        roll_back(state, "")
    state = withdraw(State(active=2, previous=1), {2: "bad"}).state
    assert switch(state, 3, "newer", "").state.previous is None
    with pytest.raises(ReleaseError, match="withdrawn: bad"):
        check_promotable(state, 2)


@given(states, st.sets(versions))
def test_what_stands_in_is_acceptable_and_the_newest_below_comes_first(state, stored):
    found = fallbacks(state, stored)
    assert all(state.acceptable(v) and v in stored and v != state.active for v in found)
    below = [v for v in found if v < (state.active or 0)]
    assert found[: len(below)] == sorted(below, reverse=True)


@given(states, st.sets(versions))
def test_at_a_start_everything_is_tried_and_doubtful_releases_last(state, stored):
    order = restore_order(state, stored)
    assert set(order) >= stored
    assert len(order) == len(set(order))
    doubtful = [i for i, v in enumerate(order) if not state.sound(v)]
    sound = [i for i, v in enumerate(order) if state.acceptable(v) and v != state.candidate]
    assert not doubtful or not sound or min(doubtful) > max(sound)


def test_refusals_are_bounded():
    state = State(active=1)
    for version in range(2, 100):
        state = refuse(state, refusal(version), "golden").state
    assert [r.version for r in state.refused] == list(range(100 - REFUSALS_KEPT, 100))


class Lifecycle(RuleBasedStateMachine):
    """Every transition in any order, from every state it is possible in."""

    def __init__(self):
        super().__init__()
        self.state = State()
        self.published = 0

    def go(self, step):
        before, after = self.state, step.state
        assert after.sequence == before.sequence + 1 == step.transition.sequence
        assert step.transition.from_version == before.active
        if before.active is not None:
            assert after.active is not None, "something always serves"
            if after.active < before.active:
                assert step.transition.kind == "rolled_back"
        self.state = after

    @rule(pinned=st.booleans(), shadow=st.booleans(), again=st.booleans(), good=st.booleans())
    def offer(self, pinned, shadow, again, good):
        self.published += not again
        offer = Offer(ref(max(1, self.published)), pinned)
        decision = decide(offer, self.state, shadow=shadow)
        version = offer.ref.version
        if not decision.take:
            return
        if not good:
            self.go(refuse(self.state, refusal(version), "golden"))
        elif decision.direct:
            self.go(switch(self.state, version, decision.why, "offered"))
        else:
            self.go(to_shadow(self.state, version))

    @precondition(lambda self: self.state.candidate is not None)
    @rule(how=st.sampled_from(["passed", "failed", "dropped"]))
    def judge(self, how):
        version = self.state.candidate
        if how == "passed":
            self.go(switch(self.state, version, "time", ""))
            assert self.state.active == version
        elif how == "failed":
            self.go(refuse(self.state, refusal(version), "latency"))
        else:
            self.go(drop_candidate(self.state, ""))

    @precondition(lambda self: self.state.soak is not None)
    @rule(well=st.booleans())
    def end_soak(self, well):
        active, previous = self.state.active, self.state.previous
        if well:
            self.go(soaked(self.state, "time", ""))
        else:
            manifest = ref(active).manifest.sha256
            self.go(fall_back(self.state, previous, "errors", "", manifest=manifest))
            assert decide(Offer(ref(active)), self.state).take is False

    @precondition(lambda self: self.state.previous is not None)
    @rule()
    def rollback(self):
        left, previous = self.state.active, self.state.previous
        self.go(roll_back(self.state, ""))
        assert (self.state.active, self.state.pinned) == (previous, None)
        if left > previous:
            assert decide(Offer(ref(left)), self.state).take is False

    @precondition(lambda self: self.state.active is not None)
    @rule(data=st.data())
    def command(self, data):
        version = data.draw(st.integers(1, max(1, self.published)))
        what = data.draw(st.sampled_from(["promote", "pin", "stay", "unpin", "hold", "unhold"]))
        if what in ("promote", "pin") and version not in {self.state.active, *self.state.withdrawn}:
            pin = what == "pin"
            self.go(switch(self.state, version, what, "", pin=pin, hold=not pin))
            assert self.state.active == version
        elif what == "stay":
            self.go(set_pin(self.state, self.state.active))
        elif what == "unpin":
            self.go(set_pin(self.state, None))
        elif what in ("hold", "unhold"):
            self.go(set_hold(self.state, hold=what == "hold"))

    @precondition(lambda self: self.published > 0)
    @rule(data=st.data())
    def withdraw(self, data):
        listed = data.draw(st.dictionaries(st.integers(1, self.published), st.just("bad")))
        step = withdraw(self.state, listed)
        if step is not None:
            self.go(step)

    @precondition(lambda self: self.state.active is not None)
    @rule(data=st.data())
    def restart(self, data):
        order = restore_order(self.state, range(1, self.published + 1))
        version = data.draw(st.sampled_from(order))
        if version != self.state.active:
            self.go(restored(self.state, version, None, ""))

    @invariant()
    def the_state_makes_sense(self):
        state = self.state
        assert state.held is None or state.held > state.active
        assert (state.candidate is None) == (state.shadow is None)
        assert state.candidate is None or state.candidate > (state.active or 0)
        assert state.soak is None or (state.previous is not None and state.active is not None)
        assert state.previous is None or state.previous != state.active
        assert state.previous not in state.withdrawn
        assert state.candidate not in state.withdrawn
        assert state.refusal(state.candidate or 0) is None

    @invariant()
    def it_survives_the_disk(self):
        data = msgspec.json.encode(self.state)
        assert msgspec.json.decode(data, type=State) == self.state


TestLifecycle = Lifecycle.TestCase


def test_evidence_adds_up():
    one = Evidence(seconds=1.0, compared=2, worse=0.5)
    assert one.plus(Evidence(seconds=2.0, errors=1)) == Evidence(
        seconds=3.0, compared=2, errors=1, worse=0.5
    )
