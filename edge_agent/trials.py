"""Trials under way: live rows and measurements in, evidence out, and what follows.

Runs on the thread that changes what serves, a little at a time, so that requests keep the
processor.
"""

from __future__ import annotations

import time
from collections import deque

import msgspec
import structlog

from edge_agent.clock import Clock
from edge_agent.lifecycle import Refusal, soaked, switch
from edge_agent.promotion import Promotion
from edge_agent.settings import PromotionSettings
from edge_agent.shadow import MEASURED_ROWS, SOAK_ROWS, Beside, Measured, samples
from edge_agent.slots import Slot
from edge_agent.trial import Evidence, Phase, Verdict, allowed_difference, judge

log = structlog.get_logger(__name__)

#: Time between looks, s, and how long one may take: a share of 2 % of one core.
LOOK_SECONDS, BUDGET_SECONDS = 0.25, 0.005
#: Evidence is saved each time a trial has come this share of its way further.
SAVED_SHARE = 0.1


class Trials:
    """Carries out the shadow and the soak of a promotion.

    Parameters
    ----------
    promotion : Promotion
    settings : PromotionSettings
    clock : Clock
    """

    def __init__(self, promotion: Promotion, settings: PromotionSettings, clock: Clock) -> None:
        self.measured: deque[Measured] = deque(maxlen=MEASURED_ROWS)
        """Predictions with measurements in the house; filled by whoever sees both."""
        self._promotion = promotion
        self._settings = settings
        self._clock = clock
        self._looked = clock.monotonic()
        self._failed: tuple[Slot | None, int] = (None, 0)
        self._saved: dict[tuple[Phase, int], float] = {}
        self._besides: dict[Phase, Beside] = {}

    @property
    def running(self) -> bool:
        """Whether anything is on trial."""
        state = self._promotion.state
        return state.shadow is not None or state.soak is not None

    def look(self, seconds: float = BUDGET_SECONDS) -> None:
        """Look at what came, for so long (s) at the most, and act on it."""
        now = self._clock.monotonic()
        elapsed, self._looked = max(0.0, now - self._looked), now
        self._promotion.save()
        active = self._promotion.slots.pair.active
        if active is not None and self.running:
            self._collect(active, elapsed, time.perf_counter() + seconds)
            try:
                self._act(active)
            except OSError as error:  # nothing has changed; the next look tries again
                log.warning("no step of a trial goes on record", reason=str(error))
        self._listen()

    def _collect(self, active: Slot, elapsed: float, until: float) -> None:
        state = self._promotion.state
        failed = active.live.failed - (self._failed[1] if self._failed[0] is active else 0)
        self._failed = (active, active.live.failed)
        shadow = self._beside("shadow", self._promotion.slots.candidate, active, active)
        soak = self._beside("soak", active, self._promotion.slots.pair.previous, active)
        gained = [(shadow, Evidence(seconds=elapsed)), (soak, Evidence(seconds=elapsed))]
        rows = active.live.rows
        while rows:
            row = rows.popleft()
            gained = [(b, e.plus(b.row(row)) if b else e) for b, e in gained]
            if time.perf_counter() > until:
                break
        while self.measured and time.perf_counter() <= until:
            pair = self.measured.popleft()
            if pair.version == active.version:
                gained = [
                    (b, e.plus(b.measured(pair.row, pair.speeds)) if b else e) for b, e in gained
                ]
        (_, in_shadow), (_, in_soak) = gained
        if state.shadow is not None:
            state = msgspec.structs.replace(state, shadow=state.shadow.plus(in_shadow))
        if state.soak is not None:
            in_soak = in_soak.plus(Evidence(errors=failed))
            state = msgspec.structs.replace(state, soak=state.soak.plus(in_soak))
        self._promotion.state = state

    def _act(self, active: Slot) -> None:
        promotion = self._promotion
        state, candidate = promotion.state, promotion.slots.candidate
        if state.soak is not None:
            verdict = judge("soak", state.soak, self._settings)
            if verdict.outcome != "on":
                self._end_soak(active, verdict)
                return
        if state.shadow is not None and candidate is not None:
            scores = (
                active.release.scores["selection"].relative_l2,
                candidate.release.scores["selection"].relative_l2,
            )
            allowed = allowed_difference(scores, self._settings)
            verdict = judge("shadow", state.shadow, self._settings, allowed)
            if verdict.outcome != "on":
                self._end_shadow(candidate, verdict)
                return
        self._save_progress()

    def _end_soak(self, active: Slot, verdict: Verdict) -> None:
        promotion = self._promotion
        if verdict.outcome == "passed":
            promotion.note(soaked(promotion.state, "time", verdict.reason))
        elif not promotion.give_way(str(verdict.rule), verdict.reason, manifest=active.manifest):
            reason = f"nothing else can serve, although it fails: {verdict.reason}"
            promotion.note(soaked(promotion.state, "alone", reason))

    def _end_shadow(self, candidate: Slot, verdict: Verdict) -> None:
        promotion = self._promotion
        version = candidate.version
        if verdict.outcome == "failed":
            refusal = Refusal(version=version, manifest=candidate.manifest, reason=verdict.reason)
            promotion.reject(refusal, str(verdict.rule))
        elif not promotion.state.hold:
            step = switch(promotion.state, version, str(verdict.rule), verdict.reason)
            promotion.serve(candidate, step, self._clock.now())

    def _save_progress(self) -> None:
        state, settings = self._promotion.state, self._settings
        found: dict[tuple[Phase, int], float] = {}
        if state.shadow is not None and state.candidate is not None:
            found["shadow", state.candidate] = max(
                state.shadow.compared / max(1, settings.shadow_predictions),
                state.shadow.seconds / settings.shadow_seconds,
            )
        if state.soak is not None and state.active is not None:
            found["soak", state.active] = state.soak.seconds / settings.soak_seconds
        if any(share >= self._saved.get(key, 0.0) + SAVED_SHARE for key, share in found.items()):
            self._promotion.save(state)
            self._saved = found

    def _beside(
        self, phase: Phase, slot: Slot | None, other: Slot | None, live: Slot
    ) -> Beside | None:
        if slot is None or other is None or not self._runs(phase):
            self._besides.pop(phase, None)
            return None
        known = self._besides.get(phase)
        if known is None or known.slot is not slot or known.other is not other:
            known = self._besides[phase] = Beside(slot, other, live.columns, self._settings)
        return known if known.possible else None

    def _runs(self, phase: Phase) -> bool:
        state = self._promotion.state
        return (state.shadow if phase == "shadow" else state.soak) is not None

    def _listen(self) -> None:
        """Let the active release keep live rows if they are wanted, and no other."""
        slots = self._promotion.slots
        shadow = self._runs("shadow")
        for slot in slots.loaded:
            live = slot.live
            if slot is not slots.pair.active or not self.running:
                live.rows = None
            elif live.rows is None or shadow != (live.rows.maxlen != SOAK_ROWS):
                live.rows = samples(shadow=shadow)
