"""Changes of an index: pure functions from an index to the next one.

Each refuses what cannot be meant with `PublishError`, and gives back an equal index where there is
nothing to do, so that a repeated command changes nothing.
"""

from __future__ import annotations

from apps.errors import PublishError
from edge_agent.contracts.repository import Channel, DeviceId, Index, ReleaseRef, Rollout


def listed(index: Index, ref: ReleaseRef) -> Index:
    """Return the index with a new release, which must be the newest.

    Raises
    ------
    PublishError
        If the version is taken by another release, or below the newest.
    """
    known = index.release(ref.version)
    if known == ref:
        return index
    if known is not None:
        msg = f"version {ref.version} is already published with another manifest; take the next"
        raise PublishError(msg, version=ref.version)
    if index.releases and ref.version < index.releases[-1].version:
        newest = index.releases[-1].version
        msg = f"version {ref.version} is below the newest, {newest}; versions grow"
        raise PublishError(msg, version=ref.version)
    return _changed(index, releases=(*index.releases, ref))


def promoted(index: Index, version: int, channel: Channel, percent: float = 100.0) -> Index:
    """Return the index with a channel pointing to a version, for a share of its devices.

    Called again with the channel's present version it changes the share; 100 ends the rollout.

    Raises
    ------
    PublishError
        If the version is not published, withdrawn, or older than what the channel points to.
    """
    _published(index, version)
    if version in index.withdrawn:
        msg = f"version {version} is withdrawn: {index.withdrawn[version]}"
        raise PublishError(msg, version=version)
    now = index.channels.get(channel)
    if now is not None and version < now:
        msg = f"{channel} points to {now} already; to go back to {version}, withdraw what is newer"
        raise PublishError(msg, version=version, channel=channel)
    earlier = index.history.get(channel, ())
    if now is not None and now < version:
        earlier = (*earlier, now)
    rollouts = {c: r for c, r in index.rollouts.items() if c != channel}
    if percent < 100:
        rollouts[channel] = Rollout(version=version, percent=percent)
    return _changed(
        index,
        channels=index.channels | {channel: version},
        history=index.history | ({channel: earlier} if earlier else {}),
        rollouts=rollouts,
    )


def pinned(index: Index, device: DeviceId, version: int | None) -> Index:
    """Return the index with a device pinned to a version, or free again.

    Raises
    ------
    PublishError
        If the version is not published, or withdrawn.
    """
    others = {d: v for d, v in index.pins.items() if d != device}
    if version is None:
        return _changed(index, pins=others)
    _published(index, version)
    if version in index.withdrawn:
        msg = f"version {version} is withdrawn: {index.withdrawn[version]}"
        raise PublishError(msg, version=version)
    return _changed(index, pins=others | {device: version})


def withdrawn(index: Index, version: int, reason: str) -> Index:
    """Return the index with a version that nobody gets any more; pins to it go.

    Raises
    ------
    PublishError
        If the version is not published.
    """
    _published(index, version)
    return _changed(
        index,
        withdrawn=index.withdrawn | {version: index.withdrawn.get(version, reason)},
        pins={d: v for d, v in index.pins.items() if v != version},
    )


def _published(index: Index, version: int) -> None:
    if index.release(version) is None:
        known = ", ".join(str(r.version) for r in index.releases) or "none"
        msg = f"version {version} is not published; published: {known}"
        raise PublishError(msg, version=version)


def _changed(index: Index, **fields: object) -> Index:
    return Index.model_validate(index.model_dump() | fields)
