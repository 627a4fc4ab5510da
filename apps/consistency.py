"""Whether training data are of the same flow as the selection set: what corruption looks like.

A surrogate cannot be better than its data, and data that were written with the wrong axes, units or
grid look like any other. So the selection set's winds are guessed from the nearest training runs,
mirror images included, as they are and as they would be with a fault undone. A fault that explains
the selection set much better than the data as they are is named. Pure; reads no evaluation set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from apps.baselines import nearest_simulation
from apps.simulation_set import SimulationSet, joined
from apps.surrogates.symmetry import Mirror, mirror_field, mirror_scenarios, symmetries
from edge_agent.contracts.site import Site

#: A fault undone must leave this share of the error to be believed.
CLEARLY = 0.6
#: Winds this many times too strong or too weak are in other units; dust and discrepancies are not.
SCALE = 1.5
#: A profile of the wind along an axis may differ this much, relative L2, and this many times the
#: chance variation over the selection set. With 8 to 128 sound runs of the embedded solver it was
#: 0.018 and 1.5 at most; of a grid that ends at four fifths of the house's height 0.047 and 4.2.
PROFILE, CHANCE = 0.025, 3.0
#: The first where a dearer solver made the selection set: profiles of the embedded one on 28 x 18 x
#: 14 and on 80 x 52 x 40 cells differ by up to 0.046.
OTHER_SOLVER = 0.1
#: Of units that winds are given in, in m/s.
_UNITS = {"km/h": 3.6, "knots": 1.943844, "mph": 2.236936, "ft/s": 3.28084, "cm/s": 100.0}
_AXES = {"z": 1, "y": 2, "x": 3}


def suspicions(
    site: Site, training: SimulationSet, selection: SimulationSet, *, same_solver: bool = True
) -> tuple[str, ...]:
    """Return what seems wrong with the training data, empty if nothing does.

    Parameters
    ----------
    site : Site
    training, selection : SimulationSet
        Of the site, on the same output grid.
    same_solver : bool
        Whether one solver, on one grid, made them: then finer faults can be told.
    """
    guesses = {name: _guess(site, undo(training), selection) for name, undo in _FAULTS.items()}
    truth = selection.wind.astype(float) / selection.wind_speed[:, None, None, None, None]
    scales = {name: _scale(truth, guess) for name, guess in guesses.items()}
    errors = {name: _error(truth, scales[name] * guess) for name, guess in guesses.items()}
    best = min(errors, key=errors.__getitem__)
    if errors[best] > CLEARLY * errors[""]:
        best = ""
    found = [best] if best else []
    if scales[best] == 0.0:
        return ("training data: the fields do not resemble the selection set's",)
    factor = 1.0 / scales[best]
    if not 1 / SCALE <= factor <= SCALE:
        found.append(_units(factor))
    if not found:
        limit = PROFILE if same_solver else OTHER_SOLVER
        found += _profiles(truth, scales[""] * guesses[""], limit)
    return tuple(found)


def _swapped(data: SimulationSet) -> SimulationSet:
    return replace(data, wind=data.wind[:, [1, 0, 2]])


def _turned(data: SimulationSet) -> SimulationSet:
    return replace(data, wind_from_direction=(data.wind_from_direction + 180.0) % 360.0)


def _reversed(axis: int) -> Callable[[SimulationSet], SimulationSet]:
    return lambda data: replace(data, wind=np.flip(data.wind, axis + 1))


_FAULTS: dict[str, Callable[[SimulationSet], SimulationSet]] = {
    "": lambda data: data,
    "training data: the x and y components of the wind are exchanged": _swapped,
    "training data: wind directions are where it blows to, not where it comes from": _turned,
    **{
        f"training data: fields are reversed along {name}, of another grid": _reversed(axis)
        for name, axis in _AXES.items()
    },
}


def _guess(site: Site, training: SimulationSet, selection: SimulationSet) -> np.ndarray:
    """Return winds of the selection set over their speed, by the nearest runs or mirror images."""
    images = joined([_image(site, training, mirror) for mirror in symmetries(site)])
    found = nearest_simulation(images, selection.inputs)
    return np.asarray(found / selection.wind_speed[:, None, None, None, None])


def _image(site: Site, data: SimulationSet, mirror: Mirror) -> SimulationSet:
    seen = mirror_scenarios(data.inputs, site, data.space, mirror)
    return replace(
        data,
        wind_from_direction=seen[:, 1],
        state=seen[:, 2:],
        wind=mirror_field(data.wind, mirror),
    )


def _scale(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return the least-squares factor from guess to truth, not below nought."""
    return max(0.0, float((truth * guess).sum() / max((guess**2).sum(), 1e-30)))


def _error(truth: np.ndarray, guess: np.ndarray) -> float:
    return float(np.sqrt(((truth - guess) ** 2).sum() / (truth**2).sum()))


def _units(factor: float) -> str:
    near = min(_UNITS, key=lambda u: abs(np.log(factor / _UNITS[u])))
    text = f"training data: winds are {factor:.3g} times the selection set's, other units"
    return text + (f" ({near}?)" if abs(np.log(factor / _UNITS[near])) < 0.1 else "")


def _profiles(truth: np.ndarray, guess: np.ndarray, limit: float) -> list[str]:
    found = []
    for name, axis in _AXES.items():
        wrong, chance = profile_error(truth, guess, axis)
        if wrong > max(limit, CHANCE * chance):
            found.append(
                f"training data: the wind's profile along {name} is {wrong:.0%} off the selection "
                "set's, of another grid"
            )
    return found


def profile_error(truth: np.ndarray, guess: np.ndarray, axis: int) -> tuple[float, float]:
    """Return how far mean profiles of wind speed are apart, and their chance variation.

    Parameters
    ----------
    truth, guess : (n, 3, nz, ny, nx) float64
    axis : int
        1 to 3 for z, y, x.

    Returns
    -------
    error, chance : float
        Relative L2, and its standard error over the n scenarios.
    """
    others = tuple(a for a in (1, 2, 3) if a != axis)
    profiles = [np.linalg.norm(f, axis=1).mean(axis=others) for f in (truth, guess)]
    wanted, got = (p / np.maximum(p.mean(axis=1, keepdims=True), 1e-30) for p in profiles)
    apart, size = got - wanted, np.linalg.norm(wanted.mean(axis=0))
    chance = apart.std(axis=0, ddof=1) / np.sqrt(len(apart))
    return float(np.linalg.norm(apart.mean(axis=0)) / size), float(np.linalg.norm(chance) / size)
