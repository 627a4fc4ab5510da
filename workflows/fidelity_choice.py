"""How many runs of the dear simulator are worth their cost: a pure function.

The error of a corrected surrogate has two parts: what the surrogate has not learnt of the cheap
runs, and what the correction has not learnt of the dear ones. Both fall about as one over the
number of runs behind them. Time is spent best where a second takes most off the sum of their
squares: where e^2 / (n c) is the same for both, n runs of c seconds each (as in the allocation of
multi-fidelity Monte Carlo, Peherstorfer, Willcox and Gunzburger 2016, SIAM J. Sci. Comput.
38:A3163).
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: Pairs that the first correction is learnt from: fewer have no error that could be left out.
FIRST = 3
#: Between two trainings pairs grow by this factor at most: their worth is only an estimate, and
#: each release tells more of it.
GROWTH = 1.2


class Level(NamedTuple):
    """What is known of one part."""

    error: float | None
    """On runs that were left out, relative L2; none if it is not known."""
    runs: int
    """Runs behind it."""
    seconds: float | None
    """Of one run, s; none if it is not known."""


def pairs_wanted(cheap: Level, dear: Level, most: int) -> int:
    """Return how many pairs of runs there should be now.

    Parameters
    ----------
    cheap : Level
        Of the surrogate.
    dear : Level
        Of the correction; its runs are the pairs that there are.
    most : int
        Never more than so many.
    """
    if cheap.error is None or cheap.seconds is None or cheap.runs == 0:
        return min(dear.runs, most)  # nothing is trained yet
    if dear.error is None or dear.seconds is None or dear.runs == 0:
        return min(max(dear.runs, FIRST), most)
    ours = cheap.error**2 / (cheap.runs * cheap.seconds)
    theirs = dear.error**2 / (dear.runs * dear.seconds)
    if theirs <= ours:
        return min(dear.runs, most)
    # With an error that falls as 1 / n, e^2 / n falls as n^-3.
    even = float(dear.runs * (theirs / max(ours, 1e-30)) ** (1 / 3))
    return min(math.ceil(min(even, GROWTH * dear.runs)), most)
