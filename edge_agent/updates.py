"""Getting releases: where they come from, and how they get onto the disk, verified.

`ReleaseSource` is the seam: `FolderSource` reads a plain repository folder; a source that reads
signed metadata will stand in its place. Whatever the source says, bytes are checked here against
the length and digest that were promised, before anything is loaded.

A downloaded release lies in ``releases/VERSION/``: ``ref.json`` (what the index said),
``release.json``, ``model.onnx``, ``golden_inputs.npy`` and ``golden_OUTPUT.npy``. The folder is
filled under another name and renamed, so it is complete or not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from pydantic import ValidationError

from edge_agent.contracts import storage
from edge_agent.contracts.errors import DigestMismatch, ReleaseError
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Release, TargetFile
from edge_agent.contracts.repository import (
    INDEX,
    TARGETS,
    Channel,
    Index,
    ReleaseRef,
    target_file,
)

INCOMING = ".incoming"
MAX_INDEX_BYTES = 16 * 2**20
OUTPUTS = frozenset({"wind", "wind_std"})

C = TypeVar("C", bound=Contract)


class ReleaseSource(Protocol):
    """Where releases come from."""

    def current(self, name: str, channel: Channel) -> ReleaseRef | None:
        """Return what the channel of model `name` points to, or none.

        Raises
        ------
        OSError
            If the source cannot be reached.
        ReleaseError
            If what it says makes no sense.
        """
        ...

    def read(self, target: TargetFile) -> bytes:
        """Return a file's bytes, at most one more than promised; the caller verifies them.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        ...


class FolderSource:
    """A repository in a folder; nothing is signed yet.

    Parameters
    ----------
    repository : Path
        Holds ``metadata/`` and ``targets/``; need not exist yet.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def current(self, name: str, channel: Channel) -> ReleaseRef | None:
        """Read the index; see `ReleaseSource.current`."""
        path = self._repository / INDEX
        index = _parse(Index, _read(path, MAX_INDEX_BYTES), str(path))
        if index.name != name:
            msg = f"{path} is of model {index.name!r}, this agent serves {name!r}"
            raise ReleaseError(msg, reason="name")
        ref = index.current(channel)
        if ref is None and channel in index.channels:
            msg = f"{path}: channel {channel} points to a version that is not listed"
            raise ReleaseError(msg, reason="index")
        return ref

    def read(self, target: TargetFile) -> bytes:
        """Read a target; see `ReleaseSource.read`."""
        path = target_file(self._repository, target)
        if ".." in Path(target.path).parts:
            msg = f"target path {target.path!r} leaves {TARGETS}/"
            raise ReleaseError(msg, reason="path")
        return _read(path, target.length)


class StoredRelease(NamedTuple):
    """A release read from the disk and verified."""

    ref: ReleaseRef
    release: Release
    files: dict[str, bytes]
    """Role (``model.onnx``, ``golden_inputs.npy``, ...) to bytes."""


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
        manifest = _verified(source.read(_bounded(ref.manifest, max_bytes)), ref.manifest)
        release = check_manifest(manifest, ref, name=name)
        total = ref.manifest.length + sum(target.length for target in release.files())
        if total > max_bytes:
            msg = f"release {ref.version} has {total} bytes; max_release_bytes is {max_bytes}"
            raise ReleaseError(msg, reason="size", version=ref.version)
        for role, target in roles(release):
            storage.write_bytes(incoming / role, _verified(source.read(target), target))
        storage.write_bytes(incoming / "release.json", manifest)
        storage.write_bytes(incoming / "ref.json", ref.canonical_json())
        incoming.rename(final)
        storage.fsync(releases)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return final


def read_stored(folder: Path, *, name: str) -> StoredRelease:
    """Return a downloaded release, every byte verified.

    Raises
    ------
    ReleaseError
        If something is altered, missing from the manifest or of another model.
    OSError
        If a file cannot be read.
    """
    ref = _parse(ReleaseRef, (folder / "ref.json").read_bytes(), str(folder / "ref.json"))
    manifest = _verified(_read(folder / "release.json", ref.manifest.length), ref.manifest)
    release = check_manifest(manifest, ref, name=name)
    files = {
        role: _verified(_read(folder / role, target.length), target)
        for role, target in roles(release)
    }
    return StoredRelease(ref, release, files)


def check_manifest(manifest: bytes, ref: ReleaseRef, *, name: str) -> Release:
    """Return the release that a verified manifest describes, or raise `ReleaseError`."""
    release = _parse(Release, manifest, f"manifest of release {ref.version}")
    outputs = {output.name for output in release.outputs}
    if release.version != ref.version:
        problem = f"its manifest says version {release.version}"
    elif release.name != name:
        problem = f"it is of model {release.name!r}, this agent serves {name!r}"
    elif outputs != OUTPUTS or set(release.golden.outputs) != OUTPUTS:
        problem = f"its outputs and golden outputs must be {', '.join(sorted(OUTPUTS))}"
    else:
        return release
    msg = f"release {ref.version} cannot be served: {problem}"
    raise ReleaseError(msg, reason="manifest", version=ref.version)


def roles(release: Release) -> Iterator[tuple[str, TargetFile]]:
    """Yield the file name on this device and the target of each file of a release."""
    yield "model.onnx", release.model
    yield "golden_inputs.npy", release.golden.inputs
    for output, target in release.golden.outputs.items():
        yield f"golden_{output}.npy", target


def stored_versions(releases: Path) -> list[int]:
    """Return the downloaded versions, ascending."""
    if not releases.is_dir():
        return []
    return sorted(int(p.name) for p in releases.iterdir() if p.name.isdigit())


def prune(releases: Path, *, keep: int, never: set[int]) -> list[int]:
    """Delete the oldest releases beyond `keep`, but none of `never`; return what went."""
    old = [v for v in stored_versions(releases)[:-keep] if v not in never]
    for version in old:
        shutil.rmtree(releases / str(version), ignore_errors=True)
    return old


def clear_incoming(releases: Path) -> None:
    """Delete what a killed download left."""
    for leftover in releases.glob(f"{INCOMING}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _bounded(target: TargetFile, max_bytes: int) -> TargetFile:
    if target.length > max_bytes:
        msg = f"{target.path} has {target.length} bytes; max_release_bytes is {max_bytes}"
        raise ReleaseError(msg, reason="size")
    return target


def _verified(data: bytes, target: TargetFile) -> bytes:
    if len(data) != target.length:
        kind = "truncated" if len(data) < target.length else "longer than promised"
        msg = f"{target.path} is {kind}: its manifest says {target.length} bytes"
        raise DigestMismatch(msg, path=target.path, reason="length")
    if sha256(data) != target.sha256:
        msg = f"{target.path} is altered: its sha256 is not {target.sha256}"
        raise DigestMismatch(msg, path=target.path, reason="digest")
    return data


def _read(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length + 1)


def _parse(model: type[C], data: bytes, what: str) -> C:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(file)"
        msg = f"{what}: {field}: {first['msg']}"
        raise ReleaseError(msg, reason="format", field=field) from error
