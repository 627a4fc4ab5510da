"""Where releases come from.

`ReleaseSource` is the seam: `FolderSource` reads a plain repository folder; a source that reads
signed metadata will stand in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import (
    INDEX,
    TARGETS,
    Index,
    target_file,
)
from edge_agent.updates.store import parse, read_bounded

MAX_INDEX_BYTES = 16 * 2**20


class ReleaseSource(Protocol):
    """Where releases come from."""

    def index(self, name: str) -> Index:
        """Return what releases of model `name` there are, and who gets which.

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

    def index(self, name: str) -> Index:
        """Read the index; see `ReleaseSource.index`."""
        path = self._repository / INDEX
        index = parse(Index, read_bounded(path, MAX_INDEX_BYTES), str(path))
        if index.name != name:
            msg = f"{path} is of model {index.name!r}, this agent serves {name!r}"
            raise ReleaseError(msg, reason="name")
        return index

    def read(self, target: TargetFile) -> bytes:
        """Read a target; see `ReleaseSource.read`."""
        path = target_file(self._repository, target)
        if ".." in Path(target.path).parts:
            msg = f"target path {target.path!r} leaves {TARGETS}/"
            raise ReleaseError(msg, reason="path")
        return read_bounded(path, target.length)
