"""Confidence intervals on a record that is autocorrelated: the moving-block bootstrap.

Blocks of several days are drawn with replacement (Kunsch 1989, Annals of Statistics 17:1217), wound
round the record's end so that every instant counts alike (circular: Politis and Romano 1992). The
same blocks are drawn for everything that is compared, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

BLOCK_HOURS = 72.0
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """Errors over the same instants."""

    rmse: dict[str, Interval]
    """Of each, m/s."""
    against: dict[str, Interval]
    """Of each less the reference's, m/s."""
    reference: str


def drawn(n: int, block: int, draws: int, seed: int) -> np.ndarray:
    """Return (draws, n) indices made of blocks."""
    rng = np.random.default_rng(seed)
    count = -(-n // block)
    starts = rng.integers(0, n, (draws, count))
    index = (starts[:, :, None] + np.arange(block)) % n
    return index.reshape(draws, -1)[:, :n]


def compare(
    errors: Mapping[str, np.ndarray],
    reference: str,
    step_hours: float,
    *,
    block_hours: float = BLOCK_HOURS,
    draws: int = DRAWS,
    seed: int = 1,
) -> Comparison:
    """Return root mean square errors and paired differences.

    Parameters
    ----------
    errors : mapping from name to (n,) array
        Mean square error at each instant, (m/s)^2.
    reference : str
        Name of what the others are compared with.
    step_hours : float
        Between instants.
    block_hours, draws, seed
        Of the bootstrap.
    """
    names = list(errors)
    table = np.stack([errors[name] for name in names])
    index = drawn(table.shape[1], max(1, round(block_hours / step_hours)), draws, seed)
    value = np.sqrt(table.mean(axis=1))
    resampled = np.sqrt(table[:, index].mean(axis=2))
    base = names.index(reference)

    def intervals(values: np.ndarray, samples: np.ndarray) -> dict[str, Interval]:
        ends = np.quantile(samples, [0.025, 0.975], axis=1)
        return {
            name: Interval(float(v), float(low), float(high))
            for name, v, low, high in zip(names, values, *ends, strict=True)
        }

    return Comparison(
        rmse=intervals(value, resampled),
        against=intervals(value - value[base], resampled - resampled[base]),
        reference=reference,
    )
