"""The way of a release to active, and back: a pure state machine.

::

    offered ──► downloaded ──► verified, golden ──► shadow ──► active (soaking) ──► active
       │            │                 │               │             │                  │
       └─ waits     └──── refused ◄───┴───────────────┘             └── rolled back ◄──┘

A `State` is what the agent knows of its releases; each function returns the `Step` to the next
state: the state itself, and the transition that leads there. The shell (`edge_agent.promotion`)
puts the transition on record, then the state, and only then acts. A crash between the two reverts,
one after them resumes: the state on disk says what should serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from edge_agent.contracts.errors import NoSuchRelease
from edge_agent.trial import Evidence

#: Refusals remembered.
REFUSALS_KEPT = 20

Kind = Literal[
    "shadow", "active", "soaked", "refused", "rolled_back", "dropped", "withdrawn",
    "pinned", "unpinned", "hold", "unhold", "restored",
]  # fmt: skip


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release that must not serve."""

    version: int
    manifest: str
    """sha256 of its manifest: another manifest is another try."""
    reason: str


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the agent knows of its releases; ``state/active.json``."""

    format: Literal["rbf-active/2"] = "rbf-active/2"
    """Version of this file."""
    sequence: int = 0
    """Of the last transition."""
    active: int | None = None
    """Version that serves."""
    previous: int | None = None
    """Version that a rollback returns to."""
    held: int | None = None
    """Newest version that was rolled back from, while it is above the active one: stays out."""
    candidate: int | None = None
    """Version in the shadow."""
    shadow: Evidence | None = None
    """What the candidate has shown; none without one."""
    soak: Evidence | None = None
    """What the active release has shown since it serves; none once it has soaked."""
    pinned: int | None = None
    """Version that a command has fixed."""
    hold: bool = False
    """Whether a command has stopped updates."""
    refused: tuple[Refusal, ...] = ()
    """The last refusals, oldest first; one a version."""
    withdrawn: dict[int, str] = msgspec.field(default_factory=dict)
    """Versions that their owner has withdrawn, with the reason."""

    def refusal(self, version: int) -> Refusal | None:
        """Return the refusal of a version, or none."""
        return next((r for r in self.refused if r.version == version), None)

    def sound(self, version: int) -> bool:
        """Whether nothing is known against a version."""
        return version not in self.withdrawn and self.refusal(version) is None

    def acceptable(self, version: int) -> bool:
        """Whether a version may come to serve without a command."""
        return self.sound(version) and version != self.held

    def name_of(self, version: int) -> str:
        """Return where a version stands on its way, in a word."""
        if version == self.active:
            return "active" if self.soak is None else "soaking"
        if version == self.candidate:
            return "shadow"
        if version in self.withdrawn:
            return "withdrawn"
        if self.refusal(version) is not None:
            return "refused"
        if version == self.previous:
            return "previous"
        return "held" if version == self.held else "stored"


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One step on the record."""

    sequence: int
    """Counts up by one."""
    kind: Kind
    version: int | None
    """Release that it is about."""
    from_version: int | None
    """What served before it."""
    code: str
    """Why, in a word: for metrics."""
    reason: str
    """Why, for people."""


class Step(NamedTuple):
    """A transition and the state that it leads to."""

    state: State
    transition: Transition


def to_shadow(state: State, version: int) -> Step:
    """Make a checked release the candidate."""
    new = msgspec.structs.replace(state, candidate=version, shadow=Evidence())
    return _step(state, new, "shadow", version, "newer", "in the shadow of live traffic")


def switch(
    state: State, version: int, code: str, reason: str, *, pin: bool = False, hold: bool = False
) -> Step:
    """Let a loaded release serve; an older one than before is a rollback.

    The new one soaks if there is a release to compare it with and to return to, unless a command
    fixes it.

    Parameters
    ----------
    state : State
    version : int
    code, reason : str
        Why, in a word and for people.
    pin : bool
        Whether a command fixes it.
    hold : bool
        Whether a newer release left is held, so that the channel does not bring it back.
    """
    active = state.active
    back = active is not None and version < active
    # A release that must not serve is no place to return to.
    previous = None
    if active not in (None, version) and state.acceptable(active):
        previous = active
    held = state.held if (state.held or 0) > version else None
    if back and hold:
        held = held_after_rollback(held, left=active or 0, now=version)
    new = msgspec.structs.replace(
        _without_candidate(state) if pin else _new_reference(state, version),
        active=version,
        previous=previous,
        held=held,
        soak=Evidence() if previous is not None and not back and not pin else None,
        pinned=version if pin else state.pinned,
        refused=_others(state, version),
    )
    return _step(state, new, "rolled_back" if back else "active", version, code, reason)


def roll_back(state: State, reason: str) -> Step:
    """Return to the previous release by command; the one left stays at hand, and is held.

    Raises
    ------
    NoSuchRelease
        If there is none.
    """
    active, previous = state.active, state.previous
    if active is None or previous is None:
        msg = "there is no previous release to roll back to"
        raise NoSuchRelease(msg, version=None)
    new = msgspec.structs.replace(
        _new_reference(state, previous),
        active=previous,
        previous=active if state.sound(active) else None,
        held=held_after_rollback(state.held, left=active, now=previous),
        soak=None,
        pinned=None,
    )
    return _step(state, new, "rolled_back", previous, "command", reason)


def fall_back(
    state: State, to: int, code: str, reason: str, *, manifest: str | None = None
) -> Step:
    """Let another release serve in place of the active one, which must not; nothing leads back.

    Parameters
    ----------
    state : State
        With an active release.
    to : int
        Version that serves from now on; loaded.
    code, reason : str
        Why, in a word and for people.
    manifest : str, optional
        sha256 of the manifest of the release left; given, it is refused from now on.
    """
    left = state.active or 0
    refused = state.refused
    if manifest is not None:
        refused = _with(state, Refusal(version=left, manifest=manifest, reason=reason))
    new = msgspec.structs.replace(
        _new_reference(state, to),
        active=to,
        previous=None,
        held=held_after_rollback(state.held, left=left, now=to),
        soak=None,
        pinned=None,
        refused=refused,
    )
    return _step(state, new, "rolled_back", to, code, reason)


def restored(state: State, version: int, previous: int | None, reason: str) -> Step:
    """Let another release serve after a start: what should is not known or not loadable."""
    kind: Kind = "rolled_back" if (state.active or 0) > version else "restored"
    new = msgspec.structs.replace(
        _new_reference(state, version),
        active=version,
        previous=previous,
        held=state.held if (state.held or 0) > version else None,
        soak=None,
    )
    return _step(state, new, kind, version, "damaged", reason)


def refuse(state: State, refusal: Refusal, code: str) -> Step:
    """Refuse a release; if it was the candidate, the shadow ends."""
    new = msgspec.structs.replace(state, refused=_with(state, refusal))
    if state.candidate == refusal.version:
        new = _without_candidate(new)
    return _step(state, new, "refused", refusal.version, code, refusal.reason)


def drop_candidate(state: State, reason: str) -> Step:
    """Take the candidate out of the shadow with nothing held against it."""
    return _step(state, _without_candidate(state), "dropped", state.candidate, "damaged", reason)


def soaked(state: State, code: str, reason: str) -> Step:
    """End the trial of the active release, which stays."""
    new = msgspec.structs.replace(state, soak=None)
    return _step(state, new, "soaked", state.active, code, reason)


def withdraw(state: State, withdrawn: Mapping[int, str]) -> Step | None:
    """Take note of the owner's list of withdrawn versions; none if it has not changed.

    A withdrawn candidate or previous release is let go of; what comes in place of the active one
    is `fallbacks`' to say.
    """
    if dict(withdrawn) == state.withdrawn:
        return None
    news = sorted(withdrawn.keys() - state.withdrawn.keys())
    new = msgspec.structs.replace(state, withdrawn=dict(withdrawn))
    if new.candidate in withdrawn:
        new = _without_candidate(new)
    if new.previous in withdrawn:
        new = msgspec.structs.replace(new, previous=None, soak=None)
    reason = "; ".join(f"{v}: {withdrawn[v]}" for v in news) or "fewer than before"
    return _step(state, new, "withdrawn", news[-1] if news else None, "withdrawn", reason)


def set_pin(state: State, version: int | None) -> Step:
    """Fix the version that serves by command, or let it go."""
    if version is None:
        new = msgspec.structs.replace(state, pinned=None)
        return _step(state, new, "unpinned", state.pinned, "command", "unpinned")
    new = msgspec.structs.replace(_without_candidate(state), pinned=version, soak=None)
    return _step(state, new, "pinned", version, "command", "pinned")


def set_hold(state: State, *, hold: bool) -> Step:
    """Stop updates by command, or let them go on."""
    new = msgspec.structs.replace(state, hold=hold)
    kind: Kind = "hold" if hold else "unhold"
    return _step(state, new, kind, state.active, "command", kind)


def held_after_rollback(held: int | None, *, left: int, now: int) -> int | None:
    """Return the version to hold after going back from `left` to `now`."""
    highest = max(left, held or 0)
    return highest if highest > now else None


def _new_reference(state: State, version: int) -> State:
    """Start the candidate's trial anew beside another active release, or end it."""
    if state.candidate is None or state.candidate <= version:
        return _without_candidate(state)
    return msgspec.structs.replace(state, shadow=Evidence())


def _without_candidate(state: State) -> State:
    return msgspec.structs.replace(state, candidate=None, shadow=None)


def _with(state: State, refusal: Refusal) -> tuple[Refusal, ...]:
    return (*_others(state, refusal.version), refusal)[-REFUSALS_KEPT:]


def _others(state: State, version: int) -> tuple[Refusal, ...]:
    return tuple(r for r in state.refused if r.version != version)


def _step(
    before: State, after: State, kind: Kind, version: int | None, code: str, reason: str
) -> Step:
    number = before.sequence + 1
    return Step(
        msgspec.structs.replace(after, sequence=number),
        Transition(
            sequence=number,
            kind=kind,
            version=version,
            from_version=before.active,
            code=code,
            reason=reason,
        ),
    )
