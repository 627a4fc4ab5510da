"""Everything that can happen to a device, in any order, with power cuts at every step of its disk.

The rules publish, damage, cut off, command; the invariants are checked against a model of its own,
which knows what the owner signed, what lies intact on the disk and what the journal says.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.model import sha256
from edge_agent.contracts.repository import Index
from edge_agent.lifecycle import Kind

from .device import SETTINGS, Clock, Device, PowerCut
from .owner import Owner, signer
from .releases import NAME, Made, expected_wind, make_release, model_bytes, publish_release

DAY = 86400.0
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
#: A wind that every release answers, and one that a bad one answers with NaN.
FAIR, CALM = [4.0, 270.0], [0.5, 90.0]
KINDS = st.sampled_from(["good", "good", "good", "golden", "nan", "wild"])
#: Why a release may step back; `older` is none.
CAUSES = {"lost", "command", "promote", "pin", "pinned", "withdrawn", "damaged", "errors"}
#: Bias of a release that is nothing like the others, m/s.
WILD = 1000.0


class Published(NamedTuple):
    made: Made
    kind: str
    bias: float
    model: str
    """sha256."""


class Power(RuleBasedStateMachine):
    """One device, one owner, and what comes between them."""

    def __init__(self):
        super().__init__()
        fast = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=fast if fast.is_dir() else None))
        self.repository = self.folder / "repository"
        self.clock = Clock(BEGIN.timestamp())
        self.owner = Owner(self.repository, now=BEGIN, days=3650)
        self.device = Device(self.folder, self.clock)
        self.published: dict[int, Published] = {}
        self.withdrawn: dict[int, str] = {}
        self.rotations = 0
        self.damaged: dict[Path, bytes] = {}
        # What was seen of the device.
        self.seen: int | None = None
        self.sequence = 0
        self.must_serve = False
        self.forced: list[int] = []
        self.ever_withdrawn: set[int] = set()
        self.cuts = 0
        self.device.install()
        self.device.boot()

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
            # What is in the shadow of a release that answers, and does not itself.
            shown = calm and kinds[0] != "nan" and promotion.state.shadow is not None
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

    # What must hold.

    @invariant()
    def only_verified_bytes_are_loaded(self):
        signed = {p.model for p in self.published.values()}
        assert signed.issuperset(self.device.loaded), "an unverified model was loaded"
        self.device.loaded.clear()

    @invariant()
    def a_verified_release_serves(self):
        agent = self.device.agent
        if not agent.ready:
            assert not self.must_serve, "nothing serves although something could"
            return
        self.must_serve = True
        found = agent.predict([FAIR])
        published = self.published[found.version]
        expected = expected_wind(np.array([FAIR], np.float32), published.bias)
        np.testing.assert_allclose(found.wind, expected, atol=1e-2)
        assert published.kind != "golden", "it misses its golden examples"
        assert self.device.promotion.state.active == found.version, "what is on record serves"

    @invariant()
    def the_version_goes_down_on_record_alone(self):
        agent, promotion = self.device.agent, self.device.promotion
        if agent.ready:
            now = agent.versions[0]
            if self.seen is not None and now < self.seen:
                steps = [e for e in self.journal() if e["event"] == "transition"]
                steps += [structs.asdict(p.transition) for p in promotion._pending]
                assert any(
                    (e["kind"], e["version"]) == ("rolled_back", now)
                    and e["sequence"] > self.sequence
                    for e in steps
                ), f"{self.seen} became {now} off the record"
            self.seen = now
        self.sequence = promotion.state.sequence

    @invariant()
    def what_serves_is_not_withdrawn_if_anything_else_can(self):
        agent, state = self.device.agent, self.device.promotion.state
        if not agent.ready or self.device.disk.full:
            return
        active = agent.versions[0]
        if active in state.withdrawn and self.looked:
            bad = {r.version for r in state.refused} | state.withdrawn.keys() | {state.held}
            other = [v for v in self.stored() if v not in bad and self.servable(v)]
            assert not other, f"withdrawn {active} serves beside {other}"

    # The model of the device's disk.

    @property
    def releases(self):
        return self.device.config.state / "releases"

    @property
    def looked(self):
        return self.device.agent.source_trouble is None

    def stored(self):
        if not self.releases.is_dir():
            return []
        return [int(p.name) for p in self.releases.iterdir() if p.name.isdigit()]

    def servable(self, version):
        """Whether the device's copy is what the owner signed, and fit to serve."""
        published = self.published[version]
        release = published.made.release
        wanted = {
            "release.json": published.made.ref.manifest,
            "model.onnx": release.model,
            "golden_inputs.npy": release.golden.inputs,
            **{f"golden_{n}.npy": t for n, t in release.golden.outputs.items()},
        }
        folder = self.releases / str(version)
        try:
            intact = all(sha256((folder / n).read_bytes()) == t.sha256 for n, t in wanted.items())
            reference = json.loads((folder / "ref.json").read_bytes())
        except (OSError, ValueError):
            return False
        good = reference == json.loads(published.made.ref.canonical_json())
        return intact and good and published.kind != "golden"

    def journal(self):
        events = []
        for path in sorted(self.device.config.state.glob("journal*.jsonl"), reverse=True):
            for line in path.read_bytes().splitlines():
                with suppress(ValueError):
                    events.append(json.loads(line))
        return events

    def boot(self):
        self.device.boot()
        self.note_start()

    def note_start(self):
        self.must_serve = any(self.servable(v) for v in self.stored())

    def damage(self, path, at):
        if path.exists() and path not in self.damaged:
            self.damaged[path] = path.read_bytes()
            flip(path, at)

    def teardown(self):
        try:
            self.converges()
            self.never_in_a_loop()
            self.every_step_has_a_cause()
        finally:
            self.device.uninstall()
            shutil.rmtree(self.folder)

    def converges(self):
        """Once all is well again, the next good release comes to serve."""
        self.device.disk.full = False
        self.device.online = True
        self.repair()
        self.clock.wall = max(self.clock.wall, BEGIN.timestamp())
        while self.clock.wall > (BEGIN + timedelta(days=3000)).timestamp():
            self.clock.wall -= 1000 * DAY
        self.boot()
        self.device.promotion.unpin()
        self.device.promotion.hold(hold=False)
        odd = [v for v, p in self.published.items() if p.kind in ("wild", "nan")]
        self.withdrawn |= dict.fromkeys(odd, "it is bad")
        if self.published:
            self.put_index(withdrawn=self.withdrawn, pins={})
        self.publish("good")
        for _ in range(3):
            self.look()
            self.live_traffic(False, 4, SETTINGS.shadow_seconds)
            self.a_verified_release_serves()
            self.the_version_goes_down_on_record_alone()
        agent = self.device.agent
        why = f"{self.device.promotion.state}; {agent.source_trouble}"
        assert agent.versions[:1] == [len(self.published)], why

    def steps(self):
        """The transitions that took place, in order."""
        found = []
        for event in self.journal():
            if event["event"] in ("transition", "reverted"):
                while found and found[-1]["sequence"] >= event["sequence"]:
                    found.pop()
            if event["event"] == "transition":
                found.append(event)
        return found

    def every_step_has_a_cause(self):
        held = 0
        for step in self.steps():
            version, left, code = step["version"], step["from_version"], step["code"]
            if step["kind"] in ("shadow", "active") and code == "newer":
                assert version > held, f"{version} was rolled back from and is taken again"
            if step["kind"] == "rolled_back":
                assert code in CAUSES, f"{left} became {version}: {code}"
                assert code != "errors" or self.published[left].kind == "nan"
                assert code != "withdrawn" or left in self.ever_withdrawn
                assert code not in ("pin", "promote") or version in self.forced
                if left > version and code not in ("damaged", "pin", "pinned", "lost"):
                    held = max(held, left)
            if step["kind"] in ("active", "rolled_back") and version >= held:
                held = 0

    def never_in_a_loop(self):
        """A release is refused once, unless a command or a cut in the middle brought it back."""
        events = self.journal()
        REACHED.update(e.get("kind", e["event"]) for e in events)
        REACHED["cuts"] += self.cuts
        cut = sum(e["event"] == "reverted" for e in events)
        refused = [e["version"] for e in events if e.get("kind") == "refused"]
        for version in set(refused):
            assert refused.count(version) <= 1 + self.forced.count(version) + cut + self.cuts


#: What all machines together have come by.
REACHED: Counter[str] = Counter()


def flip(path, at):
    """Turn one bit of a file, past whatever watches the disk."""
    data = path.read_bytes()
    if data:
        at %= len(data)
        descriptor = os.open(path, os.O_WRONLY)
        os.pwrite(descriptor, bytes([data[at] ^ 1 << at % 8]), at)
        os.close(descriptor)


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
