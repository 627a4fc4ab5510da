"""Simulators by name; nothing heavy is imported until one is made."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import cast

from apps.errors import SimulationError
from apps.simulators.base import Simulator


@dataclass(frozen=True)
class Entry:
    """Where a simulator is, and the version that goes into every digest."""

    module: str
    factory: str
    version: str
    """Raised by hand when the numbers change; a golden test guards it."""


SIMULATORS = {
    "embedded": Entry("apps.simulators.embedded", "EmbeddedSimulator", version="2"),
    "openfoam": Entry("apps.simulators.openfoam", "OpenFOAMSimulator", version="1"),
}


def solver_version(name: str) -> str:
    """Return the declared version of a simulator.

    Raises
    ------
    SimulationError
        If there is no simulator of that name.
    """
    return _entry(name).version


def make(name: str, store: Path, *, native: bool = False) -> Simulator:
    """Return a simulator that writes into `store`.

    Parameters
    ----------
    name : str
    store : Path
        Folder of the results.
    native : bool
        Whether it writes the solver's own grid too.

    Raises
    ------
    SimulationError
        If there is no simulator of that name, or it does not write its own grid.
    """
    entry = _entry(name)
    factory = getattr(import_module(entry.module), entry.factory)
    if not native:
        return cast("Simulator", factory(store))
    if "native" not in signature(factory).parameters:
        msg = f"simulator {name} does not write its own grid"
        raise SimulationError(msg, simulator=name)
    return cast("Simulator", factory(store, native=True))


def _entry(name: str) -> Entry:
    try:
        return SIMULATORS[name]
    except KeyError:
        msg = f"no simulator {name!r}; known: {', '.join(SIMULATORS)}"
        raise SimulationError(msg, simulator=name) from None
