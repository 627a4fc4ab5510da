"""Releases on the device's own disk.

A downloaded release lies in ``releases/VERSION/``: ``ref.json`` (what the index said),
``release.json``, ``model.onnx``, ``golden_inputs.npy`` and ``golden_OUTPUT.npy``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Release, TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.updates.download import mismatch
from edge_agent.updates.manifest import problem_of

INCOMING = ".incoming"
MODEL = "model.onnx"

C = TypeVar("C", bound=Contract)


class StoredRelease(NamedTuple):
    """A release read from the disk and verified."""

    ref: ReleaseRef
    release: Release
    files: dict[str, bytes]
    """Role (``model.onnx``, ``golden_inputs.npy``, ...) to bytes."""


def read_stored(folder: Path, *, name: str) -> StoredRelease:
    """Return a downloaded release, every byte verified.

    Raises
    ------
    ReleaseError
        If something is altered, missing from the manifest or of another model.
    OSError
        If a file cannot be read.
    """
    ref = parse(ReleaseRef, (folder / "ref.json").read_bytes(), str(folder / "ref.json"))
    manifest = verified(read_bounded(folder / "release.json", ref.manifest.length), ref.manifest)
    release = check_manifest(manifest, ref, name=name)
    files = {
        role: verified(read_bounded(folder / role, target.length), target)
        for role, target in roles(release)
    }
    return StoredRelease(ref, release, files)


def check_manifest(manifest: bytes, ref: ReleaseRef, *, name: str) -> Release:
    """Return the release that a verified manifest describes, or raise `ReleaseError`."""
    release = parse(Release, manifest, f"manifest of release {ref.version}")
    problem: str | None
    if release.version != ref.version:
        problem = f"its manifest says version {release.version}"
    elif release.name != name:
        problem = f"it is of model {release.name!r}, this agent serves {name!r}"
    else:
        problem = problem_of(release)
    if problem is None:
        return release
    msg = f"release {ref.version} cannot be served: {problem}"
    raise ReleaseError(msg, reason="manifest", version=ref.version)


def roles(release: Release) -> Iterator[tuple[str, TargetFile]]:
    """Yield the file name on this device and the target of each file of a release."""
    yield MODEL, release.model
    yield "golden_inputs.npy", release.golden.inputs
    for output, target in release.golden.outputs.items():
        yield f"golden_{output}.npy", target


def digests(releases: Path, *, name: str) -> dict[str, Path]:
    """Return the downloaded files by the digest that their manifests promise; not verified."""
    found: dict[str, Path] = {}
    for version in stored_versions(releases):
        folder = releases / str(version)
        try:
            ref = parse(ReleaseRef, (folder / "ref.json").read_bytes(), "ref.json")
            manifest = read_bounded(folder / "release.json", ref.manifest.length)
            release = check_manifest(verified(manifest, ref.manifest), ref, name=name)
        except (ReleaseError, OSError):
            continue  # damaged: whoever loads it will say so
        found |= {target.sha256: folder / role for role, target in roles(release)}
    return found


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


def verified(data: bytes, target: TargetFile) -> bytes:
    """Return `data` if it is what was promised, or raise `DigestMismatch`."""
    if len(data) != target.length or sha256(data) != target.sha256:
        raise mismatch(target, len(data))
    return data


def read_bounded(path: Path, length: int) -> bytes:
    """Return a file's bytes, at most one more than `length`."""
    with path.open("rb") as file:
        return file.read(length + 1)


def parse(model: type[C], data: bytes, what: str) -> C:
    """Return the contract that JSON describes, or raise `ReleaseError`."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(file)"
        msg = f"{what}: {field}: {first['msg']}"
        raise ReleaseError(msg, reason="format", field=field) from error
