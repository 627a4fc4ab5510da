"""Bringing a release onto the disk.

Whatever the source says, bytes are checked here against the length and digest that were promised,
before anything is loaded. The folder is filled under another name and renamed, so it is complete or
not there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_agent.contracts import storage
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.updates.source import ReleaseSource
from edge_agent.updates.store import INCOMING, check_manifest, read_stored, roles, verified


def fetch(
    source: ReleaseSource, ref: ReleaseRef, releases: Path, *, name: str, max_bytes: int
) -> Path:
    """Bring a release onto the disk, verified; return its folder.

    Raises
    ------
    DigestMismatch
        If a file is truncated or altered.
    ReleaseError
        If the manifest cannot be used.
    OSError
        If a file cannot be read or written; worth another try later.
    """
    final = releases / str(ref.version)
    if final.is_dir():
        try:
            if read_stored(final, name=name).ref == ref:
                return final
        except (ReleaseError, OSError):
            pass  # half a release or a damaged one: fetched anew below
        shutil.rmtree(final)
    incoming = releases / f"{INCOMING}-{ref.version}"
    shutil.rmtree(incoming, ignore_errors=True)
    try:
        manifest = verified(source.read(_bounded(ref.manifest, max_bytes)), ref.manifest)
        release = check_manifest(manifest, ref, name=name)
        total = ref.manifest.length + sum(target.length for target in release.files())
        if total > max_bytes:
            msg = f"release {ref.version} has {total} bytes; max_release_bytes is {max_bytes}"
            raise ReleaseError(msg, reason="size", version=ref.version)
        for role, target in roles(release):
            storage.write_bytes(incoming / role, verified(source.read(target), target))
        storage.write_bytes(incoming / "release.json", manifest)
        storage.write_bytes(incoming / "ref.json", ref.canonical_json())
        incoming.rename(final)
        storage.fsync(releases)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return final


def _bounded(target: TargetFile, max_bytes: int) -> TargetFile:
    if target.length > max_bytes:
        msg = f"{target.path} has {target.length} bytes; max_release_bytes is {max_bytes}"
        raise ReleaseError(msg, reason="size")
    return target
