"""Campaigns summed up into the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workflows.backfill.replay.calendar import DAY
from workflows.backfill.replay.tasks import Account
from workflows.backfill.replay.validation import Agreement


@dataclass(frozen=True)
class Outcome:
    """One campaign."""

    policy: str
    strategy: str
    begin: float
    """s after the trace's start."""
    account: Account
    delays: tuple[float, ...]
    """Start with us - start without us, of every other job that waited or came meanwhile, s."""


@dataclass(frozen=True)
class Row:
    """One strategy under one scheduler, over all start dates."""

    policy: str
    strategy: str
    campaigns: int
    reached_model: int
    """Campaigns that published a model at all."""
    first_model_hours: float
    """Median over campaigns, h; inf where fewer than half had one."""
    first_model_worst_hours: float
    simulations_per_day: float
    core_hours_per_simulation: float
    lost_core_hours: float
    """Per campaign."""
    idle_share: float
    """Of the allocated core time."""
    blocks: int
    """Per campaign."""
    block_wait_p90_minutes: float
    """Of blocks that started."""
    others: int
    """Other people's jobs, over all campaigns."""
    delay_mean: float
    """s; a job that started sooner counts as negative."""
    delay_mean_error: float
    """Standard error of the mean over campaigns, s: jobs of one week are not independent."""
    delay_median: float
    """s, as the next two."""
    delay_p90: float
    delay_max: float
    delayed_share: float
    """Others that started more than a minute later."""


@dataclass(frozen=True)
class Result:
    """What the study found."""

    agreement: dict[str, Agreement]
    """By scheduler, calendar and way of replay."""
    rows: tuple[Row, ...]
    begins: tuple[float, ...]


def summarise(outcomes: Sequence[Outcome], length: float) -> Row:
    """Sum up campaigns of one strategy under one scheduler."""
    accounts = [o.account for o in outcomes]
    first = [math.inf if a.first_model is None else a.first_model / 3600 for a in accounts]
    delays = np.concatenate([np.asarray(o.delays) for o in outcomes])
    waits = np.concatenate([np.asarray(a.waited) for a in accounts])
    finished = sum(a.finished for a in accounts)
    allocated = sum(a.allocated for a in accounts)
    some = delays.size > 0
    return Row(
        policy=outcomes[0].policy,
        strategy=outcomes[0].strategy,
        campaigns=len(outcomes),
        reached_model=sum(math.isfinite(f) for f in first),
        first_model_hours=_middle(first),
        first_model_worst_hours=max(first),
        simulations_per_day=finished / len(outcomes) / (length / DAY),
        core_hours_per_simulation=allocated / 3600 / finished if finished else math.inf,
        lost_core_hours=sum(a.lost for a in accounts) / 3600 / len(outcomes),
        idle_share=sum(a.idle for a in accounts) / allocated if allocated else 0.0,
        blocks=round(sum(a.blocks for a in accounts) / len(outcomes)),
        block_wait_p90_minutes=float(np.percentile(waits, 90)) / 60 if waits.size else math.inf,
        others=int(delays.size),
        delay_mean=float(np.mean(delays)) if some else 0.0,
        delay_mean_error=_standard_error([float(np.mean(o.delays)) for o in outcomes if o.delays]),
        delay_median=float(np.median(delays)) if some else 0.0,
        delay_p90=float(np.percentile(delays, 90)) if some else 0.0,
        delay_max=float(np.max(delays)) if some else 0.0,
        delayed_share=float(np.mean(delays > 60)) if some else 0.0,
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return the result for a JSON file; what never came is null, as JSON knows no infinity."""
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()}
        for r in map(asdict, result.rows)
    ]
    return {
        "agreement": {name: asdict(found) for name, found in result.agreement.items()},
        "begins_s": list(result.begins),
        "rows": rows,
    }


def _standard_error(means: list[float]) -> float:
    return float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.inf


def _middle(values: list[float]) -> float:
    """Return the median; of an even number the upper one, so that inf means what it says."""
    return sorted(values)[len(values) // 2]
