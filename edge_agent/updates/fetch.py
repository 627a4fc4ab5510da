"""Bringing a release onto the disk.

Files that the device has, in any release, are not downloaded again; a model whose predecessor it
has comes as a delta. A release's folder is filled under another name and renamed, so it is complete
or not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from edge_agent.contracts import storage
from edge_agent.contracts.delta import apply
from edge_agent.contracts.errors import (
    DeltaError,
    DigestMismatch,
    ReleaseError,
    Untrusted,
    UpdateUnavailable,
)
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.release import Delta, Release, TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.metrics import Counters
from edge_agent.updates.download import Downloads, holds
from edge_agent.updates.source import ReleaseSource
from edge_agent.updates.store import (
    INCOMING,
    MODEL,
    check_manifest,
    digests,
    read_stored,
    roles,
)

#: Reasons for which one file does not come and another may.
ANOTHER_WAY = frozenset({"missing", "status"})

log = structlog.get_logger(__name__)


class Limits(NamedTuple):
    """What a release may cost."""

    release_bytes: int
    """Largest release, manifest and files together."""
    reserve_bytes: int = 0
    """Free disk space to leave."""


class Progress(NamedTuple):
    """A release on its way."""

    version: int
    """Its version."""
    received: int
    """Bytes that have come over the link, this time."""
    expected: int
    """Bytes to come over the link, this time."""


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system that a folder is in, bytes."""
    return shutil.disk_usage(folder).free


class Fetcher:
    """Brings releases into the store; used by one thread.

    Parameters
    ----------
    source : ReleaseSource
    state : Path
        The agent's state folder: ``releases/`` and ``downloads/``.
    name : str
        Model name.
    limits : Limits
    counters : Counters
    free : callable
        Folder to free disk space, bytes.
    """

    def __init__(
        self,
        source: ReleaseSource,
        state: Path,
        *,
        name: str,
        limits: Limits,
        counters: Counters,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.progress: Progress | None = None
        """The release on its way; none between two."""
        self._releases = state / "releases"
        self._downloads = Downloads(state / "downloads", source, self._received, self._resumed)
        self._name = name
        self._limits = limits
        self._counters = counters
        self._free = free

    def fetch(self, ref: ReleaseRef) -> Path:
        """Bring a release onto the disk, verified; return its folder.

        Raises
        ------
        DigestMismatch, Untrusted
            If what comes is not what was promised; another look may bring better.
        ReleaseError
            If the manifest cannot be used.
        UpdateUnavailable
            If something does not come or there is no room for it; what has come stays.
        OSError
            If the disk fails.
        """
        final = self._releases / str(ref.version)
        if final.is_dir():
            try:
                if read_stored(final, name=self._name).ref == ref:
                    return final
            except (ReleaseError, OSError):
                pass  # half a release or a damaged one: fetched anew below
        self._releases.mkdir(parents=True, exist_ok=True)
        try:
            self._check_size(ref, ref.manifest.length)
            self.progress = Progress(ref.version, 0, ref.manifest.length)
            manifest = self._downloads.get(ref.manifest)
            release = check_manifest(manifest.read_bytes(), ref, name=self._name)
            self._check_size(
                ref, ref.manifest.length + sum(target.length for target in release.files())
            )
            self._downloads.keep_only({t.sha256 for t in (ref.manifest, *release.files())})
            files = self._files(release)
            self._assemble(ref, final, {"release.json": manifest} | files)
            self._downloads.keep_only(set())
        finally:
            self.progress = None
        return final

    def _files(self, release: Release) -> dict[str, Path]:
        """Return the verified file of each role, downloaded where it is not here."""
        held = digests(self._releases, name=self._name)
        found: dict[str, Path] = {}
        missing: dict[str, TargetFile] = {}
        for role, target in roles(release):
            path = held.get(target.sha256)
            if path is not None and holds(path, target):
                found[role] = path
            else:
                missing[role] = target
        wanted = {t.sha256: t for t in missing.values()}.values()
        to_come = sum(t.length - self._downloads.here(t) for t in wanted)
        room = to_come + sum(t.length for r, t in roles(release) if r in found)
        free = self._free(self._releases) - self._limits.reserve_bytes
        if room > free:
            msg = (
                f"release {release.version} needs {room} bytes, {max(0, free)} are free: "
                "make room, or lower keep_releases or updates.reserve_bytes"
            )
            raise UpdateUnavailable(msg, reason="disk_full", version=release.version)
        delta = release.delta if MODEL in missing else None
        base = None if delta is None else held.get(delta.base_sha256)
        if delta is not None and base is not None and (saved := self._saved(release, delta)) > 0:
            self._announce(release.version, to_come - saved)
            rebuilt = self._rebuilt(release, delta, base)
            if rebuilt is not None:
                found[MODEL] = rebuilt
                del missing[MODEL]
        elif to_come:
            self._announce(release.version, to_come)
        for role, target in missing.items():
            found[role] = self._downloads.get(target)
        return found

    def _announce(self, version: int, to_come: int) -> None:
        self.progress = Progress(version, 0, to_come)
        log.info("downloading", version=version, bytes=to_come)

    def _saved(self, release: Release, delta: Delta) -> int:
        """Return how many bytes fewer come with the delta than with the rest of the model."""
        left = (t.length - self._downloads.here(t) for t in (release.model, delta.file))
        return next(left) - next(left)

    def _rebuilt(self, release: Release, delta: Delta, base: Path) -> Path | None:
        """Return the model's file, made from the one before; none if that does not succeed."""
        try:
            path = self._downloads.get(delta.file)
            model = apply(base.read_bytes(), path.read_bytes(), limit=release.model.length)
            made = self._downloads.put(release.model, model)
        except (DeltaError, DigestMismatch, Untrusted) as error:
            reason = str(error)
        except UpdateUnavailable as error:
            if error.reason not in ANOTHER_WAY:
                raise  # the full file would not come either
            reason = str(error)
        else:
            self._counters.models_rebuilt += 1
            return made
        self._counters.deltas_failed += 1
        log.warning("no model from the delta, taking the full file", reason=reason)
        return None

    def _assemble(self, ref: ReleaseRef, final: Path, files: dict[str, Path]) -> None:
        incoming = self._releases / f"{INCOMING}-{ref.version}"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        try:
            for role, path in files.items():
                place(path, incoming / role, share=path.parent.parent != self._releases)
            storage.write_bytes(incoming / "ref.json", ref.canonical_json())
            storage.fsync(incoming)
            failpoint("fetch.assembled")
            shutil.rmtree(final, ignore_errors=True)  # damaged, or of another manifest
            incoming.rename(final)
            storage.fsync(self._releases)
            failpoint("fetch.renamed")
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _check_size(self, ref: ReleaseRef, size: int) -> None:
        if size > self._limits.release_bytes:
            msg = (
                f"release {ref.version} has {size} bytes; "
                f"max_release_bytes is {self._limits.release_bytes}"
            )
            raise ReleaseError(msg, reason="size", version=ref.version)

    def _received(self, size: int) -> None:
        self._counters.bytes_downloaded += size
        if self.progress is not None:
            self.progress = self.progress._replace(received=self.progress.received + size)

    def _resumed(self) -> None:
        self._counters.downloads_resumed += 1


def place(path: Path, final: Path, *, share: bool) -> None:
    """Put a file at `final`, flushed to the disk.

    Parameters
    ----------
    path, final : Path
    share : bool
        Whether both names may be of the same bytes on the disk. Releases share none: a damaged
        sector must not take all of them.
    """
    if share:
        try:
            os.link(path, final)
        except OSError:  # a file system without hard links
            pass
        else:
            return
    shutil.copyfile(path, final)
    storage.fsync(final)
