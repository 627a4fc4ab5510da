"""When has the weather changed so that other simulations are called for: a sequential test, pure.

Ten-minute winds are autocorrelated over hours, so every test that takes them as independent alarms
without end. Here means over blocks of hours are compared with the mean of the present regime, and
what is left over adds up (Page's cumulative sum, Biometrika 41:100, 1954) until it passes a
threshold. After an alarm a new regime begins with the winds of the last blocks. The threshold is
the one that gives a stated mean time between alarms on the site's own record, its days drawn again
in blocks (`tune`): weather that the site has seen in any week is no change.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from edge_agent.contracts.model import Contract

#: The wind as three series: how strong, and from where.
SERIES = ("strength", "from_east", "from_north")
#: Blocks that a new regime begins with.
FIRST_BLOCKS = 4
DAY_SECONDS = 86_400.0


class ChangeTest(Contract):
    """A tuned test."""

    block_hours: Annotated[float, Field(gt=0, le=24)] = 3.0
    """Length of a block; divides a day."""
    regime_days: Annotated[float, Field(gt=0)] = 3.0
    """Time constant of the regime's mean, days."""
    deviation: tuple[float, float, float]
    """Of the block means from their regime, by series: sqrt(m/s), and twice sqrt(m/s)."""
    slack: Annotated[float, Field(ge=0)] = 0.5
    """Half the shift to be found, in deviations."""
    threshold: Annotated[float, Field(gt=0)]
    """Of the cumulative sums, in deviations."""
    run_length_days: Annotated[float, Field(gt=0)]
    """Mean time between alarms that the threshold was chosen for, days."""


class Changes(NamedTuple):
    """What a test found in a record."""

    alarms: np.ndarray
    """(k,) int: blocks at whose end it alarmed."""
    statistic: np.ndarray
    """(blocks,): largest cumulative sum over the threshold at each block's end."""


def as_series(winds: np.ndarray) -> np.ndarray:
    """Return the three series of winds.

    Parameters
    ----------
    winds : (n, 2) array
        Wind speed (m/s) and direction it comes from (degrees).

    Returns
    -------
    (n, 3) array, sqrt(m/s)
        The square root of speed: as gusts grow with speed, its scatter is the same in calm and
        storm; and its parts from east and north.
    """
    strength = np.sqrt(np.maximum(winds[:, 0], 0.0))
    bearing = np.radians(winds[:, 1])
    return np.stack([strength, strength * np.sin(bearing), strength * np.cos(bearing)], axis=1)


def block_means(seconds: np.ndarray, series: np.ndarray, block_hours: float) -> np.ndarray:
    """Return means over blocks of time; blocks without a value take the last one's.

    Parameters
    ----------
    seconds : (n,) array, s, ascending
    series : (n, k) array
    block_hours : float, h

    Returns
    -------
    (blocks, k) array
        From the block of the first value to that of the last.
    """
    block = (np.asarray(seconds) // (block_hours * 3600.0)).astype(int)
    block -= block[0]
    count = np.bincount(block)
    sums = np.stack([np.bincount(block, column) for column in series.T], axis=1)
    means = sums / np.maximum(count, 1)[:, None]
    filled = np.maximum.accumulate(np.where(count > 0, np.arange(len(count)), 0))
    return np.asarray(means[filled])


def run(test: ChangeTest, means: np.ndarray) -> Changes:
    """Run a test over block means, (blocks, 3)."""
    if not len(means):
        return Changes(np.empty(0, int), np.empty(0))
    statistic, alarms = _paths(test, means[None])
    return Changes(np.flatnonzero(alarms[0]), statistic[0])


def _paths(test: ChangeTest, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return statistic over threshold and alarms, (replicates, blocks) each."""
    replicates, blocks, k = means.shape
    deviation = np.asarray(test.deviation)
    keep = float(np.exp(-test.block_hours / (24.0 * test.regime_days)))
    level = means[:, :FIRST_BLOCKS].mean(axis=1)
    age = np.zeros(replicates, int)
    sums = np.zeros((replicates, 2, k))
    statistic = np.zeros((replicates, blocks))
    alarms = np.zeros((replicates, blocks), bool)
    for block in range(blocks):
        now = means[:, block]
        score = (now - level) / deviation
        ready = (age >= FIRST_BLOCKS)[:, None, None]
        step = np.stack([score, -score], axis=1) - test.slack
        sums = np.where(ready, np.maximum(0.0, sums + step), 0.0)
        largest = sums.max(axis=(1, 2)) / test.threshold
        statistic[:, block] = largest
        alarm = alarms[:, block] = largest > 1.0
        age = np.where(alarm, 0, age + 1)
        sums[alarm] = 0.0
        # A young regime is the mean of what it has; an old one forgets.
        weight = np.maximum(1.0 - keep, 1.0 / np.maximum(age, 1))
        begun = means[:, max(0, block - FIRST_BLOCKS + 1) : block + 1].mean(axis=1)
        level = np.where(alarm[:, None], begun, level + weight[:, None] * (now - level))
    return statistic, alarms


def tune(
    means: np.ndarray,
    *,
    block_hours: float = 3.0,
    run_length_days: float = 7.0,
    slack: float = 0.5,
    together: int = 3,
    replicates: int = 200,
    seed: int = 0,
) -> ChangeTest:
    """Return the test with a stated mean time between alarms on a record.

    Parameters
    ----------
    means : (blocks, 3) array
        Of `block_means` over whole days.
    block_hours : float, h
        Divides a day.
    run_length_days : float, days
    slack : float
    together : int
        Days in a row that are drawn together: weather persists for about so long.
    replicates, seed : int
        Of the resampling.
    """
    drawn = resampled(means, block_hours, 4 * run_length_days, together, replicates, seed)
    rough = ChangeTest(
        block_hours=block_hours, deviation=(1.0, 1.0, 1.0), slack=slack,
        threshold=1e9, run_length_days=run_length_days,
    )  # fmt: skip
    deviation = _deviation(rough, means)
    low, high = 0.1, 200.0
    for _ in range(30):
        middle = (low * high) ** 0.5
        test = rough.model_copy(update={"deviation": deviation, "threshold": middle})
        if mean_time_between(test, drawn) >= run_length_days:
            high = middle
        else:
            low = middle
    return rough.model_copy(update={"deviation": deviation, "threshold": high})


def mean_time_between(test: ChangeTest, drawn: np.ndarray) -> float:
    """Return the mean time between alarms on resampled records (replicates, blocks, 3), days."""
    count = int(_paths(test, drawn)[1].sum())
    days = drawn.shape[0] * drawn.shape[1] * test.block_hours / 24.0
    return days / count if count else float("inf")


def resampled(
    means: np.ndarray, block_hours: float, days: float, together: int, replicates: int, seed: int
) -> np.ndarray:
    """Return records made of days drawn again, some in a row at a time.

    Returns
    -------
    (replicates, blocks, 3) array
    """
    per_day = round(24.0 / block_hours)
    daily = means[: len(means) // per_day * per_day].reshape(-1, per_day, means.shape[1])
    rng = np.random.default_rng(seed)
    draws = int(np.ceil(days / together))
    first = rng.integers(0, len(daily), (replicates, draws, 1))
    chosen = ((first + np.arange(together)) % len(daily)).reshape(replicates, -1)
    return np.asarray(daily[chosen].reshape(replicates, -1, means.shape[1]))


def _deviation(test: ChangeTest, means: np.ndarray) -> tuple[float, float, float]:
    keep = float(np.exp(-test.block_hours / (24.0 * test.regime_days)))
    level, left = means[0], []
    for now in means:
        left.append(now - level)
        level = level + (1 - keep) * (now - level)
    spread = np.std(left, axis=0)
    return tuple(float(max(s, 1e-6)) for s in spread)  # type: ignore[return-value]
