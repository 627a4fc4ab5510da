"""Which release a device gets: pure, and the same on both sides.

Pin before rollout before channel, and never a withdrawn version.
"""

from __future__ import annotations

import hashlib

from edge_agent.contracts.repository import Channel, Index, ReleaseRef


def cohort(device: str, version: int) -> float:
    """Return where a device stands in the rollout of a version, in [0, 100).

    Uniform over devices, fixed for one device and version, and independent between versions, so
    that it is not always the same devices that go first.
    """
    digest = hashlib.sha256(f"{version}/{device}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48 * 100  # 48 bits: exact in a float


def offered(index: Index, *, device: str, channel: Channel) -> ReleaseRef | None:
    """Return the release that a device is to serve, or none.

    A pin to a withdrawn version counts for nothing. A device outside the rollout, or one whose
    channel's version is withdrawn, gets the newest one that the channel pointed to before.
    """
    pinned = index.pins.get(device)
    if pinned is not None and pinned not in index.withdrawn:
        return index.release(pinned)
    versions = [*index.history.get(channel, ()), index.channels.get(channel, 0)]
    rollout = index.rollouts.get(channel)
    if rollout is not None and cohort(device, rollout.version) >= rollout.percent:
        versions.remove(rollout.version)
    return index.release(max((v for v in versions if v not in index.withdrawn), default=None))
