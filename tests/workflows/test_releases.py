"""A campaign's own repository: made once, kept fresh, or its owner's."""

from datetime import timedelta

import pytest

from apps.repository import chain, keys, roots
from apps.repository.keys import new_passphrase
from apps.repository.signing import utc_now
from apps.repository.store import FolderStore
from apps.repository.verify import verify
from workflows.errors import CampaignError
from workflows.layout import RunFolder
from workflows.releases import Freshness, prepare


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "SCRYPT", {"n": 2, "r": 1, "p": 1})
    return RunFolder(tmp_path)


def files(folder):
    names = ("repository", "keys")
    return {p: p.read_bytes() for n in names for p in (folder.root / n).rglob("*") if p.is_file()}


def test_it_is_made_once_and_says_where_its_keys_are(folder):
    said = prepare(folder)
    assert str(folder.keys.parent) in said
    assert "elsewhere" in said
    before = files(folder)
    prepare(folder)
    assert files(folder) == before
    assert not verify(FolderStore(folder.repository), None).problems
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.keys.parent.rglob("*") if p.is_file())


def test_the_timestamp_is_renewed_in_time(folder):
    prepare(folder)
    assert not Freshness(folder).tick()
    later = utc_now() + timedelta(days=16)
    fresh = Freshness(folder, clock=lambda: later)
    assert fresh.tick()
    assert not fresh.tick(), "it does not look again at once"
    state = chain.load(FolderStore(folder.repository), None)
    assert state.timestamp.signed.version == 2
    assert state.timestamp.signed.expires > later + timedelta(days=29)


def test_a_repository_that_cannot_be_written_ends_no_campaign(folder):
    prepare(folder)
    next(folder.keys.glob("timestamp*.key")).unlink()
    later = utc_now() + timedelta(days=16)
    assert not Freshness(folder, clock=lambda: later).tick()


def test_its_owners_repository_is_used_as_it_is(folder, tmp_path):
    stick = [tmp_path / "stick"]
    store = FolderStore(folder.repository)
    roots.init(store, folder.keys, stick, passphrase=new_passphrase)
    assert "elsewhere" in prepare(folder)
    assert not folder.root_keys.exists()
    (folder.keys / "root.json").write_bytes(b"{}")
    with pytest.raises(CampaignError, match="another repository"):
        prepare(folder)
