"""How long to wait before trying again: pure, and never for ever."""

from __future__ import annotations


def pause(failures: int, first: float, longest: float, chance: float) -> float:
    """Return how long to wait after so many failures in a row, s.

    Parameters
    ----------
    failures : int
        At least 1.
    first, longest : float, s
    chance : float
        In [0, 1): spreads agents that lost the same network at the same time.
    """
    return float(min(longest, first * 2.0 ** min(failures - 1, 30)) * (0.5 + chance / 2))
