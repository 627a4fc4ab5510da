"""The thin shell round the way to active: record, then state, then the swap.

`edge_agent.offers`, `edge_agent.lifecycle` and `edge_agent.trial` decide; this carries it out. One
thread calls it (`edge_agent.changes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog

from edge_agent.clock import Clock
from edge_agent.contracts.errors import NoSuchRelease, ReleaseError
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.repository import Index, ReleaseRef
from edge_agent.journal import Journal, Swap
from edge_agent.lifecycle import (
    Refusal,
    State,
    Step,
    drop_candidate,
    fall_back,
    refuse,
    restored,
    roll_back,
    set_hold,
    set_pin,
    switch,
    to_shadow,
    withdraw,
)
from edge_agent.metrics import Counters
from edge_agent.offers import (
    Decision,
    Offer,
    check_promotable,
    decide,
    fallbacks,
    restore_order,
)
from edge_agent.settings import PromotionSettings
from edge_agent.slots import Slot, Slots
from edge_agent.updates.store import stored_versions

log = structlog.get_logger(__name__)


class Promotion:
    """Which release serves, and why.

    Parameters
    ----------
    slots : Slots
    journal : Journal
    settings : PromotionSettings
    clock : Clock
    counters : Counters
    """

    def __init__(
        self,
        slots: Slots,
        journal: Journal,
        settings: PromotionSettings,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.state = State()
        """What the agent knows of its releases."""
        self.slots = slots
        self.journal = journal
        self.after_swap: Callable[[], None] = lambda: None
        """Called after each swap but the first of a start."""
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._pending: list[Step] = []

    def restore(self) -> None:
        """Load what should serve; failing that, what may; or nothing."""
        started = self._clock.now()
        self.state = state = self.journal.read_state()
        self._note_reverted()
        slots = self.slots
        active: Slot | None = None
        for version in restore_order(state, stored_versions(slots.releases)):
            active = slots.try_load(version)
            if active is not None:
                break
        if active is None:
            if state.candidate is not None:
                self.note(drop_candidate(state, "nothing on the disk is loadable"))
            return
        previous = None
        if state.previous not in (None, active.version) and active.version == state.active:
            previous = slots.try_load(state.previous or 0)
        if active.version != state.active:
            left = "nothing known" if state.active is None else f"release {state.active}"
            reason = f"{left} cannot serve after the start"
            self.note(restored(state, active.version, None, reason))
        slots.swap(active, previous)
        self._record_swap(active.version, None, "restart", "restart", started)
        if (candidate := self.state.candidate) is not None:
            slots.set_candidate(slots.try_load(candidate))
            if slots.candidate is None:
                self.note(drop_candidate(self.state, "it is not loadable after the start"))

    def wants(self, offer: Offer | None) -> Decision:
        """Return what to do with an offer; see `edge_agent.offers.decide`."""
        shadow = self._settings.shadow_predictions > 0
        serving = self.slots.pair.active is not None
        return decide(offer, self.state, shadow=shadow, serving=serving)

    def take(self, offer: Offer, *, started: float) -> None:
        """Check a downloaded release; let it into the shadow, or serve.

        Parameters
        ----------
        offer : Offer
        started : float, s since the Unix epoch
            When the work on it began.

        Raises
        ------
        OSError
            If the disk fails; nothing has changed.
        """
        decision = self.wants(offer)  # again: a command may have come in between
        if not decision.take:
            return
        version = offer.ref.version
        try:
            slot = self.slots.load(version)
        except OSError:
            raise
        except ReleaseError as error:
            self.refuse(offer.ref, error)
            return
        except Exception as error:  # a release that breaks us must not be tried for ever
            log.exception("a release cannot be loaded", version=version)
            msg = f"it cannot be loaded: {error!r}"
            self.refuse(offer.ref, ReleaseError(msg, reason="unexpected"))
            return
        failpoint("promotion.loaded")
        if decision.direct:
            self.serve(slot, switch(self.state, version, decision.why, "offered"), started)
        else:
            self.commit(to_shadow(self.state, version))
            self.slots.set_candidate(slot)

    def refuse(self, ref: ReleaseRef, error: ReleaseError) -> None:
        """Remember that a release is no good, by its manifest."""
        reason = f"{type(error).__name__}: {error}"
        self.reject(
            Refusal(version=ref.version, manifest=ref.manifest.sha256, reason=reason),
            type(error).__name__,
        )

    def reject(self, refusal: Refusal, code: str) -> None:
        """Refuse a release; if it was the candidate it is let go of."""
        self._counters.releases_refused += 1
        was_candidate = self.state.candidate == refusal.version
        self.note(refuse(self.state, refusal, code))
        if was_candidate:
            self.slots.set_candidate(None)

    def follow(self, index: Index) -> None:
        """Do what the owner's index says of withdrawn releases.

        Raises
        ------
        OSError
            If the disk takes no record.
        """
        step = withdraw(self.state, index.withdrawn)
        if step is not None:
            self.commit(step)
            slots, state = self.slots, self.state
            if slots.candidate is not None and state.candidate is None:
                slots.set_candidate(None)
            active, previous = slots.pair
            if active is not None and previous is not None and state.previous is None:
                slots.swap(active, None)
        state = self.state
        if state.active is not None and state.active in state.withdrawn:
            self.give_way("withdrawn", f"withdrawn: {state.withdrawn[state.active]}")

    def give_way(self, code: str, reason: str, *, manifest: str | None = None) -> bool:
        """Let the best other release serve in place of the active one; return whether one does.

        Parameters
        ----------
        code, reason : str
            Why, in a word and for people.
        manifest : str, optional
            sha256 of the manifest of the release left, to be refused from now on.
        """
        started = self._clock.now()
        for version in fallbacks(self.state, stored_versions(self.slots.releases)):
            slot = self.slots.try_load(version)
            if slot is not None:
                step = fall_back(self.state, version, code, reason, manifest=manifest)
                self.serve(slot, step, started)
                return True
        log.error("nothing else can serve", version=self.state.active, reason=reason)
        return False

    def rollback(self, by: str) -> int:
        """Let the previous release serve, and hold the one left; return its version.

        Raises
        ------
        NoSuchRelease
            If there is no previous release.
        OSError
            If the disk takes no record.
        """
        step = roll_back(self.state, f"asked by {by}")
        previous = self.slots.try_load(step.state.active or 0)
        if previous is None:
            msg = f"release {step.state.active} cannot be loaded any more"
            raise NoSuchRelease(msg, version=step.state.active)
        self.serve(previous, step, self._clock.now(), rollback=True)
        return previous.version

    def promote(self, version: int, by: str, *, pin: bool = False) -> int:
        """Let a release on this device serve now, whatever its trial has shown.

        Parameters
        ----------
        version : int
        by : str
            Who asks.
        pin : bool
            Whether it is to stay, whatever is offered.

        Raises
        ------
        NoSuchRelease
            If it is not on this device.
        ReleaseError
            If it is withdrawn, damaged or fails its golden examples.
        OSError
            If the disk fails.
        """
        state = self.state
        check_promotable(state, version)
        if not pin and state.pinned not in (None, version):
            msg = f"this device is pinned to release {state.pinned}: unpin it first"
            raise ReleaseError(msg, reason="pinned", version=version)
        if version == state.active and self.slots.pair.active is not None:
            if pin:
                self.commit(set_pin(state, version))
                self.slots.set_candidate(None)
            return version
        started = self._clock.now()
        try:
            slot = self.slots.find(version)
        except NoSuchRelease:
            if version not in stored_versions(self.slots.releases):
                msg = f"release {version} is not on this device; `releases` shows what is"
                raise NoSuchRelease(msg, version=version) from None
            slot = self.slots.load(version)
        code = "pin" if pin else "promote"
        step = switch(state, version, code, f"asked by {by}", pin=pin, hold=not pin)
        self.serve(slot, step, started)
        return version

    def unpin(self) -> int | None:
        """Let the device follow its channel again; return what serves."""
        if self.state.pinned is not None:
            self.commit(set_pin(self.state, None))
        return self.state.active

    def hold(self, *, hold: bool) -> int | None:
        """Stop updates, or let them go on; return what serves."""
        if self.state.hold != hold:
            self.commit(set_hold(self.state, hold=hold))
        return self.state.active

    def serve(self, slot: Slot, step: Step, started: float, *, rollback: bool = False) -> None:
        """Put a swap on the disk, and then do it.

        Raises
        ------
        OSError
            If the disk takes no record; nothing has changed.
        """
        before = self.slots.pair.active
        self.commit(step)
        previous = None
        if (version := step.state.previous) is not None:
            previous = next((s for s in self.slots.loaded if s.version == version), None)
        self.slots.swap(slot, previous)
        if self.slots.candidate is not None and step.state.candidate is None:
            self.slots.set_candidate(None)
        failpoint("promotion.swapped")
        back = rollback or step.transition.kind == "rolled_back"
        reason: Literal["release", "rollback"] = "rollback" if back else "release"
        left = None if before is None else before.version
        self._record_swap(slot.version, left, reason, step.transition.code, started)
        self.after_swap()

    def commit(self, step: Step) -> None:
        """Put a transition on the disk: first the record, then the state to restart from.

        Raises
        ------
        OSError
            If the disk does not take it; nothing has changed.
        """
        self._catch_up()
        self.journal.transition(step, self._clock.now())
        failpoint("promotion.recorded")
        try:
            self.journal.write_state(step.state)
        except OSError:
            self._note_reverted()
            raise
        failpoint("promotion.committed")
        self._done(step)

    def note(self, step: Step) -> None:
        """Make a transition that must be, even if the disk does not take it yet."""
        try:
            self.commit(step)
        except OSError as error:
            log.error("a transition is not on record yet", reason=str(error))
            self._done(step)
            self._pending.append(step)

    def save(self, state: State | None = None) -> None:
        """Write the state, if it is given or not on the disk yet; a failing disk may wait.

        Parameters
        ----------
        state : State, optional
            With new evidence.
        """
        if state is None and not self._pending:
            return
        self.state = state or self.state
        try:
            self._catch_up()
            self.journal.write_state(self.state)
        except OSError as error:
            log.warning("the state is not on the disk yet", reason=str(error))

    def _catch_up(self) -> None:
        while self._pending:
            self.journal.transition(self._pending[0], self._clock.now())
            del self._pending[0]

    def _done(self, step: Step) -> None:
        self.state = step.state
        transition = step.transition
        self._counters.transitions[f"{transition.kind}:{transition.code}"] += 1
        log.info(
            "release " + transition.kind.replace("_", " "),
            version=transition.version,
            was=transition.from_version,
            reason=transition.reason,
        )

    def _note_reverted(self) -> None:
        last = self.journal.last
        if last is None or last.sequence <= self.state.sequence:
            return
        try:
            self.journal.event("reverted", sequence=last.sequence, at=self._clock.now())
        except OSError as error:
            log.warning("the record is behind", reason=str(error))
        self.journal.last = self.state

    def _record_swap(
        self,
        version: int,
        left: int | None,
        reason: Literal["release", "rollback", "restart"],
        cause: str,
        started: float,
    ) -> None:
        now = self._clock.now()
        try:
            self.journal.swapped(
                Swap(
                    version=version,
                    from_version=left,
                    reason=reason,
                    loading_started_at=started,
                    swapped_at=now,
                    finished_at=self._clock.now(),
                    cause=cause,
                )
            )
        except OSError as error:  # the transition is on record, only its times are not
            log.error("the record of a swap is not on the disk", reason=str(error))
        failpoint("promotion.journalled")
