"""What a repository says now, verified from the first root on.

The publisher trusts its own storage no more than a device does: whoever can write there must not
get signatures for what they put in. So everything is verified from the first root, of which the
keyring holds a copy, before anything is built on it. Expiry alone is no obstacle, or a repository
that has expired could not be refreshed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from apps.errors import RepositoryDamaged
from apps.repository.store import Store
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import METADATA, TARGETS, Index, index_path, stored_path

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

TIMESTAMP = f"{METADATA}/timestamp.json"
TARGETS_META = "targets.json"


@dataclass(frozen=True)
class State:
    """Verified metadata."""

    root: Metadata[Root]
    """The newest root."""
    targets: Metadata[Targets] | None
    """What the newest snapshot names; none before the first."""
    snapshot: Metadata[Snapshot] | None
    """The newest snapshot, whether the timestamp names it already or not."""
    timestamp: Metadata[Timestamp] | None
    """None before the first."""

    @property
    def complete(self) -> bool:
        """Whether the timestamp names the newest snapshot; if not, a publisher was killed."""
        if self.snapshot is None or self.timestamp is None:
            return False
        return self.timestamp.signed.snapshot_meta.version == self.snapshot.signed.version


def versioned(version: int, role: str) -> str:
    """Return the path of one version of a role's metadata."""
    return f"{METADATA}/{version}.{role}.json"


def load(store: Store, anchor: bytes | None, *, lost: bool = False) -> State:
    """Return a repository's state.

    Parameters
    ----------
    store : Store
    anchor : bytes or None
        The first root that is trusted; none trusts the one that is there.
    lost : bool
        Take what the root before the newest signed, too: after a key was replaced that is gone.

    Raises
    ------
    RepositoryDamaged
        If something is missing or not signed as it must be.
    OSError
        If a file cannot be read.
    """
    known_roots = roots(store, anchor)
    by = [metadata.signed for metadata in known_roots[-2 if lost else -1 :]][::-1]
    timestamp = _verified(store, TIMESTAMP, "timestamp", Timestamp, by)
    known = timestamp.signed.snapshot_meta.version if timestamp else 0
    snapshot = _snapshot(store, known, by) if timestamp else None
    for version in count(known + 1):
        newer = _snapshot(store, version, by)
        if newer is None:
            break
        snapshot = newer
    if timestamp is not None and snapshot is None:
        msg = f"{store.name}: {versioned(known, 'snapshot')} is missing; restore it from a copy"
        raise RepositoryDamaged(msg, file=versioned(known, "snapshot"))
    if timestamp is None and snapshot is not None and snapshot.signed.version > 1:
        msg = f"{store.name}: {TIMESTAMP} is missing; restore it from a copy"
        raise RepositoryDamaged(msg, file=TIMESTAMP)
    targets = None
    if snapshot is not None:
        version = snapshot.signed.meta[TARGETS_META].version
        targets = _verified(store, versioned(version, "targets"), "targets", Targets, by)
        if targets is None:
            msg = f"{store.name}: {versioned(version, 'targets')} is missing; restore it"
            raise RepositoryDamaged(msg, file=versioned(version, "targets"))
    return State(known_roots[-1], targets, snapshot, timestamp)


def roots(store: Store, anchor: bytes | None) -> list[Metadata[Root]]:
    """Return the chain of roots, oldest first; raises as `load`."""
    first = _read(store, versioned(1, "root"))
    if first is None:
        msg = f"{store.name} is no signed repository; make one with rbf-repo init"
        raise RepositoryDamaged(msg, file=versioned(1, "root"))
    if anchor is not None and first != anchor:
        msg = (
            f"{store.name}: its first root is not the one that the keyring trusts; "
            "this is another repository, or somebody has replaced it"
        )
        raise RepositoryDamaged(msg, file=versioned(1, "root"))
    chain = [parse(first, Root, versioned(1, "root"))]
    _check([chain[0].signed], "root", chain[0], versioned(1, "root"))
    while True:
        version = len(chain) + 1
        path = versioned(version, "root")
        root = _verified(store, path, "root", Root, [chain[-1].signed])
        if root is None:
            return chain
        _check([root.signed], "root", root, path)
        if root.signed.version != version:
            msg = f"{store.name}: {path} says version {root.signed.version}"
            raise RepositoryDamaged(msg, file=path)
        chain.append(root)


def read_index(store: Store, targets: Metadata[Targets] | None, name: str) -> Index:
    """Return a model's index, empty before its first release; raises as `load`."""
    entry = targets.signed.targets.get(index_path(name)) if targets else None
    if entry is None:
        return Index(name=name)
    target = target_of(index_path(name), entry.length, entry.hashes["sha256"])
    index = Index.model_validate_json(read_target(store, target))
    if index.name != name:
        msg = f"{store.name}: the index of {name} is of {index.name!r}"
        raise RepositoryDamaged(msg, file=target.path)
    return index


def read_target(store: Store, target: TargetFile) -> bytes:
    """Return a target's bytes, verified; raises as `load`."""
    path = f"{TARGETS}/{stored_path(target)}"
    data = _read(store, path)
    if data is None or sha256(data) != target.sha256:
        msg = f"{store.name}: {path} is {'missing' if data is None else 'altered'}; restore it"
        raise RepositoryDamaged(msg, file=path)
    return data


def target_of(path: str, length: int, digest: str) -> TargetFile:
    """Return a TUF target in our words."""
    return TargetFile(path=path, sha256=digest, length=length)


def parse(data: bytes, kind: type[S], path: str) -> Metadata[S]:
    """Return metadata of a kind, not verified yet; raises `RepositoryDamaged`."""
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        msg = f"{path}: not metadata ({error}); restore it from a copy"
        raise RepositoryDamaged(msg, file=path) from error
    if not isinstance(metadata.signed, kind):
        msg = f"{path}: metadata of role {metadata.signed.type}"
        raise RepositoryDamaged(msg, file=path)
    return metadata


def _snapshot(store: Store, version: int, by: Sequence[Root]) -> Metadata[Snapshot] | None:
    path = versioned(version, "snapshot")
    snapshot = _verified(store, path, "snapshot", Snapshot, by)
    if snapshot is not None and snapshot.signed.version != version:
        msg = f"{store.name}: {path} says version {snapshot.signed.version}"
        raise RepositoryDamaged(msg, file=path)
    return snapshot


def _verified(
    store: Store, path: str, role: str, kind: type[S], by: Sequence[Root]
) -> Metadata[S] | None:
    data = _read(store, path)
    if data is None:
        return None
    metadata = parse(data, kind, path)
    _check(by, role, metadata, path)
    return metadata


def _check(by: Sequence[Root], role: str, metadata: Metadata[S], path: str) -> None:
    """Check that one of some roots vouches for metadata."""
    for root in by:
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            reason = error
        else:
            return
    msg = (
        f"{path}: not signed by the repository's keys ({reason}); restore it from a copy, or if "
        "rotate-key --lost was interrupted, rbf-repo refresh --lost"
    )
    raise RepositoryDamaged(msg, file=path) from reason


def _read(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None
