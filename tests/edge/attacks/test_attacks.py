"""Attacks on the way from the repository to the device, each by its name.

The names are those of the TUF specification (section 1.5.2) and of python-tuf's own tests. In each
an agent answers without a pause; what is attacked is refused, with a reason that log, status and
metric tell; and once the attack is over, the next good release comes through.
"""

import shutil
from datetime import UTC, datetime

import pytest
from tuf.api.metadata import MetaFile

from edge_agent.contracts.model import canonical_json, sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import target_file
from tests.edge.conftest import wait_until
from tests.edge.owner import Owner, signer
from tests.edge.releases import NAME, make_release, publish_release
from tests.edge.web import endless, silent, trickle, trickle_head

DAY = 86400.0


def flip(path, at=-20):
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def save(scene, name):
    """Keep the repository as it is now; the attacker has it too."""
    shutil.copytree(scene.repository, scene.folder / name)


def bring_back(scene, name):
    """Put the repository back as it was."""
    shutil.rmtree(scene.repository)
    shutil.copytree(scene.folder / name, scene.repository)


def comes_through(scene, version):
    """The owner's next release reaches the device."""
    scene.publish(version)
    assert scene.pull() == version, scene.agent.source_trouble
    assert scene.agent.source_trouble is None
    assert scene.agent.refused == []
    # Whoever asks all the while gets its answers.
    wait_until(lambda: version in scene.served)


@pytest.mark.parametrize("which", ["model", "manifest", "golden"])
def test_tampered_model(scene, which):
    made = scene.publish(2)
    target = {
        "model": made.release.model,
        "manifest": made.ref.manifest,
        "golden": made.release.golden.outputs["wind"],
    }[which]
    whole = made.path(target).read_bytes()
    flip(made.path(target))
    scene.refused("digest")
    made.path(target).write_bytes(whole)
    assert scene.pull() == 2, "a good file is not kept out by a bad copy of it"
    assert scene.agent.refused == []


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_tampered_metadata(scene, role):
    scene.publish(2)
    owner = scene.owner
    if role == "root":
        owner.bump("root")
        owner.write("root")
    path = owner.path(role)
    whole = path.read_bytes()
    # A number inside what is signed, so that it stays JSON.
    expires = str(getattr(owner, role).signed.expires.year).encode()
    assert expires in whole
    path.write_bytes(whole.replace(expires, b"2099"))
    scene.refused("signature")
    path.write_bytes(whole[: len(whole) // 2])
    scene.refused("format")
    path.write_bytes(whole)
    assert scene.pull() == 2
    comes_through(scene, 3)


def test_rollback_to_an_old_version(scene):
    save(scene, "old")
    scene.publish(2)
    assert scene.pull() == 2
    save(scene, "new")
    bring_back(scene, "old")
    scene.refused("version", serving=2)
    # The same after a power cut that emptied python-tuf's cache, on a device started anew.
    scene.stop()
    for file in (scene.folder / "state" / "trust" / "metadata").iterdir():
        if file.is_file() and not file.is_symlink():
            file.write_bytes(b"")
    scene.start()
    scene.refused("version", serving=2)
    scene.stop()
    shutil.rmtree(scene.folder / "state" / "trust" / "metadata")
    scene.start()
    scene.refused("version", serving=2)
    bring_back(scene, "new")
    assert scene.pull() == 2
    comes_through(scene, 3)
    assert scene.served == {1, 2, 3}


def test_rollback_of_the_targets_with_stolen_online_keys(scene):
    """Snapshot and timestamp are signed with the right keys, and name old targets."""
    owner = scene.owner
    old = owner.targets.signed.version
    scene.publish(2)
    assert scene.pull() == 2
    thief = scene.owner
    for role in ("snapshot", "timestamp"):
        thief.bump(role)
    thief.snapshot.signed.meta["targets.json"] = MetaFile(old)
    thief.write("snapshot")
    thief.timestamp.signed.snapshot_meta = MetaFile(thief.snapshot.signed.version)
    thief.write("timestamp")
    scene.refused("version", serving=2)


def test_freeze(scene):
    """Whoever sits between goes on showing what was good once."""
    save(scene, "frozen")
    scene.publish(2)
    save(scene, "new")
    bring_back(scene, "frozen")
    assert scene.pull() == 1
    scene.clock.advance(31 * DAY)
    scene.refused("expired")
    # A device whose clock is behind after a restart is not fooled: it has seen a later time.
    scene.stop()
    scene.start()
    scene.refused("expired")
    bring_back(scene, "new")
    scene.refused("expired")
    comes_through(scene, 3)
    assert scene.served == {1, 3}


def test_freeze_with_the_clock_set_back(scene):
    """Time is taken to be no earlier than at the last good look, so the expired stays expired."""
    owner = scene.owner
    owner.days = 1.0
    owner.publish()
    save(scene, "frozen")
    scene.clock.advance(10 * DAY)
    scene.publish(2)
    assert scene.pull() == 2
    scene.stop()
    scene.clock.advance(-3000 * DAY)
    shutil.rmtree(scene.folder / "state" / "trust" / "metadata")
    (scene.repository / "metadata" / "timestamp.json").unlink()
    shutil.copytree(scene.folder / "frozen", scene.repository, dirs_exist_ok=True)
    scene.start()
    scene.refused("expired", serving=2)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_mix_and_match(scene, role):
    """Metadata of one time beside those of another, each well signed."""
    old = scene.owner.path(role).read_bytes()
    scene.publish(2)
    path = scene.owner.path(role)
    whole = path.read_bytes()
    path.write_bytes(old)
    scene.refused("version")
    path.write_bytes(whole)
    assert scene.pull() == 2


@pytest.mark.parametrize("what", ["model.onnx", "timestamp.json", "targets.json", "index.json"])
def test_endless_data(scene, what):
    scene.publish(2)
    scene.site.tricks[what] = endless
    sent = scene.site.bytes_sent
    scene.refused("length")
    assert scene.site.bytes_sent - sent < 32 * 2**20, "it stops reading at the signed length"
    assert not list((scene.folder / "state" / "downloads").glob("*model*"))
    scene.site.tricks.clear()
    assert scene.pull() == 2


@pytest.mark.parametrize("how", [trickle, trickle_head, silent])
@pytest.mark.parametrize("what", ["model.onnx", "timestamp.json"])
def test_slow_retrieval(scene, what, how):
    scene.stop()
    scene.start(read_seconds=0.5, min_bytes_per_second=1e6)
    scene.publish(2)
    scene.site.tricks[what] = how
    scene.refused("slow")
    scene.site.tricks.clear()
    for _ in range(20):  # half a second is not much for an honest server on a busy machine
        if scene.pull() == 2:
            break
    assert scene.agent.versions[0] == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_wrong_key(scene, role):
    thief = scene.owner
    thief.keys[role] = [signer("thief")]
    made = make_release(scene.repository, 2, publish=False)
    if role == "root":
        thief.bump("root")
        thief.write("root")
    else:
        publish_release(made, owner=thief)
    scene.refused("signature")


def test_wrong_key_in_a_repository_of_its_own(scene):
    """All of it is the attacker's, and consistent in itself."""
    shutil.rmtree(scene.repository)
    thief = Owner.__new__(Owner)
    scene.repository.mkdir()
    for role in ("root", "targets", "snapshot", "timestamp"):
        thief.__dict__.setdefault("keys", {})[role] = [signer(f"thief {role}")]
    thief.repository, thief.metadata = scene.repository, scene.repository / "metadata"
    thief.metadata.mkdir()
    thief.now, thief.days = datetime.fromtimestamp(scene.clock.now(), UTC), 30
    thief._make()
    for role in ("targets", "snapshot", "timestamp"):
        thief.bump(role, 10)
    publish_release(make_release(scene.repository, 9, publish=False), owner=thief)
    scene.refused("signature")
    scene.restart()  # the device was set up with another root, and does not ask for a first one
    scene.refused("signature")


def test_a_replaced_first_root(scene):
    """Whoever can write beside the repository changes the file that the configuration names."""
    thief = scene.owner
    thief.root.signed.revoke_key(signer("targets").public_key.keyid, "targets")
    thief.root.signed.add_key(signer("thief").public_key, "targets")
    thief.write("root", keys=[signer("root")])
    shutil.copy(thief.path("root"), scene.folder / "root.json")
    scene.restart()
    scene.refused("root")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_revoked_key(scene, role):
    owner = scene.owner
    stolen = owner.keys[role]
    owner.rotate(role, signer(f"new {role}"))
    owner.publish()
    assert scene.pull() == 1
    assert scene.agent.source_trouble is None
    publish_release(make_release(scene.repository, 2, publish=False), owner=owner)
    right = owner.keys[role]
    owner.keys[role] = stolen
    owner.publish()
    scene.refused("signature")
    owner.keys[role] = right
    owner.publish()
    assert scene.pull() == 2


def test_revoked_root_key(scene):
    owner = scene.owner
    stolen = owner.keys["root"]
    owner.rotate("root", signer("new root"))
    owner.publish()
    assert scene.pull() == 1
    right = owner.keys["root"]
    owner.keys["root"] = stolen
    owner.rotate("targets", signer("thief"))
    scene.refused("signature")
    owner.keys["root"] = right
    owner.write("root")
    owner.publish()
    assert scene.pull() == 1
    assert scene.agent.source_trouble is None


def test_expired_root_chain(scene):
    """Roots that lead on are good although they have expired; one that ends the chain is not."""
    owner = scene.owner
    owner.days = -1
    for _ in range(3):
        owner.bump("root")
        owner.write("root")
    owner.days = 30
    owner.stamp()
    scene.refused("expired")
    scene.restart()
    scene.refused("expired")
    owner.bump("root")
    owner.write("root")
    assert scene.pull() == 1
    assert scene.agent.source_trouble is None


def test_a_root_chain_cut_short(scene):
    """The newest root, which revokes a key, is withheld from a device that has seen it."""
    owner = scene.owner
    owner.bump("root")
    newest = owner.write("root")
    owner.publish()
    assert scene.pull() == 1
    newest.rename(scene.folder / "withheld")
    scene.stop()
    shutil.rmtree(scene.folder / "state" / "trust" / "metadata")
    scene.start()
    scene.refused("version")


def test_extraneous_target(scene):
    """The index names a release whose files nobody signed."""
    made = make_release(scene.repository, 2, publish=False)
    owner = scene.owner
    index = owner.index(NAME)
    index = index.model_copy(
        update={"releases": (*index.releases, made.ref), "channels": {"stable": 2}}
    )
    owner.put_index(NAME, index.canonical_json())
    owner.publish()
    scene.refused("extraneous")
    # Signed under that name, but other bytes.
    owner.name(made.ref.manifest.model_copy(update={"sha256": sha256(b"other")}))
    owner.publish()
    scene.refused("extraneous")
    assert not scene.site.asked(made.ref.manifest.sha256)


def test_extraneous_index(scene):
    """A file beside the signed ones is never looked at; another model's index does not count."""
    fake = TargetFile(path=f"{NAME}/index.json", sha256=sha256(b"{}"), length=2)
    target_file(scene.repository, fake).write_bytes(b"{}")
    assert scene.pull() == 1
    assert not scene.site.asked(fake.sha256)
    owner = scene.owner
    other = owner.index(NAME).model_copy(update={"name": "another-house"})
    owner.put_index(NAME, other.canonical_json())
    owner.publish()
    scene.refused("extraneous")


@pytest.mark.parametrize(
    "path",
    [
        "../../../escaped",
        "a/../../../escaped",
        "/etc/escaped",
        "a/./b",
        "a//b",
        "a\\..\\b",
    ],
)
def test_target_path_traversal(scene, path):
    """A signed index with a path that leads out of the repository."""
    made = make_release(scene.repository, 2, publish=False)
    owner = scene.owner
    index = owner.index(NAME).model_dump(mode="json")
    ref = made.ref.model_dump(mode="json")
    ref["manifest"]["path"] = path
    index["releases"].append(ref)
    index["channels"]["stable"] = 2
    owner.put_index(NAME, canonical_json(index))
    owner.publish()
    before = set(scene.folder.rglob("*"))
    scene.refused("format")
    new = set(scene.folder.rglob("*")) - before
    assert all(scene.folder / "state" in p.parents for p in new)
    assert not scene.site.asked("escaped")


def test_target_path_traversal_by_a_link(scene):
    """A repository folder in which a target is a link to a file outside."""
    made = scene.publish(2)
    path = made.path(made.release.model)
    outside = scene.folder / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    scene.stop()
    scene.start(url=None)
    scene.refused("path")
    path.unlink()
    outside.rename(path)
    assert scene.pull() == 2
