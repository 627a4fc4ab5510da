"""What the device trusts and has seen: the first root, and the versions below which it never goes.

python-tuf keeps the newest metadata in a cache and takes its protection against rollback from it.
A power cut can empty that cache. So what must not be lost is written down here, flushed to the
disk: a cache that is gone or damaged is filled again from the first root, and what comes must not
be older than the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import Field, ValidationError

from edge_agent.contracts import storage
from edge_agent.contracts.errors import Untrusted, UpdateUnavailable
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Digest

log = structlog.get_logger(__name__)

ROLES = ("root", "timestamp", "snapshot", "targets")


class SeenRole(Contract):
    """The metadata of one TUF role."""

    version: Annotated[int, Field(ge=1)]
    """Of the metadata."""
    keys: tuple[str, ...]
    """Key ids that the root gives the role, sorted."""


class Seen(Contract):
    """``trust/seen.json``: the newest metadata that was accepted."""

    format: Literal["rbf-seen/1"] = "rbf-seen/1"
    """Version of this file."""
    root_sha256: Digest
    """Of the first root."""
    roles: dict[str, SeenRole] = Field(default_factory=dict)
    """By role."""
    refreshed_at: float = 0.0
    """When it was accepted, s since the Unix epoch."""


def check_versions(seen: Mapping[str, SeenRole], found: Mapping[str, SeenRole]) -> None:
    """Refuse metadata older than what was seen: pure.

    A role whose keys the root has changed since starts anew: whoever stole the old keys may have
    signed any version number, and the owner's next one must get past (TUF 1.0.33, 5.3.11). The
    root itself only ever goes up.

    Raises
    ------
    Untrusted
        With reason ``version``.
    """
    for role, before in seen.items():
        now = found[role]
        if now.version < before.version and (role == "root" or now.keys == before.keys):
            msg = (
                f"{role} metadata of version {now.version} is older than {before.version}, "
                "which this device has seen"
            )
            raise Untrusted(msg, reason="version", role=role, version=now.version)


class Trust:
    """The ``trust`` folder of an agent's state.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    root : Path
        The first root, as installed; copied here at the first use, and only that copy is believed
        from then on: a repository on the same machine may hold the file that `root` names.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self.cache = folder / "metadata"
        """For python-tuf; may be deleted at any time."""
        self.index = folder / "index.json"
        """The newest index; verified again before each use."""

    def first_root(self) -> bytes:
        """Return the trusted first root.

        Raises
        ------
        UpdateUnavailable
            If it has not been installed yet, or cannot be read.
        Untrusted
            If the installed file is no longer the one of the first use.
        """
        pinned = self._folder / "root.json"
        kept, given = _read(pinned), _read(self._root)
        if kept is None:
            if given is None:
                msg = f"no trusted root yet: {self._root} is not there"
                raise UpdateUnavailable(msg, reason="missing", path=str(self._root))
            return given
        if given is not None and given != kept:
            msg = (
                f"{self._root} is not the root that this device trusts since its first start; "
                f"if that is meant to be, remove {self._folder} and start again"
            )
            raise Untrusted(msg, reason="root", path=str(self._root))
        return kept

    def seen(self, root: bytes) -> Seen:
        """Return the record under a first root; an empty one if there is none that can be read."""
        digest = sha256(root)
        path = self._folder / "seen.json"
        try:
            seen = Seen.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Seen(root_sha256=digest)
        except (OSError, ValidationError) as error:
            # The cache's own protection and the versions of releases are left.
            log.error(
                "the record of metadata versions is damaged", path=str(path), reason=str(error)
            )
            return Seen(root_sha256=digest)
        return seen if seen.root_sha256 == digest else Seen(root_sha256=digest)

    def record(self, root: bytes, seen: Seen) -> None:
        """Write down what was accepted; raises OSError if the disk does not take it."""
        pinned = self._folder / "root.json"
        if _read(pinned) is None:
            storage.write_bytes(pinned, root)
        storage.write_bytes(self._folder / "seen.json", seen.canonical_json())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise UpdateUnavailable(msg, reason="missing", path=str(path)) from error
