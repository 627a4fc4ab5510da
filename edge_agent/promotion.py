"""What to do with what the repository offers: pure.

Rules, in order:

1. Nothing offered: keep serving.
2. Only a version above both the active one and the held one is taken; versions only grow, and a
   version that was rolled back from stays out until a newer one comes.
3. A version refused before is not tried again, unless its manifest is another one.
4. Otherwise load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edge_agent.contracts.repository import ReleaseRef

Why = Literal["nothing", "current", "older", "held", "refused", "newer"]


class Decision(NamedTuple):
    """Whether to load the offered release, and why."""

    load: bool
    why: Why


def decide(
    offered: ReleaseRef | None,
    *,
    active: int | None,
    held: int | None,
    refused: Mapping[int, str],
) -> Decision:
    """Return what to do.

    Parameters
    ----------
    offered : ReleaseRef or None
        What the channel points to.
    active : int or None
        Version that serves.
    held : int or None
        Newest version that was rolled back from, while it is above the active one.
    refused : mapping from version to manifest digest
        What was tried and refused.
    """
    if offered is None:
        return Decision(load=False, why="nothing")
    version = offered.version
    if version == active:
        return Decision(load=False, why="current")
    if active is not None and version < active:
        return Decision(load=False, why="older")
    if held is not None and version <= held:
        return Decision(load=False, why="held")
    if refused.get(version) == offered.manifest.sha256:
        return Decision(load=False, why="refused")
    return Decision(load=True, why="newer")


def held_after_rollback(held: int | None, *, left: int, now: int) -> int | None:
    """Return the version to hold after going back from `left` to `now`."""
    highest = max(left, held or 0)
    return highest if highest > now else None
