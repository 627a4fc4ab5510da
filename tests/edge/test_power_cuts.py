"""Everything that can happen to a device, in any order, with power cuts at every step of its disk.

The rules publish, damage, cut off, command; the invariants are checked against a model of its own,
which knows what the owner signed, what lies intact on the disk and what the journal says.
"""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.model import sha256
from edge_agent.contracts.repository import Index
from edge_agent.lifecycle import Kind

from .device import SETTINGS, PowerCut
from .owner import signer
from .releases import NAME, make_release, model_bytes, publish_release
from .watched import BEGIN, CALM, DAY, FAIR, KINDS, REACHED, WILD, Published, Watched, flip

# Forty seconds on a free core; a timeout looks to hypothesis like a failure to shrink.
pytestmark = pytest.mark.timeout(1500)


class Power(Watched):
    """What the owner does, what happens on the way, and what happens on the device."""

    # What the owner does.

    @rule(kind=KINDS)
    def publish(self, kind):
        version = len(self.published) + 1
        bias = (WILD if kind == "wild" else 0.0) + version / 100
        model = model_bytes(bias, nan_below=1.0 if kind == "nan" else None)
        error = 1.0 if kind == "golden" else 0.0
        made = make_release(
            self.repository, version, bias, model=model, golden_error=error, publish=False
        )
        self.published[version] = Published(made, kind, bias, sha256(model))
        self.repair()  # the owner has a copy of its own
        publish_release(made, owner=self.owner)

    @precondition(lambda self: self.published)
    @rule(data=st.data(), back=st.booleans())
    def withdraw(self, data, back):
        version = data.draw(st.sampled_from(sorted(self.published)))
        if back:
            self.withdrawn.pop(version, None)
        else:
            self.withdrawn[version] = "it is bad"
        self.put_index(withdrawn=self.withdrawn)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def pin_by_the_owner(self, data):
        version = data.draw(st.none() | st.none() | st.sampled_from(sorted(self.published)))
        self.put_index(pins={} if version is None else {"bench": version})

    @rule(role=st.sampled_from(["root", "targets", "snapshot", "timestamp"]))
    def rotate_key(self, role):
        self.rotations += 1
        self.repair()
        self.owner.rotate(role, signer(f"key {self.rotations}"))
        self.owner.publish()

    def put_index(self, **changes):
        self.ever_withdrawn |= set(changes.get("withdrawn", ()))
        self.repair()
        index = self.owner.index(NAME)
        index = Index.model_validate({**index.model_dump(), **changes})
        self.owner.put_index(NAME, index.canonical_json())
        self.owner.publish()

    @rule(kind=KINDS, days=st.integers(0, 3))
    def a_release_on_its_way(self, kind, days):
        self.publish(kind)
        self.look()
        for _ in range(days):
            self.live_traffic(False, 2, SETTINGS.shadow_seconds / 2)

    @rule()
    def a_bad_release_in_calm_weather(self):
        self.publish("nan")
        self.look()
        for _ in range(2):
            self.live_traffic(True, 2, 1.0)

    @rule()
    def rolled_back_and_looked(self):
        self.rollback()
        self.look()

    # What happens on the way.

    @rule(after=st.integers(0, 4000))
    def partial_download(self, after):
        self.device.link_bytes = after
        self.look()
        self.device.link_bytes = None

    @precondition(lambda self: self.published)
    @rule(data=st.data(), at=st.integers(0, 10**6))
    def corrupt_file(self, data, at):
        version = data.draw(st.sampled_from(sorted(self.published)))
        made = self.published[version].made
        target = data.draw(st.sampled_from([made.ref.manifest, *made.release.files()]))
        self.damage(made.path(target), at)

    @rule(data=st.data(), at=st.integers(0, 10**6))
    def corrupt_metadata(self, data, at):
        files = sorted((self.repository / "metadata").iterdir())
        newest = [f for f in files if f.name != "1.root.json"]  # that one the device has
        if newest:
            self.damage(data.draw(st.sampled_from(newest)), at)

    @rule()
    def repair(self):
        for path, data in self.damaged.items():
            path.write_bytes(data)
        self.damaged.clear()

    @rule(there=st.sampled_from([True, True, True, False]))
    def network(self, there):
        self.device.online = there

    @rule(days=st.sampled_from([-20000.0, -400.0, -1.0, 1.0, 400.0, 20000.0, None, None, None]))
    def clock_jumps(self, days):
        if days is None:  # somebody has set it right
            self.clock.wall = BEGIN.timestamp() + self.clock.steady
        else:
            self.clock.wall = max(0.0, self.clock.wall + days * DAY)

    # What happens on the device.

    @rule()
    def look(self):
        self.device.look()

    @rule(calm=st.booleans(), count=st.integers(1, 4), seconds=st.floats(0, 120))
    def live_traffic(self, calm, count, seconds):
        agent, promotion = self.device.agent, self.device.promotion
        shown = False
        if agent.ready:
            kinds = [self.published[s.version].kind for s in agent.loaded]
            # What is in the shadow of a release that answers, and does not itself. A full disk
            # takes no refusal on record, so it waits.
            shown = calm and kinds[0] != "nan" and promotion.state.shadow is not None
            shown = shown and not self.device.disk.full
            shown = shown and kinds[-1] == "nan" and agent.slot().live.rows is not None
            for _ in range(count):
                agent.predict([CALM if calm else FAIR])
        candidate = promotion.state.candidate
        self.device.trial(seconds)
        if shown:
            assert promotion.state.refusal(candidate), "what fails in the shadow is refused"

    @precondition(lambda self: self.published)
    @rule(data=st.data(), pin=st.booleans())
    def promote(self, data, pin):
        active = self.device.promotion.state.active
        versions = sorted(self.published) + ([active] if active else [])
        self.force(data.draw(st.sampled_from(versions)), pin=pin)

    def force(self, version, *, pin):
        self.forced.append(version)
        with suppress(RbfError, OSError):
            self.device.promotion.promote(version, "test", pin=pin)

    @precondition(lambda self: self.device.promotion.state.active)
    @rule()
    def pin_for_a_while(self):
        self.force(self.device.promotion.state.active, pin=True)
        self.look()
        self.command("unpin")

    @rule()
    def rollback(self):
        previous = self.device.promotion.state.previous
        if previous is not None:
            self.forced.append(previous)
        with suppress(RbfError, OSError):
            self.device.promotion.rollback("test")

    @rule(what=st.sampled_from(["unpin", "unpin", "hold", "unhold", "unhold"]))
    def command(self, what):
        promotion = self.device.promotion
        with suppress(OSError):
            promotion.unpin() if what == "unpin" else promotion.hold(hold=what == "hold")

    @rule(full=st.sampled_from([False, False, True]))
    def disk_full(self, full):
        self.device.disk.full = full

    @precondition(lambda self: self.stored())
    @rule(data=st.data(), at=st.integers(0, 10**6))
    def rot(self, data, at):
        files = [f for v in self.stored() for f in sorted((self.releases / str(v)).iterdir())]
        if files:
            flip(data.draw(st.sampled_from(files)), at)

    @rule()
    def restart(self):
        self.boot()

    @rule(steps=st.integers(0, 70), torn=st.integers(0, 60), kind=KINDS)
    def power_cut_on_its_way(self, steps, torn, kind):
        self.publish(kind)
        self.cut(steps, torn, self.look)

    @rule(
        steps=st.integers(0, 9),
        torn=st.integers(0, 60),
        what=st.sampled_from(["rollback", "traffic", "promote", "pin", "stay", "hold", "look"]),
        data=st.data(),
    )
    def power_cut(self, steps, torn, what, data):
        version = data.draw(st.integers(1, max(1, len(self.published))))

        def step():
            promotion = self.device.promotion
            if what == "traffic":
                self.live_traffic(True, 3, 120.0)
            elif what == "rollback":
                self.rollback()
            elif what == "look":
                self.look()
            elif what == "hold":
                self.command("unhold" if promotion.state.hold else "hold")
            elif version in self.published:
                chosen = promotion.state.active if what == "stay" else version
                self.force(chosen or version, pin=what != "promote")

        self.cut(steps, torn, step)

    def cut(self, steps, torn, step):
        disk = self.device.disk
        disk.left, disk.torn = steps, torn
        try:
            step()
        except PowerCut:
            self.cuts += 1
            self.boot()
        disk.left = None

    @rule(which=st.sampled_from(["active", "candidate", "previous"]), at=st.integers(0, 10**6))
    def rot_and_restart(self, which, at):
        version = getattr(self.device.promotion.state, which)
        if version in self.stored() and (self.releases / str(version) / "model.onnx").exists():
            flip(self.releases / str(version) / "model.onnx", at)
            self.boot()

    @rule(steps=st.integers(0, 8), torn=st.integers(0, 60))
    def power_cut_while_starting(self, steps, torn):
        disk = self.device.disk
        disk.torn = torn
        try:
            self.device.boot(cut_after=steps)
        except PowerCut:
            self.cuts += 1
            self.boot()
        else:
            self.note_start()
        disk.left = None


TestPower = Power.TestCase
TestPower.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


def test_the_machine_has_come_by_every_transition():
    """Run after it: a machine that reaches little proves little."""
    if not REACHED:
        pytest.skip("the machine has not run")
    # Rare here; each has a test of its own.
    kinds = set(get_args(Kind)) - {"restored", "dropped"} | {"reverted", "swap", "cuts"}
    assert {kind: REACHED[kind] for kind in kinds if not REACHED[kind]} == {}, REACHED
