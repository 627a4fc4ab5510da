"""Thresholds from the run length to false alarm, by resampling blocks of days: pure.

A sequential test's false alarms are counted, not derived: paths are made of blocks of whole days
drawn with replacement from a healthy record, so that what hangs together within days stays
together.
"""

from __future__ import annotations

import numpy as np

#: Consecutive days that are drawn together: weather persists for about so long.
DAYS_TOGETHER = 3


def drawn_days(
    days: int, length: int, replicates: int, rng: np.random.Generator, together: int = DAYS_TOGETHER
) -> np.ndarray:
    """Return day numbers of resampled records.

    Parameters
    ----------
    days : int
        Of the record.
    length : int
        Of each resampled record, days.
    replicates : int
    rng : numpy Generator
    together : int
        Days in a row that are drawn together; past the end the record begins again.

    Returns
    -------
    (replicates, length) int array
    """
    blocks = -(-length // together)
    first = rng.integers(0, days, (replicates, blocks, 1))
    return ((first + np.arange(together)) % days).reshape(replicates, -1)[:, :length]


def cusum_paths(increments: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return cumulative sums along resampled days.

    Parameters
    ----------
    increments : (days, blocks, k) array
        What each of k sums grows by in each block of each day.
    chosen : (replicates, length) int array
        Days of each path.

    Returns
    -------
    (replicates, length * blocks, k) float32 array
        Sums, never below zero.
    """
    replicates, length = chosen.shape
    _, blocks, k = increments.shape
    paths = np.zeros((replicates, length * blocks, k), np.float32)
    state = np.zeros((replicates, k))
    for day in range(length):
        for block in range(blocks):
            state = np.maximum(0.0, state + increments[chosen[:, day], block])
            paths[:, day * blocks + block] = state
    return paths


def mean_run_length(statistic: np.ndarray, threshold: float, step_days: float) -> float:
    """Return the mean time to the first passage above a threshold, days.

    Parameters
    ----------
    statistic : (replicates, steps) array
    threshold : float
    step_days : float, days

    Returns
    -------
    float
        Time at risk over number of passages: paths without one count with their length, as they
        must where the time to an alarm is nearly exponential. Infinity without any.
    """
    above = statistic > threshold
    passed = above.any(axis=1)
    at_risk = np.where(passed, above.argmax(axis=1) + 1, statistic.shape[1]).sum() * step_days
    return float(at_risk / passed.sum()) if passed.any() else float("inf")


def threshold_for(statistic: np.ndarray, run_length: float, step_days: float) -> float:
    """Return the smallest threshold whose mean run length is at least `run_length` days."""
    low, high = 0.0, float(statistic.max()) + 1e-6
    for _ in range(50):
        middle = (low + high) / 2
        if mean_run_length(statistic, middle, step_days) >= run_length:
            high = middle
        else:
            low = middle
    return high


def alarms(increments: np.ndarray, chosen: np.ndarray, threshold: float) -> np.ndarray:
    """Return how many alarms each resampled record raises when sums begin again after each.

    Parameters
    ----------
    increments : (days, blocks, k) array
    chosen : (replicates, length) int array
    threshold : float

    Returns
    -------
    (replicates,) int array
    """
    state = np.zeros((len(chosen), increments.shape[2]))
    count = np.zeros(len(chosen), int)
    for day in range(chosen.shape[1]):
        for block in range(increments.shape[1]):
            state = np.maximum(0.0, state + increments[chosen[:, day], block])
            raised = (state > threshold).any(axis=1)
            count += raised
            state[raised] = 0.0
    return count
