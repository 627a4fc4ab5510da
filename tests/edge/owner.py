"""A repository signed with python-tuf itself: what its owner does, and what whoever has a key can.

The keys follow from their names, so any process can go on with a repository, and no test needs a
key file. The project's own publisher is tested with the agent in `tests/repository`.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.metadata import TargetFile as TufTarget
from tuf.api.serialization.json import JSONSerializer

from edge_agent.clock import Clock, SystemClock
from edge_agent.contracts import storage
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import Index, index_path, target_file
from edge_agent.settings import UpdateSettings
from edge_agent.updates.signed import SignedSource
from edge_agent.updates.transport import FolderTransport
from edge_agent.updates.trust import Trust

ROLES = ("root", "targets", "snapshot", "timestamp")


def signer(name: str) -> CryptoSigner:
    """The key of a name."""
    seed = hashlib.sha256(f"test key {name}".encode()).digest()
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(seed))


def first_root(repository: Path) -> Path:
    """Where the root lies that a device is set up with."""
    return repository / "metadata" / "1.root.json"


def follower(repository: Path, state: Path, clock: Clock | None = None) -> SignedSource:
    """A device that follows a repository folder."""
    trust = Trust(state / "trust", first_root(repository))
    return SignedSource(
        FolderTransport(repository), trust, clock or SystemClock(), UpdateSettings()
    )


class Owner:
    """Goes on with the repository in a folder, or makes it.

    Metadata hold for `days` from `now`, the root twelve times as long; tests that turn the clock
    set them before publishing.
    """

    def __init__(self, repository: Path, *, now: datetime | None = None, days: float = 30) -> None:
        self.repository = repository
        self.metadata = repository / "metadata"
        self.now = now or datetime.now(UTC)
        self.days = days
        self.keys = {role: [signer(role)] for role in ROLES}
        if (self.metadata / "timestamp.json").exists():
            self._load()
        else:
            self.metadata.mkdir(parents=True, exist_ok=True)
            self._make()

    @property
    def versions(self) -> dict[str, int]:
        """Of the metadata as they stand here, written or not."""
        return {role: getattr(self, role).signed.version for role in ROLES}

    def index(self, name: str) -> Index:
        path = index_path(name)
        info = self.targets.signed.targets.get(path)
        if info is None:
            return Index(name=name)
        target = TargetFile(path=path, sha256=info.hashes["sha256"], length=info.length)
        return Index.model_validate_json(target_file(self.repository, target).read_bytes())

    def put_index(self, name: str, data: bytes) -> None:
        """Store an index and name it in the targets' metadata."""
        target = TargetFile(path=index_path(name), sha256=sha256(data), length=len(data))
        storage.write_bytes(target_file(self.repository, target), data)
        self.name(target)

    def name(self, *targets: TargetFile) -> None:
        """Name files in the targets' metadata."""
        for target in targets:
            self.targets.signed.targets[target.path] = TufTarget(
                target.length, {"sha256": target.sha256}, target.path
            )

    def publish(self) -> None:
        """Sign and write everything that is online, one version up."""
        for role in ("targets", "snapshot", "timestamp"):
            self.bump(role)
        self.write("targets")
        self.refer()
        self.write("snapshot")
        self.write("timestamp")

    def stamp(self) -> None:
        """A new timestamp for the same contents."""
        self.bump("timestamp")
        self.write("timestamp")

    def bump(self, role: str, by: int = 1) -> None:
        """One version up."""
        getattr(self, role).signed.version += by

    def refer(self) -> None:
        """Let the snapshot name the targets, and the timestamp the snapshot."""
        self.snapshot.signed.meta["targets.json"] = MetaFile(self.targets.signed.version)
        self.timestamp.signed.snapshot_meta = MetaFile(self.snapshot.signed.version)

    def write(
        self, role: str, *extra: CryptoSigner, keys: list[CryptoSigner] | None = None
    ) -> Path:
        """Sign a role's metadata, with its own keys unless others are given, and write it."""
        metadata = getattr(self, role)
        days = self.days * (12 if role == "root" else 1)
        metadata.signed.expires = (self.now + timedelta(days=days)).replace(microsecond=0)
        metadata.signatures.clear()
        for key in (*(self.keys[role] if keys is None else keys), *extra):
            metadata.sign(key, append=True)
        path = self.path(role)
        storage.write_bytes(path, metadata.to_bytes(JSONSerializer(compact=True)))
        return path

    def path(self, role: str) -> Path:
        """Where the metadata of a role lies."""
        version = getattr(self, role).signed.version
        return self.metadata / (
            "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        )

    def rotate(self, role: str, new: CryptoSigner) -> None:
        """Give a role another key by a new root; whatever the old one signed is void."""
        old = self.keys[role]
        root = self.root.signed
        for key in old:
            root.revoke_key(key.public_key.keyid, role)
        root.add_key(new.public_key, role)
        self.keys[role] = [new]
        self.bump("root")
        self.write("root", *(old if role == "root" else ()))

    def _make(self) -> None:
        self.root = Metadata(Root(consistent_snapshot=True))
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot())
        self.timestamp = Metadata(Timestamp())
        for role, keys in self.keys.items():
            self.root.signed.add_key(keys[0].public_key, role)
        self.refer()
        for role in ROLES:
            self.write(role)

    def _load(self) -> None:
        newest = max(int(p.name.split(".")[0]) for p in self.metadata.glob("*.root.json"))
        self.root = Metadata[Root].from_file(str(self.metadata / f"{newest}.root.json"))
        self.timestamp = Metadata[Timestamp].from_file(str(self.metadata / "timestamp.json"))
        version = self.timestamp.signed.snapshot_meta.version
        self.snapshot = Metadata[Snapshot].from_file(
            str(self.metadata / f"{version}.snapshot.json")
        )
        version = self.snapshot.signed.meta["targets.json"].version
        self.targets = Metadata[Targets].from_file(str(self.metadata / f"{version}.targets.json"))
