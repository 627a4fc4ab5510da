"""Publishing, killed anywhere and by two at once: on a folder and in an object store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import ExitStack
from datetime import timedelta

import fsspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.errors import PublishError, RepositoryConflict, RepositoryDamaged
from apps.repository import chain, cleaning, edits, reading
from apps.repository.keys import Keyring
from apps.repository.objects import ObjectStore, open_store
from apps.repository.repository import Repository
from apps.repository.store import FolderStore
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef

from .conftest import NAME, START, Clock, Owner, release_files


@pytest.fixture(params=["folder", "object-store"])
def anywhere(request, tmp_path) -> Owner:
    store = (
        FolderStore(tmp_path / "repository")
        if request.param == "folder"
        else open_store(f"memory://{uuid.uuid4().hex}/house")
    )
    return Owner(tmp_path, store)


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A store whose user dies before or after its n-th write."""

    def __init__(self, store, left: int, *, after: bool) -> None:
        self._store, self.left, self._after = store, left, after

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in ("create", "replace", "delete"):
            return method

        def write(*arguments):
            self.left -= 1
            if self.left == 0 and not self._after:
                raise Killed
            method(*arguments)
            if self.left == 0:
                raise Killed

        return write


class Interrupted:
    """A store whose user is overtaken by somebody else, once, before a write."""

    def __init__(self, store, other, when) -> None:
        self._store, self._other, self._when = store, other, when

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in ("create", "replace"):
            return method

        def write(path, data):
            if self._other is not None and self._when(path):
                other, self._other = self._other, None
                other()
            method(path, data)

        return write


def publish(owner: Owner, store, version: int) -> None:
    files = release_files(version)
    ref = ReleaseRef(version=version, manifest=next(iter(files)))
    repository = Repository(store, Keyring(owner.online), clock=owner.clock)
    with repository.exclusive() as state:
        index = edits.listed(repository.index(state, NAME), ref)
        repository.commit(state, edits.promoted(index, version, "stable"), files)


def whole(owner: Owner) -> None:
    """Everything that the newest timestamp leads to is there and right, as a device walks."""
    anchor = (owner.online / "root.json").read_bytes()
    root = chain.roots(owner.store, anchor)[-1].signed
    timestamp = json.loads(owner.store.read(chain.TIMESTAMP))["signed"]
    number = timestamp["meta"]["snapshot.json"]["version"]
    snapshot = owner.store.read(chain.versioned(number, "snapshot"))
    number = json.loads(snapshot)["signed"]["meta"]["targets.json"]["version"]
    path = chain.versioned(number, "targets")
    targets = chain.parse(owner.store.read(path), chain.Targets, path)
    root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    for name, entry in targets.signed.targets.items():
        target = TargetFile(path=name, length=entry.length, sha256=entry.hashes["sha256"])
        chain.read_target(owner.store, target)


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_write_the_next_call_completes(anywhere, after):
    owner, version = anywhere, 1
    publish(owner, owner.store, version)
    for left in range(1, 40):
        version += 1
        mortal = Mortal(owner.store, left, after=after)
        try:
            publish(owner, mortal, version)
        except Killed:
            whole(owner)
            try:
                publish(owner, owner.store, version)
            except PublishError as error:
                assert "already published" in str(error)  # noqa: PT017
        whole(owner)
        assert owner.index().channels == {"stable": version}
        if mortal.left > 0:
            return
    raise AssertionError("a publication has no end")


SCRIPT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from apps.repository import edits
from apps.repository.keys import Keyring
from apps.repository.repository import Repository
from apps.repository.store import FolderStore
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef
folder = Path(sys.argv[1])
clock = lambda: datetime(2030, 1, 1, tzinfo=UTC)
repository = Repository(FolderStore(folder / "repository"), Keyring(folder / "keys"), clock=clock)
data = b"two"
file = TargetFile(path="house/2/release.json", sha256=sha256(data), length=len(data))
with repository.exclusive() as state:
    index = edits.listed(repository.index(state, "house"), ReleaseRef(version=2, manifest=file))
    repository.commit(state, edits.promoted(index, 2, "stable"), {file: data})
"""


@pytest.mark.parametrize(
    ("point", "published"),
    [
        ("repository.files", 1),
        ("store.write:2", 1),
        ("repository.targets", 1),
        ("repository.snapshot", 1),
        ("repository.timestamp", 2),
        ("store.write:4", 1),
        ("store.write:5", 2),
        ("repository.clean", 2),
    ],
)
def test_a_real_kill(owner, tmp_path, point, published):
    owner.publish(1)
    env = os.environ | {"RBF_FAILPOINT": point, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env)
    assert done.returncode == -signal.SIGKILL
    whole(owner)
    assert owner.index().channels == {"stable": published}
    whole(owner)
    owner.publish(3)
    whole(owner)
    assert owner.index().channels == {"stable": 3}
    assert not list(tmp_path.rglob("*.partial"))


def test_of_two_publishers_at_once_one_is_told(tmp_path):
    """In an object store nobody is kept out; both start from the same state."""
    owner = Owner(tmp_path, open_store(f"memory://{uuid.uuid4().hex}/house"))
    publish(owner, owner.store, 1)
    first, second = owner.repository(), owner.repository()
    with ExitStack() as stack:
        states = [stack.enter_context(r.exclusive()) for r in (first, second)]
        for version, repository, state in ((2, first, states[0]), (3, second, states[1])):
            files = release_files(version)
            ref = ReleaseRef(version=version, manifest=next(iter(files)))
            index = edits.listed(repository.index(state, NAME), ref)
            index = edits.promoted(index, version, "stable")
            if version == 2:
                repository.commit(state, index, files)
                continue
            with pytest.raises(RepositoryConflict, match="try again"):
                repository.commit(state, index, files)
    whole(owner)
    assert [r.version for r in owner.index().releases] == [1, 2]
    publish(owner, owner.store, 3)
    assert [r.version for r in owner.index().releases] == [1, 2, 3]
    whole(owner)


def test_a_slow_timestamp_does_not_hide_a_newer_release(tmp_path):
    """A timestamp is written over the next publisher's: who wrote it sees that and mends."""
    store = open_store(f"memory://{uuid.uuid4().hex}/house")
    owner = Owner(tmp_path, store)
    publish(owner, store, 1)

    other = lambda: publish(owner, store, 3)  # noqa: E731
    publish(owner, Interrupted(store, other, lambda path: path == chain.TIMESTAMP), 2)
    timestamp = json.loads(store.read(chain.TIMESTAMP))["signed"]
    newest = chain.load(store, None).snapshot.signed.version
    assert timestamp["meta"]["snapshot.json"]["version"] == newest
    assert owner.index().channels == {"stable": 3}
    whole(owner)


def test_old_metadata_go_and_what_is_named_stays(anywhere):
    owner = anywhere
    for version in range(1, 2 * cleaning.KEEP):
        publish(owner, owner.store, version)
    names = owner.store.names("metadata")
    assert sum("snapshot" in n for n in names) == cleaning.KEEP
    assert sum("targets" in n for n in names) == cleaning.KEEP
    assert sum("index.json" in n for n in owner.store.names("targets")) == cleaning.KEEP
    assert len(owner.index().releases) == 2 * cleaning.KEEP - 1
    whole(owner)


def test_orphans_go_where_publishers_take_turns(owner):
    owner.publish(1)
    orphan = f"targets/{NAME}/2/{'ab' * 32}.model.onnx"
    for path in (orphan, "targets/README", f"targets/{NAME}/notes.txt"):
        owner.store.create(path, b"x")
    owner.publish(2)
    left = owner.store.names("targets")
    assert orphan not in left
    assert {"targets/README", f"targets/{NAME}/notes.txt"} <= set(left)


def test_signatures_are_renewed_before_half_their_time_is_over(anywhere):
    owner, repository = anywhere, anywhere.repository()
    publish(owner, owner.store, 1)

    def versions() -> list[int]:
        with repository.exclusive() as state:
            assert repository.due(state) is (owner.clock.now > renewed + timedelta(days=1))
            new = repository.refresh(state) if repository.due(state) else state
            return [m.signed.version for m in (new.targets, new.snapshot, new.timestamp)]

    renewed = START
    first = versions()
    owner.clock.go(hours=25)
    second = versions()
    assert second == [first[0], first[1], first[2] + 1]
    renewed = owner.clock.now
    owner.clock.go(days=8)
    third = versions()
    assert third == [second[0], second[1] + 1, second[2] + 1]
    renewed = owner.clock.now
    owner.clock.go(days=400)  # everything has expired, and is signed anew all the same
    assert versions() == [third[0] + 1, third[1] + 1, third[2] + 1]


@pytest.mark.parametrize("url", ["ftp://host/r", "https://host/r", "sftp://host/r"])
def test_stores_whose_writes_are_not_atomic_are_refused(url):
    with pytest.raises(PublishError, match="not atomic"):
        open_store(url)


def test_an_object_store_creates_once():
    store = ObjectStore(fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}", "memory://")
    store.create("a/b", b"1")
    with pytest.raises(FileExistsError):
        store.create("a/b", b"2")
    store.replace("a/b", b"3")
    assert store.read("a/b") == b"3"
    assert store.names("a") == ["a/b"]
    store.delete("a/b")
    store.delete("a/b")
    assert store.names("a") == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


@pytest.mark.parametrize("file", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
@pytest.mark.parametrize("how", ["garbage", "unsigned", "missing"])
def test_nothing_is_built_on_what_the_keys_did_not_sign(owner, file, how):
    owner.publish(1)
    path = f"metadata/{file}"
    data = owner.store.read(path)
    match how:
        case "garbage":
            owner.store.replace(path, data[:-20])
        case "unsigned":
            owner.store.replace(path, data.replace(b'"version":', b'"x":1,"version":', 1))
        case "missing":
            owner.store.delete(path)
    with pytest.raises(RepositoryDamaged):
        owner.publish(2)


class Publishers(RuleBasedStateMachine):
    """Two publishers, kills at any write, refreshes, withdrawals and pins, on an object store."""

    @initialize()
    def begin(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        store = open_store(f"memory://{uuid.uuid4().hex}/house")
        self.owner = Owner(Path(self.folder.name), store, clock=Clock())
        self.version = 0
        self.done: set[int] = set()
        self.seen = 0

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(left=st.integers(1, 14), after=st.booleans())
    def publish(self, left, after):
        self.version += 1
        store = Mortal(self.owner.store, left, after=after)
        try:
            publish(self.owner, store, self.version)
        except Killed:
            return
        self.done.add(self.version)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def withdraw(self, data):
        version = data.draw(st.sampled_from(sorted(self.done)))
        self.owner.edit(lambda index: edits.withdrawn(index, version, "bad"))
        assert version in self.owner.index().withdrawn

    @rule(left=st.integers(1, 6), hours=st.integers(0, 24 * 40), everything=st.booleans())
    def refresh(self, left, hours, everything):
        self.owner.clock.go(hours=hours)
        store = Mortal(self.owner.store, left, after=True)
        repository = Repository(store, Keyring(self.owner.online), clock=self.owner.clock)
        try:
            with repository.exclusive() as state:
                repository.refresh(state, everything=everything)
        except Killed:
            pass

    @rule(at=st.integers(1, 8))
    def two_at_once(self, at):
        """The second starts while the first is somewhere in the middle."""
        owner, outer = self.owner, self
        self.version += 2
        inner = self.version

        def other():
            publish(owner, owner.store, inner)
            outer.done.add(inner)

        writes = iter(range(1, 100))
        try:
            publish(owner, Interrupted(owner.store, other, lambda _: next(writes) == at), inner - 1)
        except PublishError:
            pass  # told that somebody was faster, or refused below what they published
        else:
            self.done.add(inner - 1)

    @invariant()
    def devices_find_everything(self):
        if not hasattr(self, "owner"):
            return
        whole(self.owner)
        timestamp = json.loads(self.owner.store.read(chain.TIMESTAMP))["signed"]["version"]
        assert timestamp >= self.seen
        self.seen = timestamp

    @invariant()
    def what_is_published_stays(self):
        if not hasattr(self, "owner"):
            return
        state = chain.load(self.owner.store, None)
        if reading.names(state.targets):
            listed = {
                r.version for r in chain.read_index(self.owner.store, state.targets, NAME).releases
            }
            assert self.done <= listed


Publishers.TestCase.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, phases=(Phase.explicit, Phase.generate)
)
TestPublishers = Publishers.TestCase
