from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.promotion import decide, held_after_rollback

versions = st.integers(1, 6)


def ref(version: int, content: str = "") -> ReleaseRef:
    digest = sha256(f"{version}{content}".encode())
    return ReleaseRef(
        version=version, manifest=TargetFile(path="release.json", sha256=digest, length=1)
    )


@given(
    st.none() | versions,
    st.none() | versions,
    st.none() | versions,
    st.sets(versions),
)
def test_only_a_newer_release_is_loaded(offered, active, held, refused):
    offer = None if offered is None else ref(offered)
    decision = decide(
        offer, active=active, held=held, refused={v: ref(v).manifest.sha256 for v in refused}
    )
    if decision.load:
        assert offered > max(active or 0, held or 0)
        assert offered not in refused
    else:
        assert offered is None or offered <= max(active or 0, held or 0) or offered in refused


def test_a_refused_version_is_tried_again_with_another_manifest():
    refused = {3: ref(3).manifest.sha256}
    assert decide(ref(3), active=2, held=None, refused=refused).why == "refused"
    assert decide(ref(3, "repaired"), active=2, held=None, refused=refused).load
    assert decide(ref(4), active=2, held=None, refused=refused).load


class Promotion(RuleBasedStateMachine):
    """Publishing, polling, refusing and rolling back in any order."""

    def __init__(self):
        super().__init__()
        self.published = 0
        self.active = self.previous = self.held = None
        self.refused = {}
        self.left = set()

    @rule()
    def publish(self):
        self.published += 1

    @rule(good=st.booleans())
    def poll(self, good):
        offer = ref(self.published) if self.published else None
        decision = decide(offer, active=self.active, held=self.held, refused=self.refused)
        if not decision.load:
            return
        assert offer.version not in self.left, "a release that was rolled back from returned"
        assert offer.version > (self.active or 0)
        if good:
            self.previous, self.active = self.active, offer.version
            if self.held is not None and self.held <= offer.version:
                self.held = None
        else:
            self.refused[offer.version] = offer.manifest.sha256

    @rule()
    def rollback(self):
        if self.previous is None:
            return
        self.held = held_after_rollback(self.held, left=self.active, now=self.previous)
        self.left.add(self.active)
        self.active, self.previous = self.previous, self.active

    @invariant()
    def held_is_above_what_serves(self):
        assert self.held is None or self.held > self.active


TestPromotion = Promotion.TestCase
