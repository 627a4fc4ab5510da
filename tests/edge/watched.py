"""What is seen of a device that goes through everything, beside a model of its own.

The model knows what the owner signed, what lies intact on the disk and what the journal says.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant
from msgspec import structs

from edge_agent.contracts.model import sha256

from .device import SETTINGS, Clock, Device
from .owner import Owner
from .record import events, took_place
from .releases import Made, expected_wind

DAY = 86400.0
BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
#: A wind that every release answers, and one that a bad one answers with NaN.
FAIR, CALM = [4.0, 270.0], [0.5, 90.0]
KINDS = st.sampled_from(["good", "good", "good", "golden", "nan", "wild"])
#: Why a release may step back; `older` is none.
CAUSES = {"lost", "command", "promote", "pin", "pinned", "withdrawn", "damaged", "errors"}
#: Bias of a release that is nothing like the others, m/s.
WILD = 1000.0


#: What all machines together have come by.
REACHED: Counter[str] = Counter()


class Published(NamedTuple):
    made: Made
    kind: str
    bias: float
    model: str
    """sha256."""


def flip(path, at):
    """Turn one bit of a file, past whatever watches the disk."""
    data = path.read_bytes()
    if data:
        at %= len(data)
        descriptor = os.open(path, os.O_WRONLY)
        os.pwrite(descriptor, bytes([data[at] ^ 1 << at % 8]), at)
        os.close(descriptor)


class Watched(RuleBasedStateMachine):
    """One device and one owner, and what must hold whatever comes between them."""

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
                steps = took_place(self.journal())
                steps += [structs.asdict(p.transition) for p in promotion._pending]
                news = [e for e in steps if e["sequence"] > self.sequence]
                down = [e["version"] for e in news if e["kind"] == "rolled_back"]
                up = [e["version"] for e in news if e["kind"] == "active"]
                # A rule may go down by command and up again to a version that the owner has pinned.
                on_record = now in down or (now in up and any(v < now for v in down))
                assert on_record, f"{self.seen} became {now} off the record"
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
        return events(self.device.config.state)

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

    def every_step_has_a_cause(self):
        held = 0
        for step in took_place(self.journal()):
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
        journal = self.journal()
        REACHED.update(e.get("kind", e["event"]) for e in journal)
        REACHED["cuts"] += self.cuts
        cut = sum(e["event"] == "reverted" for e in journal)
        refused = [e["version"] for e in journal if e.get("kind") == "refused"]
        for version in set(refused):
            assert refused.count(version) <= 1 + self.forced.count(version) + cut + self.cuts
