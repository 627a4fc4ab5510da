"""Deleting what no device can need: metadata long past, and files that nothing names."""

from __future__ import annotations

import re

from tuf.api.metadata import Metadata, Snapshot, Targets

from apps.errors import RepositoryDamaged
from apps.repository import chain
from apps.repository.chain import State
from apps.repository.store import Store
from edge_agent.contracts.repository import METADATA, TARGETS, stored_path

#: Snapshots kept, so that a device in the middle of reading one finds what it names.
KEEP = 10

_NUMBERED = re.compile(rf"{METADATA}/(\d+)\.(snapshot|targets)\.json")
_STORED = re.compile(rf"{TARGETS}/(?:.+/)?[0-9a-f]{{64}}\.[^/]+")


def clean(store: Store, state: State) -> None:
    """Delete old metadata, the indexes that they name, and where publishers take turns orphans.

    Metadata with a number above the present one may be another publisher's who is not there yet;
    they stay. So do target files in a store that keeps nobody out.

    Raises
    ------
    OSError
        If the store cannot be read or written; what is left goes the next time.
    """
    if state.snapshot is None or state.targets is None:
        return
    snapshots, targets = _numbered(store)
    now = state.snapshot.signed.version
    keep = [v for v in snapshots if v > now - KEEP]
    named = {state.targets.signed.version} | {_targets_of(store, v) for v in keep}
    old = {v for v in targets if v not in named and v < state.targets.signed.version}
    kept = [m for v in named if (m := _read(store, v)) is not None]
    files = {f"{TARGETS}/{path}" for metadata in kept for path in _stored(metadata)}
    if store.locks:
        gone = [p for p in store.names(TARGETS) if _STORED.fullmatch(p) and p not in files]
    else:
        past = [m for v in old if (m := _read(store, v)) is not None]
        gone = [p for m in past for q in _stored(m) if (p := f"{TARGETS}/{q}") not in files]
    for path in (
        *gone,
        *(chain.versioned(v, "snapshot") for v in snapshots if v <= now - KEEP),
        *(chain.versioned(v, "targets") for v in sorted(old)),
    ):
        store.delete(path)


def _numbered(store: Store) -> tuple[list[int], list[int]]:
    found = [_NUMBERED.fullmatch(path) for path in store.names(METADATA)]
    return tuple(  # type: ignore[return-value] # two, from two
        sorted(int(m[1]) for m in found if m and m[2] == role) for role in ("snapshot", "targets")
    )


def _targets_of(store: Store, version: int) -> int:
    try:
        path = chain.versioned(version, "snapshot")
        return chain.parse(store.read(path), Snapshot, path).signed.meta[chain.TARGETS_META].version
    except (RepositoryDamaged, FileNotFoundError, KeyError):
        return 0


def _read(store: Store, version: int) -> Metadata[Targets] | None:
    path = chain.versioned(version, "targets")
    try:
        return chain.parse(store.read(path), Targets, path)
    except (RepositoryDamaged, FileNotFoundError):
        return None


def _stored(metadata: Metadata[Targets]) -> list[str]:
    return [
        stored_path(chain.target_of(path, entry.length, entry.hashes["sha256"]))
        for path, entry in metadata.signed.targets.items()
    ]
