"""Tunes the cumulative sum of one series on a healthy record: pure."""

from __future__ import annotations

import numpy as np

from edge_agent.contracts.monitors import SeriesCalibration
from edge_agent.monitors.runlength import cusum_paths, drawn_days, threshold_for
from edge_agent.monitors.tear import by_day


def block_means(
    instant: np.ndarray, values: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (block numbers since the epoch, means).

    Parameters
    ----------
    instant : (n,) int array, us since the Unix epoch
    values : (n,) array
    seconds : float, s
        Length of a block.
    """
    blocks, where = np.unique(instant // round(seconds * 1e6), return_inverse=True)
    return blocks, np.bincount(where, values) / np.bincount(where)


def tune(
    instant: np.ndarray,
    values: np.ndarray,
    *,
    block_seconds: float,
    slack: float = 0.5,
    run_length_days: float = 365.0,
    replicates: int = 300,
    seed: int = 0,
) -> SeriesCalibration:
    """Return the tuned cumulative sum.

    Parameters
    ----------
    instant : (n,) int array, us since the Unix epoch
    values : (n,) array
        In health.
    block_seconds : float, s
        Length of a block; divides a day.
    slack : float
        Half the shift to be found, in standard deviations of the block means.
    run_length_days : float, days
        Mean time to a false alarm.
    replicates, seed : int
        Of the resampling.
    """
    blocks, means = block_means(instant, values, block_seconds)
    mean, deviation = float(means.mean()), float(means.std()) or 1.0
    score = (means - mean) / deviation
    daily = by_day(blocks, np.stack([score - slack, -score - slack], axis=1), block_seconds)
    rng = np.random.default_rng(seed)
    chosen = drawn_days(len(daily), round(run_length_days), replicates, rng)
    statistic = cusum_paths(daily, chosen).max(axis=2)
    return SeriesCalibration(
        mean=mean,
        deviation=deviation,
        slack=slack,
        threshold=threshold_for(statistic, run_length_days, block_seconds / 86_400),
        block_seconds=block_seconds,
        run_length_days=run_length_days,
    )
