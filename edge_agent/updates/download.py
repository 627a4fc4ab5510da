"""One file from the source onto the disk: resumed where it stopped, whole or not there.

A file on its way is ``SHA256.part``; once its length and digest are right it is flushed to the disk
and renamed to ``SHA256``. The names say what is to come, so a part can be gone on with after any
interruption, by any version that needs the same file. What a power cut leaves of a part may be
rubbish: then the digest is wrong, and the file comes again from its beginning.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge_agent.contracts import storage
from edge_agent.contracts.errors import DigestMismatch
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile

if TYPE_CHECKING:
    from hashlib import _Hash

    from edge_agent.updates.source import ReleaseSource

PART = ".part"
READ_BYTES = 2**20


class Downloads:
    """The folder of files on their way; used by one thread.

    Parameters
    ----------
    folder : Path
        Made when it is needed.
    source : ReleaseSource
    received : callable
        Told the number of each chunk's bytes.
    resumed : callable
        Called when a file is gone on with.
    """

    def __init__(
        self,
        folder: Path,
        source: ReleaseSource,
        received: Callable[[int], None],
        resumed: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._source = source
        self._received = received
        self._resumed = resumed

    def get(self, target: TargetFile) -> Path:
        """Return the path of a file, downloaded unless it is here; its digest is right.

        Raises
        ------
        DigestMismatch
            If what came is not what was promised; it is deleted.
        UpdateUnavailable
            If it does not come; what has come stays.
        Untrusted
            If the source does not vouch for it.
        OSError
            If the disk fails.
        """
        path = self._folder / target.sha256
        if holds(path, target):
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + PART)
        with part.open("a+b") as file:
            if not self._receive(file, target):
                self._receive(file, target)  # from the beginning: the part was rubbish
            os.fsync(file.fileno())
        failpoint("download.synced")
        part.replace(path)
        storage.fsync(self._folder)
        return path

    def put(self, target: TargetFile, data: bytes) -> Path:
        """Keep a file that was made here as if it had been downloaded; return its path.

        Raises
        ------
        DigestMismatch
            If it is not what was promised; nothing is kept.
        OSError
            If the disk fails.
        """
        if len(data) != target.length or sha256(data) != target.sha256:
            raise mismatch(target, len(data))
        path = self._folder / target.sha256
        storage.write_bytes(path, data)
        path.with_name(path.name + PART).unlink(missing_ok=True)
        return path

    def here(self, target: TargetFile) -> int:
        """Return how many bytes of a file are here."""
        path = self._folder / target.sha256
        for candidate in (path, path.with_name(path.name + PART)):
            try:
                return min(candidate.stat().st_size, target.length)
            except FileNotFoundError:
                continue
        return 0

    def keep_only(self, digests: set[str]) -> None:
        """Delete every file and part of other digests."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            if path.name.removesuffix(PART) not in digests:
                path.unlink(missing_ok=True)

    def _receive(self, file: BinaryIO, target: TargetFile) -> bool:
        """Fill the file; return false, and leave it empty, if a resumed one came out wrong."""
        if file.seek(0, os.SEEK_END) > target.length:
            file.truncate(0)
        digest, have = hashlib.sha256(), 0
        file.seek(0)
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)  # outside the interpreter lock, as every chunk of a file is
            have += len(chunk)
        before = have
        if have < target.length:
            before, have, digest = self._append(file, target, have, digest)
        if have == target.length and digest.hexdigest() == target.sha256:
            return True
        file.truncate(0)
        if before:
            return False
        raise mismatch(target, have)

    def _append(
        self, file: BinaryIO, target: TargetFile, have: int, digest: _Hash
    ) -> tuple[int, int, _Hash]:
        with self._source.open(target, have) as body:
            if body.offset != have:
                file.truncate(body.offset)
                digest, have = hashlib.sha256(), body.offset
            elif have:
                self._resumed()
            before = have
            for chunk in body.chunks:
                have += len(chunk)
                if have > target.length:
                    break
                file.write(chunk)
                digest.update(chunk)
                self._received(len(chunk))
                failpoint("download.chunk")
            file.flush()
        return before, have, digest


def holds(path: Path, target: TargetFile) -> bool:
    """Return whether a file is there and is what was promised, by length and digest."""
    try:
        if path.stat().st_size != target.length:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == target.sha256
    except OSError:
        return False


def mismatch(target: TargetFile, length: int) -> DigestMismatch:
    """Return the error for a file of that many bytes that is not what was promised."""
    if length == target.length:
        msg = f"{target.path} is altered: its sha256 is not {target.sha256}"
        return DigestMismatch(msg, path=target.path, reason="digest")
    kind = "truncated" if length < target.length else "longer than promised"
    msg = f"{target.path} is {kind}: {target.length} bytes were promised"
    return DigestMismatch(msg, path=target.path, reason="length")
