"""What the campaign does next: a pure function of where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workflows.config import Campaign
from workflows.errors import CampaignError
from workflows.ledger import Role
from workflows.steering import training_due

FROZEN: tuple[Role, ...] = ("selection", "calibration", "evaluation")

#: Roles that the dearer simulator runs.
REFERENCE: tuple[Role, ...] = ("reference", "held_out")

#: A frozen set is given up when so many times its size have failed.
HOPELESS = 3


@dataclass(frozen=True)
class Tally:
    """Simulations of one role."""

    planned: int = 0
    """Decided on, not ended."""
    done: int = 0
    """Finished."""
    failed: int = 0
    """Recorded failures."""


@dataclass(frozen=True)
class Standing:
    """Where the campaign stands."""

    tallies: Mapping[Role, Tally]
    """Simulations by role."""
    room: int
    """Cases that may still be put in flight now."""
    tears: int
    """Scenarios with tears that there are to draw."""
    last_trained: int
    """Training simulations of the latest candidate, 0 without one."""
    candidate_open: bool
    """Whether a candidate is between training and its end."""
    out_of_time: bool
    """Whether the wall time is spent."""
    pairs: int = 0
    """Pairs of runs of both simulators that there should be by now."""
    last_pairs: int = 0
    """Pairs behind the latest candidate's correction."""
    state_moved: bool = False
    """Whether the house is in another state than the latest candidate was made for."""
    following: bool = False
    """Whether the state of the house is still estimated, so that a release may follow."""


@dataclass(frozen=True)
class Plan:
    """Plan `count` simulations of a role."""

    role: Role
    count: int


@dataclass(frozen=True)
class Train:
    """Train on every training simulation that is done."""


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do."""


Action = Plan | Train | Finish


def sizes(campaign: Campaign) -> dict[Role, int]:
    """Return how many simulations of each role must be done before the first training."""
    frozen = {role: int(getattr(campaign.frozen, role)) for role in FROZEN}
    if not campaign.corrected:
        return frozen
    # The dear ones first: they take longest.
    reference = campaign.reference
    return {"reference": reference.pairs, "held_out": reference.held_out, **frozen}


def decide(campaign: Campaign, standing: Standing) -> list[Action]:
    """Return what to do now; an empty list means wait.

    No stage waits for another but where it needs its result: training simulations follow the
    frozen ones without a pause, and go on while a candidate is trained and validated.

    Raises
    ------
    CampaignError
        If a frozen set cannot be filled because its simulations fail.
    """
    actions: list[Action] = []
    room = standing.room
    for role, size in sizes(campaign).items():
        tally = standing.tallies[role]
        if tally.failed > HOPELESS * size:
            msg = (
                f"{tally.failed} simulations of the {role} set failed; see the reasons in the "
                "ledger and mend site, fidelity or scenario range"
            )
            raise CampaignError(msg, role=role, failed=tally.failed)
        count = min(size - tally.done - tally.planned, room)
        if count > 0:
            actions.append(Plan(role, count))
            room -= count
    training = standing.tallies["training"]
    planned = training.done + training.failed + training.planned
    left = campaign.budget.simulations - planned
    # On a machine too slow for its budget the first training still gets its simulations.
    late = standing.out_of_time and training.done + training.planned >= campaign.training.first
    spent = late or left <= 0
    reference = standing.tallies["reference"]
    more = standing.pairs - reference.done - reference.planned - reference.failed
    if not late and min(more, room) > 0 and training.done >= campaign.training.first:
        # Dear runs before cheap ones: they take longest, and it is their turn.
        actions.append(Plan("reference", min(more, room)))
        room -= min(more, room)
    if not spent and room > 0:
        actions.append(Plan("training", min(left, room)))
        room -= min(left, room)
    tears = standing.tallies["tear"]
    wanted = min(int(campaign.steering.tears * planned), standing.tears)
    wanted -= tears.done + tears.failed + tears.planned
    wanted = 0 if late else max(0, wanted)
    if min(wanted, room) > 0:
        actions.append(Plan("tear", min(wanted, room)))
    complete = all(standing.tallies[role].done >= size for role, size in sizes(campaign).items())
    if not complete or standing.tallies["paired"].planned or standing.candidate_open:
        return actions
    final = spent and training.planned == 0
    rules = campaign.training
    # A correction from more pairs is worth a training of its own, as is a house that has changed.
    corrected = reference.done > standing.last_pairs and not reference.planned
    follow = (standing.state_moved or corrected) and standing.last_trained > 0
    due = training_due(training.done, standing.last_trained, rules.first, rules.growth, final=final)
    if due or follow:
        actions.append(Train())
    elif final and not tears.planned and not wanted and not standing.following:
        actions.append(Finish())
    return actions
