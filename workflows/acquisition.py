"""Which points to simulate next, out of many: pure functions.

A run is worth what it takes off the error that the site will see: how much the surrogate's members
disagree there ("query by committee", Seung et al. 1992, COLT:287), times how often the site sees
such weather, over what the run costs. Members agree on what none of them has seen, so the distance
to the nearest run counts too: by disagreement alone the error stopped falling at 64 runs
(docs/steering.md). Points chosen together must not tell the same
thing twice, so each choice takes away from its neighbours what it will tell, as does every run that
the surrogate has not learnt from yet. Distances are those of `apps.surrogates.places`: a scenario
and its mirror image are one point.
"""

from __future__ import annotations

import numpy as np

from apps.space import LOSS_FACTOR, WIDE, Space
from edge_agent.contracts.site_state import SiteState
from workflows.variety import SPREAD

#: Neighbours that share what a run tells lie within so much of the mean spacing of the runs.
REACH = 0.7
#: While a tear is known, how much a house without it, or with another, counts.
ELSEWHERE = 0.2
#: Kernel of the weather's density: log of the speed, and degrees. About an hour's change of the
#: ten-minute mean wind in the mast record.
SPEED_WIDTH, DIRECTION_WIDTH = 0.25, 15.0


def weather_frequency(
    points: np.ndarray, winds: np.ndarray, age_hours: np.ndarray, persistence_hours: float
) -> np.ndarray:
    """Return how often the site sees such weather soon, relative to the points' mean.

    Today's wind is the best forecast of the next hours', and says little of next week's: a past
    wind counts as exp(-age / persistence), and all of them together as much again as the site's
    habits.

    Parameters
    ----------
    points : (n, 2) array
        Wind speed (m/s) and direction (degrees).
    winds : (m, 2) array
        What the site saw; with none, every weather is as frequent as any.
    age_hours : (m,) array, h
    persistence_hours : float, h

    Returns
    -------
    (n,) array
        Mean one.
    """
    if len(winds) == 0:
        return np.ones(len(points))
    fresh = np.exp(-np.asarray(age_hours) / persistence_hours)
    weight = fresh / max(fresh.sum(), 1e-12) + 1.0 / len(winds)
    logs = np.log(np.maximum(points[:, None, 0], 1e-3) / np.maximum(winds[None, :, 0], 1e-3))
    turn = (points[:, None, 1] - winds[None, :, 1] + 180.0) % 360.0 - 180.0
    kernel = np.exp(-0.5 * ((logs / SPEED_WIDTH) ** 2 + (turn / DIRECTION_WIDTH) ** 2))
    density = kernel @ weight
    mean = float(density.mean())
    return np.asarray(density / mean) if mean > 0 else np.ones(len(points))


def state_frequency(states: np.ndarray, space: Space, now: SiteState) -> np.ndarray:
    """Return how likely the house is in such a state soon, relative to the points' mean.

    Parameters
    ----------
    states : (n, columns) array
        In the columns of `space`.
    space : Space
    now : SiteState
        The newest estimate.

    Returns
    -------
    (n,) array
        Mean one. A tear that nobody knows of is as likely as none that is known.
    """
    density = np.ones(len(states))
    for j, scalar in enumerate(space.scalars):
        if scalar.name != LOSS_FACTOR:
            continue
        away = scalar.scaled(states[:, j]) - np.log(now.screen_loss_factor)
        spread = np.hypot(SPREAD, now.log_error or 0.0)
        density *= np.exp(-0.5 * (away / spread) ** 2)
    if space.panels and now.tears and space.tells(now.tears):
        wanted = space.tear(now.tears)
        first = len(space.scalars)
        same = np.abs(states[:, first] - wanted[0]) < 0.5
        near = np.hypot(*(states[:, first + 1 : first + 3] - wanted[1:]).T) / WIDE
        density *= np.where(same, np.exp(-0.5 * near**2), ELSEWHERE)
    mean = float(density.mean())
    return np.asarray(density / mean) if mean > 0 else np.ones(len(states))


def worth(deviation: np.ndarray, frequency: np.ndarray, to_runs: np.ndarray) -> np.ndarray:
    """Return what a run at each point is worth, up to a factor.

    Parameters
    ----------
    deviation : (n,) array, m/s
        The surrogate's standard deviation.
    frequency : (n,) array
        Of the weather.
    to_runs : (n, k) array
        Distances to all runs, planned ones included; with none, one point is as far as another.

    Returns
    -------
    (n,) array
    """
    hole = to_runs.min(axis=1) ** 2 if to_runs.shape[1] else 1.0
    return np.asarray(deviation * frequency * hole)


def success(to_done: np.ndarray, to_failed: np.ndarray, reach: float) -> np.ndarray:
    """Return the chance that a run ends well: failures tell of their neighbourhood.

    Parameters
    ----------
    to_done, to_failed : (n, d), (n, f) array
        Distances to the runs that ended well and that failed.
    reach : float
        Within which a run tells of its neighbours.

    Returns
    -------
    (n,) array
        Between zero and one; one without failures.
    """
    done = np.exp(-0.5 * (to_done / reach) ** 2).sum(axis=1)
    failed = np.exp(-0.5 * (to_failed / reach) ** 2).sum(axis=1)
    return np.asarray((1.0 + done) / (1.0 + done + failed))


def relative_cost(to_done: np.ndarray, seconds: np.ndarray, reach: float) -> np.ndarray:
    """Return what a run at each point costs, as its neighbours did, over the mean run's cost.

    Parameters
    ----------
    to_done : (n, d) array
        Distances to the runs that ended well.
    seconds : (d,) array, s
        What they took; zero where that is not known.
    reach : float

    Returns
    -------
    (n,) array
        One where no run is near.
    """
    known = seconds > 0
    if not known.any():
        return np.ones(len(to_done))
    mean = float(seconds[known].mean())
    near = np.exp(-0.5 * (to_done[:, known] / reach) ** 2)
    return np.asarray((1.0 + near @ (seconds[known] / mean)) / (1.0 + near.sum(axis=1)))


def choose(
    worth: np.ndarray, between: np.ndarray, to_unlearnt: np.ndarray, count: int, reach: float
) -> list[int]:
    """Return points to simulate, best first.

    Parameters
    ----------
    worth : (n,) array
        Of each point by itself.
    between : (n, n) array
        Distances between the points.
    to_unlearnt : (n, k) array
        Distances to runs that the surrogate has not learnt from.
    count : int
        At most so many.
    reach : float
        Within which a run tells what its neighbours would.

    Returns
    -------
    list of int
    """
    left = worth * (1.0 - np.exp(-0.5 * (to_unlearnt / reach) ** 2)).prod(axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(worth))):
        best = int(np.argmax(left))
        chosen.append(best)
        left = left * (1.0 - np.exp(-0.5 * (between[best] / reach) ** 2))
        left[best] = -1.0
    return chosen


def spread_out(
    frequency: np.ndarray, between: np.ndarray, to_runs: np.ndarray, count: int, dimensions: int
) -> list[int]:
    """Return points to simulate before there is a surrogate: each far from all others.

    Farthest first (Gonzalez 1985, Theor. Comput. Sci. 38:293), within twice the best cover, and
    denser where the weather goes: spacing is density to the power of minus one over the dimensions.

    Parameters
    ----------
    frequency : (n,) array
        Of the weather.
    between : (n, n) array
        Distances between the points.
    to_runs : (n, k) array
        Distances to all runs, planned ones included.
    count : int
        At most so many.
    dimensions : int

    Returns
    -------
    list of int
        The most frequent point first, if there are no runs.
    """
    weight = frequency ** (1.0 / dimensions)
    near = to_runs.min(axis=1) if to_runs.shape[1] else np.full(len(weight), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(weight))):
        far = weight if np.isinf(near).all() else weight * near
        best = int(np.argmax(np.where(np.isin(np.arange(len(far)), chosen), -1.0, far)))
        chosen.append(best)
        near = np.minimum(near, between[best])
    return chosen


def reach_of(runs: int, dimensions: int = 2) -> float:
    """Return the reach of a run among so many in a space of so many dimensions."""
    return REACH / float(max(1, runs) ** (1.0 / dimensions))
