"""What a release on trial has shown, and what follows from it: pure.

A release is on trial twice: as a candidate in the *shadow* of live traffic, against the active
release; and as the active one while it *soaks*, against the release before it. Both ways the two
run on the same live inputs, one after the other, away from the requests.

Rules, in order; the first that applies decides:

1. **errors**: it failed, or gave a value that is not finite, where the other did not.
2. **latency**: on most rows it took longer than the limit and more than `SLOWER` times as long as
   the other. The ratio keeps a busy machine from being taken for a slow release.
3. **accuracy**: its absolute error at the interior sensors is larger than the other's, by more than
   the margin and by more than `STANDARD_ERRORS` standard errors of the paired difference.
4. **disagreement**: in the shadow only, and only while too few measurements tell who is right: the
   two differ more than their own scores explain.
5. Enough **predictions** compared: passed. In the shadow only.
6. The **time** is over: passed. A quiet site gets its updates too.

Rules 2 to 4 need `ENOUGH` observations, so that they apply as soon as something is clear and not
before.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from edge_agent.settings import PromotionSettings

#: Observations from which a mean or a share is looked at; fewer if fewer are asked for.
ENOUGH = 20
#: Times as long as the other release.
SLOWER = 2.0
STANDARD_ERRORS = 2.0
#: Relative error below which two good models are not told apart.
LEAST_DISAGREEMENT = 0.05

Phase = Literal["shadow", "soak"]
Rule = Literal["errors", "latency", "accuracy", "disagreement", "predictions", "time"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was seen of a release on trial, beside another one; sums, so that it can go on."""

    seconds: float = 0.0
    """Time on trial while the agent ran, s; of the monotonic clock, so that no jump shortens it."""
    compared: int = 0
    """Live inputs on which both ran."""
    errors: int = 0
    """Runs, compared or live, that failed or gave a value that is not finite."""
    slow: int = 0
    """Compared runs that took too long; see rule 2."""
    differed: int = 0
    """Compared runs inside both trained ranges on comparable outputs."""
    difference: float = 0.0
    """Sum over them of |wind - other's wind|_2 / |other's wind|_2."""
    measured: int = 0
    """Predictions compared with interior measurements."""
    worse: float = 0.0
    """Sum over them of its mean absolute error minus the other's, m/s."""
    worse_squares: float = 0.0
    """Sum of the squares of these, m2/s2."""

    def plus(self, other: Evidence) -> Evidence:
        """Return both together."""
        both = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Evidence(**dict(zip(self.__struct_fields__, (a + b for a, b in both), strict=True)))


class Verdict(NamedTuple):
    """What the evidence says."""

    outcome: Literal["on", "passed", "failed"]
    """``on``: the trial goes on."""
    rule: Rule | None
    """What decided."""
    reason: str
    """The same in words, with figures."""


ON = Verdict("on", None, "")


def allowed_difference(scores: tuple[float, float], settings: PromotionSettings) -> float:
    """Return the largest mean relative difference of two releases that rule 4 lets pass.

    Two models as good as their scores say differ by no more than the sum of their errors
    (the triangle inequality); the settings' factor leaves room for live winds that are rare in
    the selection set.

    Parameters
    ----------
    scores : (float, float)
        ``relative_l2`` of both on their selection sets.
    settings : PromotionSettings
    """
    return settings.disagreement * max(sum(scores), LEAST_DISAGREEMENT)


def judge(
    phase: Phase, evidence: Evidence, settings: PromotionSettings, allowed: float = math.inf
) -> Verdict:
    """Return what the evidence says.

    Parameters
    ----------
    phase : "shadow" or "soak"
    evidence : Evidence
    settings : PromotionSettings
    allowed : float
        See `allowed_difference`.
    """
    e = evidence
    enough = max(1, min(ENOUGH, settings.shadow_predictions))
    if e.errors > settings.errors:
        return _failed("errors", f"{e.errors} failed or not finite; {settings.errors} allowed")
    if e.compared >= enough and 2 * e.slow > e.compared:
        limit = f"{settings.latency_ms:g} ms and {SLOWER:g} times the other's"
        return _failed("latency", f"{e.slow} of {e.compared} runs took longer than {limit}")
    if e.measured >= enough:
        mean, error = _mean(e.measured, e.worse, e.worse_squares)
        if mean > settings.accuracy and mean > STANDARD_ERRORS * error:
            what = f"its error at the sensors is {mean:.3g} m/s larger"
            return _failed("accuracy", f"{what} (+- {error:.2g}) over {e.measured} predictions")
    elif phase == "shadow" and e.differed >= enough:
        mean = e.difference / e.differed
        if not mean <= allowed:
            what = f"differs by {mean:.3g} of the wind over {e.differed} predictions"
            return _failed("disagreement", f"{what}; {allowed:.3g} allowed by their scores")
    if phase == "shadow" and e.compared >= settings.shadow_predictions:
        return Verdict("passed", "predictions", f"{e.compared} predictions compared")
    if e.seconds >= (settings.shadow_seconds if phase == "shadow" else settings.soak_seconds):
        return Verdict("passed", "time", f"{e.seconds:.0f} s, {e.compared} predictions compared")
    return ON


def _failed(rule: Rule, reason: str) -> Verdict:
    return Verdict("failed", rule, f"{rule}: {reason}")


def _mean(count: int, total: float, squares: float) -> tuple[float, float]:
    """Return the mean and its standard error."""
    mean = total / count
    variance = max(0.0, squares / count - mean**2) * count / max(1, count - 1)
    return mean, math.sqrt(variance / count)
