"""What to do with what is offered, and what stands in for a release that fails: pure.

Which offer is taken (`decide`); the first rule that applies decides:

1. Nothing offered, or the version serves already or is on trial: nothing to do.
2. A withdrawn version, or one that was refused under the same manifest, is not taken.
3. If nothing serves any more because the disk has lost it, whatever else is offered serves at once.
4. The device is pinned by command: only that version is taken, and serves at once.
5. The device is on hold: nothing is taken.
6. An older version is taken only if the owner has pinned the device to it, or has withdrawn the
   active one; it serves at once, as a recorded rollback.
7. Nothing up to the version that was rolled back from: only a newer one gets past.
8. While another candidate is in the shadow, a newer one waits: each is judged, none for ever.
9. The first release serves at once, and so does every one in place of a withdrawn one or if no
   shadow is asked for; the others go into the shadow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.lifecycle import State

Why = Literal[
    "nothing", "active", "candidate", "withdrawn", "refused", "pinned", "hold", "older", "held",
    "waits", "first", "newer", "lost",
]  # fmt: skip


class Offer(NamedTuple):
    """What the repository offers this device now."""

    ref: ReleaseRef
    """The release."""
    pinned: bool = False
    """Whether the owner has pinned this device to it."""


class Decision(NamedTuple):
    """What to do with an offer, and why."""

    take: bool
    """Whether to fetch and check it."""
    why: Why
    direct: bool = False
    """Whether it then serves at once, without a shadow."""


def decide(
    offer: Offer | None, state: State, *, shadow: bool = True, serving: bool = True
) -> Decision:
    """Return what to do with an offer; the module's rules.

    Parameters
    ----------
    offer : Offer or None
    state : State
    shadow : bool
        Whether releases go through the shadow.
    serving : bool
        Whether anything serves: the active release may have been lost with the disk.
    """
    if offer is None:
        return Decision(False, "nothing")
    version = offer.ref.version
    if version == state.active and serving:
        return Decision(False, "active")
    if version in state.withdrawn:
        return Decision(False, "withdrawn")
    refusal = state.refusal(version)
    if refusal is not None and refusal.manifest == offer.ref.manifest.sha256:
        return Decision(False, "refused")
    if not serving and state.active is not None:
        return Decision(True, "lost", direct=True)
    if state.pinned is not None:
        return Decision(version == state.pinned, "pinned", direct=True)
    if state.hold:
        return Decision(False, "hold")
    if offer.pinned and version != state.held:
        return Decision(True, "pinned", direct=True)
    return _by_version(version, state, shadow=shadow)


def _by_version(version: int, state: State, *, shadow: bool) -> Decision:
    gone = state.active in state.withdrawn
    if version == state.candidate:
        return Decision(False, "candidate")
    if state.held is not None and version <= state.held:
        return Decision(False, "held")
    if state.active is None:
        return Decision(True, "first", direct=True)
    if version < state.active:
        return Decision(gone, "withdrawn" if gone else "older", direct=True)
    if state.candidate is not None and not gone:
        return Decision(False, "waits")
    return Decision(True, "newer", direct=gone or not shadow)


def check_promotable(state: State, version: int) -> None:
    """Raise `ReleaseError` if a command must not make a version serve."""
    if version in state.withdrawn:
        msg = f"release {version} is withdrawn: {state.withdrawn[version]}"
        raise ReleaseError(msg, reason="withdrawn", version=version)


def fallbacks(state: State, stored: Iterable[int]) -> list[int]:
    """Return the stored versions that may serve in place of the active one, the best first.

    The newest below the active one first, then the newest above; none that is withdrawn, refused or
    held.
    """
    active = state.active
    good = sorted((v for v in set(stored) if state.acceptable(v) and v != active), reverse=True)
    return sorted(good, key=lambda v: active is not None and v > active)


def restore_order(state: State, stored: Iterable[int]) -> list[int]:
    """Return the versions to try at a start, the best first.

    What served, what came before, what may serve, and last what should not: a doubtful answer, but
    an answer.
    """
    rest = sorted(set(stored), reverse=True)
    order = [v for v in (state.active, state.previous) if v is not None and state.sound(v)]
    order += fallbacks(state, [v for v in rest if v != state.candidate])
    order += [v for v in rest if v not in state.withdrawn] + rest
    return list(dict.fromkeys(order))
