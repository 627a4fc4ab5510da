"""The repository: ``metadata/`` and ``targets/`` in a folder that any static server can serve.

``NAME/index.json`` is the signed document that says which releases there are and which device gets
which: a TUF target like every file of a release. `edge_agent.contracts.rollout` decides from it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import TargetFile

METADATA = "metadata"
TARGETS = "targets"

Channel = Literal["candidate", "stable"]
Version = Annotated[int, Field(ge=1)]
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]
"""Name of one device, unique among the devices that follow a repository."""


class ReleaseRef(Contract):
    """Where a release's manifest is."""

    version: Version
    """The release's version."""
    manifest: TargetFile
    """The manifest file."""


class Rollout(Contract):
    """A version that a channel gives to a share of its devices."""

    version: Version
    """What the share gets; the channel points to it."""
    percent: Annotated[float, Field(ge=0, le=100)]
    """Share of the devices, %; those whose `rollout.cohort` is below it."""


class Index(Contract):
    """Which releases there are, and who gets which."""

    format: Literal["rbf-index/1"] = "rbf-index/1"
    """Version of this contract."""
    name: str
    """Model name."""
    releases: tuple[ReleaseRef, ...] = ()
    """Every published release, by ascending version."""
    channels: dict[Channel, Version] = Field(default_factory=dict)
    """Version that each channel points to."""
    history: dict[Channel, tuple[Version, ...]] = Field(default_factory=dict)
    """Versions that each channel pointed to before, ascending, all below the present one."""
    rollouts: dict[Channel, Rollout] = Field(default_factory=dict)
    """Channels whose present version goes to a share of the devices; the others get the newest
    in the channel's history that is not withdrawn."""
    pins: dict[DeviceId, Version] = Field(default_factory=dict)
    """Devices that get one version, whatever their channel says."""
    withdrawn: dict[Version, str] = Field(default_factory=dict)
    """Versions that nobody gets any more, with the reason."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        listed = [r.version for r in self.releases]
        if listed != sorted(set(listed)):
            msg = "releases are not by ascending version"
            raise ValueError(msg)
        for channel, earlier in self.history.items():
            now = self.channels.get(channel, 0)
            if list(earlier) != sorted(set(earlier)) or any(v >= now for v in earlier):
                msg = f"history of channel {channel} is not ascending and below {now}"
                raise ValueError(msg)
        for channel, rollout in self.rollouts.items():
            if self.channels.get(channel) != rollout.version:
                msg = f"rollout of version {rollout.version}: channel {channel} is elsewhere"
                raise ValueError(msg)
        named = {*self.channels.values(), *self.pins.values(), *self.withdrawn}
        if unlisted := named.union(*self.history.values()) - set(listed):
            msg = f"versions that are not listed: {', '.join(map(str, sorted(unlisted)))}"
            raise ValueError(msg)
        return self

    def release(self, version: int | None) -> ReleaseRef | None:
        """Return a listed release, or none."""
        return next((r for r in self.releases if r.version == version), None)

    def current(self, channel: Channel) -> ReleaseRef | None:
        """Return what a channel points to, or none; `rollout.offered` is what a device gets."""
        return self.release(self.channels.get(channel))


def index_path(name: str) -> str:
    """Return the target path of a model's index."""
    return f"{name}/index.json"


def stored_path(target: TargetFile) -> str:
    """Return where a target lies under ``targets/``: its basename is prefixed by the digest.

    This is TUF's consistent-snapshot naming: a target that changes never replaces a file.
    """
    path = PurePosixPath(target.path)
    return str(path.with_name(f"{target.sha256}.{path.name}"))


def target_file(repository: Path, target: TargetFile) -> Path:
    """Return the path of a target in a repository folder."""
    return repository / TARGETS / stored_path(target)
