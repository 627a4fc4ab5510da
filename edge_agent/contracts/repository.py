"""The repository: ``metadata/`` and ``targets/`` in a folder that any static server can serve.

``metadata/index.json`` says which release each channel points to. It is the one mutable file and
is replaced atomically. Signed TUF metadata will take its place; readers go through
`edge_agent.updates.ReleaseSource`, which is the seam.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import TargetFile

INDEX = "metadata/index.json"
TARGETS = "targets"

Channel = Literal["candidate", "stable"]


class ReleaseRef(Contract):
    """Where a release's manifest is."""

    version: Annotated[int, Field(ge=1)]
    """The release's version."""
    manifest: TargetFile
    """The manifest file."""


class Index(Contract):
    """What the channels point to."""

    format: Literal["rbf-index/1"] = "rbf-index/1"
    """Version of this contract."""
    name: str
    """Model name."""
    releases: tuple[ReleaseRef, ...] = ()
    """Every published release, by ascending version."""
    channels: dict[Channel, int] = Field(default_factory=dict)
    """Version that each channel points to."""

    def current(self, channel: Channel) -> ReleaseRef | None:
        """Return what a channel points to, or none."""
        version = self.channels.get(channel)
        return next((r for r in self.releases if r.version == version), None)


def stored_path(target: TargetFile) -> str:
    """Return where a target lies under ``targets/``: its basename is prefixed by the digest.

    This is TUF's consistent-snapshot naming, so signed metadata can take over without moving files.
    """
    path = PurePosixPath(target.path)
    return str(path.with_name(f"{target.sha256}.{path.name}"))


def target_file(repository: Path, target: TargetFile) -> Path:
    """Return the path of a target in a repository folder."""
    return repository / TARGETS / stored_path(target)
