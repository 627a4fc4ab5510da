"""Signed metadata, verified by python-tuf.

Imported when it is needed first: python-tuf and its cryptography take a tenth of a second, which no
request should wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from tuf.api import exceptions
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge_agent.contracts.errors import Untrusted, UpdateUnavailable
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import METADATA
from edge_agent.updates.trust import ROLES, SeenRole

#: Longest metadata files, bytes; a release takes some 700 in the targets' metadata.
MAX_ROOT, MAX_TIMESTAMP, MAX_SNAPSHOT, MAX_TARGETS = 2**18, 2**14, 2**20, 2**23
#: Longest walk from the first root to the newest.
MAX_ROTATIONS = 256

#: Path of a metadata file and its bound in bytes, to its bytes; none if it is not there.
Read = Callable[[str, int], bytes | None]

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ExpiredMetadataError, "expired"),
    (exceptions.BadVersionNumberError, "version"),
    (exceptions.UnsignedMetadataError, "signature"),
    (exceptions.LengthOrHashMismatchError, "digest"),
    (exceptions.DownloadLengthMismatchError, "length"),
)


class Verified(NamedTuple):
    """Metadata that python-tuf accepts."""

    roles: dict[str, SeenRole]
    """Version and keys of each top-level role."""
    expires: dict[str, float]
    """When each of them expires, s since the Unix epoch."""
    target: Callable[[str], TargetFile | None]
    """Target path to what was signed for it; none if nothing was."""


def refresh(read: Read, cache: Path, root: bytes, now: float) -> Verified:
    """Bring the cached metadata up to date and verify it from the first root on.

    Parameters
    ----------
    read : callable
    cache : Path
        Folder of python-tuf's own; whatever lies in it is verified anew.
    root : bytes
        The trusted first root.
    now : float, s since the Unix epoch
        What expiry is compared with.

    Raises
    ------
    Untrusted
        If something is not signed as it must be, too old, expired or too long.
    UpdateUnavailable
        If a file is not there; and whatever else `read` raises.
    OSError
        If the cache cannot be written.
    """
    config = UpdaterConfig(
        max_root_rotations=MAX_ROTATIONS,
        root_max_length=MAX_ROOT,
        timestamp_max_length=MAX_TIMESTAMP,
        snapshot_max_length=MAX_SNAPSHOT,
        targets_max_length=MAX_TARGETS,
    )
    cache.mkdir(parents=True, exist_ok=True)
    try:
        updater = Updater(
            str(cache), METADATA, fetcher=_Fetcher(read), config=config, bootstrap=root
        )
        trusted = updater._trusted_set
        trusted.reference_time = datetime.fromtimestamp(now, UTC)
        updater.refresh()
    except exceptions.DownloadHTTPError as error:
        msg = f"{error}: no repository there, or not allowed"
        raise UpdateUnavailable(msg, reason="missing") from error
    except (exceptions.RepositoryError, exceptions.DownloadError) as error:
        reason = next((name for kind, name in _REASONS if isinstance(error, kind)), "format")
        msg = f"the repository's metadata cannot be trusted: {error}"
        raise Untrusted(msg, reason=reason) from error
    signed = {role: trusted[role] for role in ROLES}
    keys = {role: tuple(sorted(trusted.root.roles[role].keyids)) for role in signed}

    def target(path: str) -> TargetFile | None:
        info = trusted.targets.targets.get(path)
        if info is None or "sha256" not in info.hashes:
            return None
        try:
            return TargetFile(path=path, sha256=info.hashes["sha256"], length=info.length)
        except ValidationError as error:
            msg = f"the repository's metadata name {path} with a digest that is none"
            raise Untrusted(msg, reason="format") from error

    return Verified(
        roles={r: SeenRole(version=s.version, keys=keys[r]) for r, s in signed.items()},
        expires={r: s.expires.timestamp() for r, s in signed.items()},
        target=target,
    )


class _Fetcher(FetcherInterface):
    """What python-tuf asks for, from our transport; our errors pass through it."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def download_bytes(self, url: str, max_length: int) -> bytes:
        data = self._read(url, max_length)
        if data is None:
            raise exceptions.DownloadHTTPError(f"{url} is not there", 404)
        if len(data) > max_length:
            msg = f"{url} is longer than {max_length} bytes"
            raise exceptions.DownloadLengthMismatchError(msg)
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((self.download_bytes(url, MAX_TARGETS),))
