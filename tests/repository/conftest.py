"""Repositories with real keys, cheap to unlock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.repository import edits, keys, roots
from apps.repository.keys import Keyring
from apps.repository.repository import Repository
from apps.repository.roots import Policy
from apps.repository.store import FolderStore, Store
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import Index, ReleaseRef

NAME = "house"
START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session", autouse=True)
def _cheap_keys():
    """The cost is in each file, so the real code reads these."""
    before, keys.SCRYPT = keys.SCRYPT, {"n": 2, "r": 1, "p": 1}
    yield
    keys.SCRYPT = before


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, **how: float) -> None:
        self.now += timedelta(**how)


@dataclass
class Owner:
    """A repository's owner: keyrings, store and clock."""

    folder: Path
    store: Store
    root_keys: tuple[Path, ...] = ()
    policy: Policy | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.root_keys = self.root_keys or (self.folder / "root-keys",)
        roots.init(
            self.store,
            self.online,
            self.root_keys,
            policy=self.policy,
            passphrase=keys.new_passphrase,
            clock=self.clock,
        )

    @property
    def online(self) -> Path:
        return self.folder / "keys"

    def repository(self, *extra: Path) -> Repository:
        return Repository(self.store, Keyring(self.online, *extra), clock=self.clock)

    def edit(self, change: Callable[[Index], Index]) -> Index:
        repository = self.repository()
        with repository.exclusive() as state:
            index = change(repository.index(state, NAME))
            repository.commit(state, index)
        return index

    def publish(self, version: int, channel: str = "stable", size: int = 10) -> ReleaseRef:
        files = release_files(version, size)
        ref = ReleaseRef(version=version, manifest=next(iter(files)))
        repository = self.repository()
        with repository.exclusive() as state:
            index = edits.listed(repository.index(state, NAME), ref)
            repository.commit(state, edits.promoted(index, version, channel), files)
        return ref

    def index(self) -> Index:
        repository = self.repository()
        with repository.exclusive() as state:
            return repository.index(state, NAME)


def release_files(version: int, size: int = 10) -> dict[TargetFile, bytes]:
    contents = {"release.json": b"{}" * size, "model.onnx": bytes([version % 251]) * size}
    return {
        TargetFile(path=f"{NAME}/{version}/{file}", sha256=sha256(data), length=len(data)): data
        for file, data in contents.items()
    }


@pytest.fixture
def owner(tmp_path) -> Owner:
    return Owner(tmp_path, FolderStore(tmp_path / "repository"))


@pytest.fixture
def make_owner(tmp_path):
    def make(**options) -> Owner:
        return Owner(tmp_path, FolderStore(tmp_path / "repository"), **options)

    return make
