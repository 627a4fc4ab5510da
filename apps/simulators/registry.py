"""Simulators by name; nothing heavy is imported until one is made."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
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
    "embedded": Entry("apps.simulators.embedded", "EmbeddedSimulator", version="1"),
}


def solver_version(name: str) -> str:
    """Return the declared version of a simulator.

    Raises
    ------
    SimulationError
        If there is no simulator of that name.
    """
    return _entry(name).version


def make(name: str, store: Path) -> Simulator:
    """Return a simulator that writes into `store`; raises as `solver_version` does."""
    entry = _entry(name)
    factory = getattr(import_module(entry.module), entry.factory)
    return cast("Simulator", factory(store))


def _entry(name: str) -> Entry:
    try:
        return SIMULATORS[name]
    except KeyError:
        msg = f"no simulator {name!r}; known: {', '.join(SIMULATORS)}"
        raise SimulationError(msg, simulator=name) from None
