"""The work that is left, as the planner of blocks wants to know it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from workflows.backfill.planner import Backlog, RunTime
from workflows.config import Campaign
from workflows.decisions import Tally, sizes
from workflows.ledger import CandidateRow, Role

#: Run time of a simulation task and of a training before any was measured, s.
GUESS_SECONDS = 20.0
GUESS_TRAINING_SECONDS = 10.0


def work_left(
    campaign: Campaign,
    tallies: Mapping[Role, Tally],
    seconds: Sequence[float],
    *,
    out_of_time: bool,
    training: float,
) -> Backlog:
    """Return the work that is left, that in flight included.

    Parameters
    ----------
    campaign : Campaign
    tallies : mapping of role to Tally
    seconds : sequence of float
        Measured run times of simulation tasks, s; may be empty.
    out_of_time : bool
        Whether no more training simulations are planned.
    training : float
        What a training, validation or publication that waits or runs will take, s; 0 without one.
    """
    cases = sum(tally.planned for tally in tallies.values())
    for role, size in sizes(campaign).items():
        cases += max(0, size - tallies[role].done - tallies[role].planned)
    if not out_of_time:
        known = tallies["training"]
        ended = known.done + known.failed + known.planned
        cases += max(0, campaign.budget.simulations - ended)
    measured = list(seconds) or [GUESS_SECONDS]
    return Backlog(
        tasks=math.ceil(cases / campaign.resources.batch),
        run_times=(
            RunTime(
                campaign.resources.threads,
                max(0.1, statistics.mean(measured)),
                statistics.pstdev(measured),
            ),
        ),
        training_seconds=training,
    )


def training_estimate(candidates: Sequence[CandidateRow]) -> float:
    """Return what the next training is expected to take, s.

    Twice the last one: it has more runs, and another node perhaps.
    """
    known = [c.result["train_seconds"] for c in candidates if "train_seconds" in c.result]
    return 2 * float(known[-1]) + 1 if known else GUESS_TRAINING_SECONDS
