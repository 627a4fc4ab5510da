"""What a device believes, and what it goes on believing when its disk or clock fails it."""

import contextlib
import shutil
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.repository import edits, roots
from apps.repository.keys import Keyring, new_passphrase
from apps.repository.repository import Repository
from apps.repository.store import FolderStore
from edge_agent.clock import ManualClock, SystemClock
from edge_agent.contracts.errors import ReleaseError, Untrusted, UpdateUnavailable
from edge_agent.contracts.repository import index_path
from edge_agent.settings import UpdateSettings
from edge_agent.updates import verify
from edge_agent.updates.signed import SignedSource
from edge_agent.updates.transport import FolderTransport
from edge_agent.updates.trust import ROLES, SeenRole, Trust, check_versions

from .owner import Owner, first_root, follower, signer
from .releases import NAME, make_release

KEYS = st.sampled_from([("a",), ("b",), ("a", "b")])
SEEN = st.builds(SeenRole, version=st.integers(1, 5), keys=KEYS)


@given(
    seen=st.dictionaries(st.sampled_from(ROLES), SEEN),
    found=st.fixed_dictionaries(dict.fromkeys(ROLES, SEEN)),
)
def test_versions_never_go_down_but_for_new_keys(seen, found):
    lower = {
        role
        for role, before in seen.items()
        if found[role].version < before.version
        and (role == "root" or found[role].keys == before.keys)
    }
    if lower:
        with pytest.raises(Untrusted, match="which this device has seen") as refused:
            check_versions(seen, found)
        assert refused.value.role in lower
        assert refused.value.reason == "version"
    else:
        check_versions(seen, found)


class Counting(FolderTransport):
    """Counts what is asked for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.asked = Counter()

    @contextlib.contextmanager
    def open(self, path, *, offset=0, seconds):
        self.asked[path.rsplit("/")[-1]] += 1
        with super().open(path, offset=offset, seconds=seconds) as body:
            yield body


def device(folder, repository, clock=None):
    transport = Counting(repository)
    trust = Trust(folder / "trust", first_root(repository))
    return SignedSource(transport, trust, clock or SystemClock(), UpdateSettings()), transport.asked


def test_a_look_at_an_unchanged_repository_reads_two_small_files(tmp_path, monkeypatch):
    make_release(tmp_path / "repository", 1)
    source, asked = device(tmp_path, tmp_path / "repository")
    first = source.index(NAME)
    asked.clear()
    monkeypatch.setattr(verify, "refresh", None)  # nothing is parsed or verified
    assert source.index(NAME) is first
    assert dict(asked) == {"2.root.json": 1, "timestamp.json": 1}


def test_a_change_is_read_once(tmp_path):
    make_release(tmp_path / "repository", 1)
    source, asked = device(tmp_path, tmp_path / "repository")
    source.index(NAME)
    asked.clear()
    make_release(tmp_path / "repository", 2)
    assert source.index(NAME).channels == {"stable": 2}
    assert set(asked.values()) == {1}
    names = {name.split(".", 1)[1] for name in asked}
    assert names == {"root.json", "json", "snapshot.json", "targets.json", "index.json"}
    # A device that starts anew has the index already.
    source, asked = device(tmp_path, tmp_path / "repository")
    assert source.index(NAME).channels == {"stable": 2}
    assert not [name for name in asked if "index" in name]


def test_a_new_root_alone_is_noticed(tmp_path):
    make_release(tmp_path / "repository", 1)
    source, _ = device(tmp_path, tmp_path / "repository")
    source.index(NAME)
    owner = Owner(tmp_path / "repository")
    owner.rotate("timestamp", signer("new timestamp"))  # and nothing signed with it yet
    with pytest.raises(Untrusted) as found:
        source.index(NAME)
    assert found.value.reason == "signature"
    owner.stamp()
    assert source.index(NAME).channels == {"stable": 1}


def test_it_expires_even_if_nothing_changes_and_comes_back_with_the_clock(tmp_path):
    clock = ManualClock()
    owner = Owner(tmp_path / "repository", now=datetime.fromtimestamp(clock.now(), UTC))
    owner.publish()
    source, _ = device(tmp_path, tmp_path / "repository", clock)
    source.index(NAME)
    assert source.expires_at == pytest.approx(clock.now() + 30 * 86400, abs=1)
    assert source.refreshed_at == clock.now()
    clock.advance(31 * 86400)
    for _ in range(2):
        with pytest.raises(Untrusted) as found:
            source.index(NAME)
        assert found.value.reason == "expired"
    clock.advance(-31 * 86400)
    assert source.index(NAME).channels == {}
    again, _ = device(tmp_path, tmp_path / "repository", clock)
    assert again.index(NAME).channels == {}


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "timestamp.json",
                "snapshot.json",
                "targets.json",
                "root.json",
                "root_history/1.root.json",
                "root_history/2.root.json",
            ]
        ),
        st.none() | st.binary(max_size=40) | st.just("folder") | st.just("other"),
    ),
    st.sampled_from(["kept", "gone", "damaged"]),
    st.booleans(),
)
def test_a_damaged_cache_is_filled_again_from_the_first_root(
    template, tmp_path_factory, harm, index, replayed
):
    """Whatever a power cut leaves of python-tuf's cache: no older repository is believed after it,
    and the newest one is, at once or after one more look."""
    folder = tmp_path_factory.mktemp("t") / "device"
    shutil.copytree(template / "device", folder, symlinks=True)
    cache = folder / "trust" / "metadata"
    for name, what in harm.items():
        path = cache / name
        path.unlink(missing_ok=True)
        if what == "folder":
            path.mkdir()
        elif what == "other":
            path.write_bytes((template / "old" / "metadata" / "timestamp.json").read_bytes())
        elif what is not None:
            path.write_bytes(what)
    if index != "kept":
        (folder / "trust" / "index.json").unlink()
    if index == "damaged":
        (folder / "trust" / "index.json").write_bytes(b"rust")
    if replayed:
        source = follower(template / "old", folder)
        for _ in range(2):
            with pytest.raises((Untrusted, OSError)):
                source.index(NAME)
    source = follower(template / "new", folder)
    with contextlib.suppress(OSError):
        assert source.index(NAME).channels == {"stable": 2}
    assert source.index(NAME).channels == {"stable": 2}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository as it was, as it is, and a device that has seen both."""
    folder = tmp_path_factory.mktemp("template")
    make_release(folder / "new", 1)
    follower(folder / "new", folder / "device").index(NAME)
    shutil.copytree(folder / "new", folder / "old")
    owner = Owner(folder / "new")
    owner.bump("root")
    owner.write("root")
    make_release(folder / "new", 2)
    follower(folder / "new", folder / "device").index(NAME)
    return folder


def test_a_damaged_record_leaves_the_caches_own_protection(tmp_path):
    make_release(tmp_path / "repository", 1)
    shutil.copytree(tmp_path / "repository", tmp_path / "old")
    make_release(tmp_path / "repository", 2)
    follower(tmp_path / "repository", tmp_path).index(NAME)
    (tmp_path / "trust" / "seen.json").write_bytes(b"rust")
    with pytest.raises(Untrusted):
        follower(tmp_path / "old", tmp_path).index(NAME)
    assert follower(tmp_path / "repository", tmp_path).index(NAME).channels == {"stable": 2}


def test_the_first_root_is_kept_from_the_first_look_on(tmp_path):
    repository = tmp_path / "repository"
    given = tmp_path / "given.json"
    trust = Trust(tmp_path / "trust", given)
    source = SignedSource(FolderTransport(repository), trust, SystemClock(), UpdateSettings())
    with pytest.raises(UpdateUnavailable, match="no trusted root yet"):
        source.index(NAME)
    make_release(repository, 1)
    given.write_bytes(b"no root")
    with pytest.raises(Untrusted):
        source.index(NAME)
    assert not (tmp_path / "trust" / "root.json").exists(), "what leads nowhere is not kept"
    shutil.copy(first_root(repository), given)
    source.index(NAME)
    given.unlink()
    assert trust.first_root() == first_root(repository).read_bytes()
    given.write_bytes(b"another")
    with pytest.raises(Untrusted, match="is not the root that this device trusts"):
        trust.first_root()


def test_stolen_online_keys_that_ran_ahead_are_left_behind_by_new_ones(tmp_path):
    """Fast-forward: the thief signs version 10^6; with new keys the owner starts below it."""
    make_release(tmp_path / "repository", 1)
    source = follower(tmp_path / "repository", tmp_path)
    owner = Owner(tmp_path / "repository")
    before = owner.versions
    owner.bump("snapshot", 10**6)
    owner.bump("timestamp", 10**6)
    owner.refer()
    owner.write("snapshot")
    owner.write("timestamp")
    source.index(NAME)
    for role in ("timestamp", "snapshot"):
        getattr(owner, role).signed.version = before[role]
    owner.publish()
    with pytest.raises(Untrusted, match="version"):
        source.index(NAME)
    for role in ("timestamp", "snapshot"):
        owner.rotate(role, signer(f"new {role}"))
    owner.publish()
    assert source.index(NAME).channels == {"stable": 1}
    assert follower(tmp_path / "repository", tmp_path).index(NAME).channels == {"stable": 1}


def test_nonsense_that_is_signed_is_refused_by_name(tmp_path):
    owner = Owner(tmp_path / "repository")
    source = follower(tmp_path / "repository", tmp_path)
    assert source.index(NAME).releases == ()
    for data in (b"", b"{}", b'{"name": 3}', b"[" * 10_000):
        owner.put_index(NAME, data)
        owner.publish()
        with pytest.raises(ReleaseError) as found:
            source.index(NAME)
        assert found.value.reason == "format"
    owner.targets.signed.targets[index_path(NAME)].hashes["sha256"] = "no digest"
    owner.publish()
    with pytest.raises(Untrusted) as found:
        source.index(NAME)
    assert found.value.reason == "format"
    owner.targets.signed.targets[index_path(NAME)].hashes["sha256"] = "0" * 64
    owner.targets.signed.targets[index_path(NAME)].length = 2**40
    owner.publish()
    with pytest.raises(Untrusted) as found:
        source.index(NAME)
    assert found.value.reason == "length"


def test_the_projects_own_repository_through_new_keys_and_a_new_root(tmp_path):
    """What `apps.repository` writes: publish, rotate, publish again."""
    store = FolderStore(tmp_path / "repository")
    owner = roots.init(
        store, tmp_path / "online", [tmp_path / "root-keys"], passphrase=new_passphrase
    )
    source = follower(tmp_path / "repository", tmp_path)
    assert source.index(NAME).releases == ()
    for version in (1, 2):
        made = make_release(tmp_path / "made", version, bias=float(version))
        files = {t: made.path(t).read_bytes() for t in (made.ref.manifest, *made.release.files())}
        with owner.exclusive() as state:
            index = edits.listed(owner.index(state, NAME), made.ref)
            owner.commit(state, edits.promoted(index, version, "stable"), files)
        index = source.index(NAME)
        assert index.channels == {"stable": version}
        for target, data in files.items():
            with source.open(target) as body:
                assert b"".join(body.chunks) == data
        owner = Repository(store, Keyring(tmp_path / "online"))
        with owner.exclusive() as state:
            owner.refresh(state, everything=True)
    again = follower(tmp_path / "repository", tmp_path)
    assert again.index(NAME).channels == {"stable": 2}
