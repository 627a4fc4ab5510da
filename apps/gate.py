"""Whether a candidate may be published: a pure function that never sees the evaluation set.

The rules:

1. Every prediction on the selection set is finite.
2. Its RMSE there is below the serving release's by at least ``min_improvement``.
3. Without a serving release, its RMSE is below the baselines in ``must_beat``. That is the constant
   ratio alone: the first surrogate comes after a dozen runs, when the nearest run may still be
   better, and an agent that serves is worth more than one that waits.
4. Its intervals cover at least ``min_coverage`` of the selection set.
5. If the estimated state of the house has moved since the serving release, the candidate need not
   be better on frozen sets that tell every model the true state, only not worse by as much: what
   it mends is the state that the serving release is told.
6. Nothing seems wrong with its training data (`apps.consistency`): a model of swapped axes, other
   units or another grid is refused with that reason, whatever it beats.

A baseline that is not beaten and not required is a remark, for the reader.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import Fraction, ScoreSet

PREVIOUS = "previous_release"


class GateSettings(Contract):
    """What a candidate has to reach."""

    min_improvement: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share by which the RMSE must be below the serving release's."""
    min_coverage: Fraction = 0.5
    """Smallest share of values inside the calibrated intervals: far below nominal is a fault."""
    must_beat: tuple[str, ...] = ("constant_ratio",)
    """Baselines that the first release must beat."""
    state_moved: bool = False
    """Whether the estimated state has moved since the serving release."""


class Verdict(Contract):
    """What the gate says."""

    accepted: bool
    """Whether to publish."""
    reasons: tuple[str, ...]
    """Why not; empty if accepted."""
    remarks: tuple[str, ...] = ()
    """What a reader should know, without weight."""


def decide(
    selection: ScoreSet | None, settings: GateSettings, suspicions: tuple[str, ...] = ()
) -> Verdict:
    """Return the verdict on a candidate.

    Parameters
    ----------
    selection : ScoreSet or None
        Scores on the selection set; none if a prediction was not finite.
    settings : GateSettings
    suspicions : tuple of str
        What seems wrong with the training data.
    """
    if selection is None:
        return Verdict(accepted=False, reasons=(*suspicions, "a prediction is not finite"))
    previous = selection.baselines.get(PREVIOUS)
    reasons = list(suspicions)
    if previous is not None:
        share = settings.min_improvement
        if settings.state_moved:
            if not selection.rmse <= (1 + share) * previous:
                reasons.append(
                    f"RMSE {selection.rmse:.4g} m/s is more than {share:.0%} above the serving "
                    f"release's {previous:.4g} m/s"
                )
        elif not selection.rmse < (1 - share) * previous:
            reasons.append(
                f"RMSE {selection.rmse:.4g} m/s is not {share:.0%} below the serving release's "
                f"{previous:.4g} m/s"
            )
    required = settings.must_beat if previous is None else ()
    reasons += [f"baseline {n} was not computed" for n in required if n not in selection.baselines]
    remarks: list[str] = []
    for name, value in sorted(selection.baselines.items()):
        if name == PREVIOUS or selection.rmse < value:
            continue
        text = f"RMSE {selection.rmse:.4g} m/s is not below {name}'s {value:.4g} m/s"
        (reasons if name in required else remarks).append(text)
    if selection.coverage < settings.min_coverage:
        reasons.append(
            f"intervals cover {selection.coverage:.0%}, less than {settings.min_coverage:.0%}"
        )
    return Verdict(accepted=not reasons, reasons=tuple(reasons), remarks=tuple(remarks))
