"""Which scenarios next, and when to train: pure functions.

Scenarios come from two streams, until there is a surrogate whose members can disagree
(`workflows.acquisition`). *Cover*: a scrambled Sobol sequence over the range of winds, so
that no corner stays unknown. *Weather*: winds that the site saw lately, jittered, because that is
where the next questions come from. A stream's n-th element depends on the seed and n alone (and,
for weather, on the readings), so a resumed campaign goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from apps.scenarios import Scenario
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.observation import Reading
from edge_agent.contracts.site_state import SiteState
from workflows.variety import Variety

#: Screens as in the site file.
PLAIN, AS_BUILT = Variety(), SiteState()
#: Jitter of a past wind: log-normal in speed, normal in direction (degrees). About the change of
#: the ten-minute mean wind within an hour in the mast record.
SPEED_JITTER = 0.15
DIRECTION_JITTER = 12.0


def cover(
    stream: str,
    start: int,
    count: int,
    seed: int,
    wind_speed: tuple[float, float],
    variety: Variety = PLAIN,
) -> list[Scenario]:
    """Return elements ``start`` to ``start + count`` of a low-discrepancy cover.

    Parameters
    ----------
    stream : str
        Name of the stream; each has a scrambling of its own, so streams are disjoint.
    start, count : int
    seed : int
    wind_speed : (float, float), m/s
        Range of speeds.
    variety : Variety
        What differs beside the wind.

    Returns
    -------
    list of Scenario
        Uniform in direction and in the square root of speed: denser where light winds make the
        screens' loss change fastest.
    """
    from scipy.stats import qmc

    sampler = qmc.Sobol(
        2 + variety.dimensions, seed=np.random.default_rng([seed, *stream.encode()])
    )
    if start:  # zero overflows in scipy
        sampler.fast_forward(start)
    low, high = np.sqrt(wind_speed)
    # One at a time: Sobol warns of block sizes that are no power of two.
    points = [sampler.random(1)[0].tolist() for _ in range(count)]
    return [
        _scenario((low + (high - low) * s) ** 2, 360.0 * d, wind_speed, variety.state(state))
        for s, d, *state in points
    ]


def from_weather(
    winds: np.ndarray,
    sequence: int,
    seed: int,
    wind_speed: tuple[float, float],
    variety: Variety = PLAIN,
    state: SiteState = AS_BUILT,
) -> Scenario:
    """Return a scenario near a wind that the site saw.

    Parameters
    ----------
    winds : (n, 2) array
        Speed at the reference height (m/s) and direction (degrees) of recent readings; n >= 1.
    sequence : int
        Number in the stream.
    seed : int
    wind_speed : (float, float), m/s
        Range that the result is clipped to.
    variety : Variety
    state : SiteState
        Of the house now: what differs beside the wind is near it.
    """
    rng = np.random.default_rng([seed, sequence])
    speed, direction = winds[rng.integers(len(winds))]
    return _scenario(
        float(speed) * float(np.exp(SPEED_JITTER * rng.standard_normal())),
        float(direction) + DIRECTION_JITTER * float(rng.standard_normal()),
        wind_speed,
        variety.near(state, rng),
    )


def next_scenarios(
    start: int,
    count: int,
    seed: int,
    wind_speed: tuple[float, float],
    winds: np.ndarray,
    explore: float,
    variety: Variety = PLAIN,
    state: SiteState = AS_BUILT,
) -> list[Scenario]:
    """Return the training scenarios ``start`` to ``start + count``.

    Parameters
    ----------
    start, count : int
        Numbers in the training stream.
    seed : int
    wind_speed : (float, float), m/s
    winds : (n, 2) array
        Recent winds as in `from_weather`; with none, all come from the cover.
    explore : float
        Share of the cover, 0 to 1.
    variety, state
        As in `from_weather`.
    """
    scenarios = []
    for number in range(start, start + count):
        if len(winds) == 0 or _is_cover(number, explore):
            scenarios += cover("training", number, 1, seed, wind_speed, variety)
        else:
            scenarios.append(from_weather(winds, number, seed, wind_speed, variety, state))
    return scenarios


class Weather(NamedTuple):
    """Winds that the site saw lately."""

    winds: np.ndarray
    """(n, 2): speed at the reference height (m/s), direction (degrees), oldest first."""
    age_hours: np.ndarray
    """(n,): before the newest reading, h."""
    newest: str | None
    """Data time of the newest reading; none without any."""


NO_WEATHER = Weather(np.empty((0, 2)), np.empty(0), None)


def recent_winds(readings: Sequence[Reading], feature_map: MastLogLaw, hours: float) -> Weather:
    """Return the winds of the last hours of a record.

    Parameters
    ----------
    readings : sequence of Reading
        Of the mast, in order of time.
    feature_map : MastLogLaw
    hours : float
        Age of the oldest, in data time before the newest.

    Returns
    -------
    Weather
        Of every instant that has all quantities.
    """
    if not readings:
        return NO_WEATHER
    newest = readings[-1].time
    end = datetime.fromisoformat(newest)
    since = end - timedelta(hours=hours)
    instants: dict[str, dict[str, float]] = {}
    for reading in readings:
        if datetime.fromisoformat(reading.time) >= since:
            instants.setdefault(reading.time, {})[reading.quantity] = reading.value
    needed = {source.quantity for source in feature_map.sources}
    whole = {time: values for time, values in instants.items() if needed <= values.keys()}
    winds = [
        feature_map.from_readings({quantity: [values[quantity]] for quantity in needed})
        for values in whole.values()
    ]
    ages = [(end - datetime.fromisoformat(time)).total_seconds() / 3600.0 for time in whole]
    return Weather(np.array(winds, dtype=float).reshape(-1, 2), np.array(ages), newest)


def training_due(done: int, last: int, first: int, growth: float, *, final: bool) -> bool:
    """Return whether to train now.

    Parameters
    ----------
    done : int
        Training simulations that exist.
    last : int
        How many the latest training used; 0 if there was none.
    first : int
        How many the first training needs.
    growth : float
        Factor by which they must have grown since.
    final : bool
        Whether no further simulation will come: then anything new is trained on.
    """
    if done < first:
        return False
    if last == 0:
        return True
    return done > last if final else done >= growth * last


def _is_cover(number: int, explore: float) -> bool:
    # Spread the cover evenly: the n-th is one when the running total of shares passes an integer.
    return int((number + 1) * explore) > int(number * explore)


def _scenario(
    speed: float, direction: float, wind_speed: tuple[float, float], state: Mapping[str, Any]
) -> Scenario:
    # Rounded to what an anemometer resolves, so that a scenario has one spelling.
    return Scenario(
        wind_speed=round(min(max(speed, wind_speed[0]), wind_speed[1]), 3),
        wind_from_direction=round(direction % 360.0, 2) % 360.0,
        **state,
    )
