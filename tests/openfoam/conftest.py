"""A square screenhouse, OpenFOAM if it is installed, and a control that stops at an iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from apps.simulators.foam.environment import missing
from edge_agent.contracts.site import Site

#: Tests that need no OpenFOAM.
WITHOUT = {"test_files.py", "test_discrepancy.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs OpenFOAM where it is not installed; `.ci/run` installs it."""
    absent = missing(parallel=True)
    if not absent:
        return
    reason = f"OpenFOAM is not installed ({', '.join(absent)}): apt install openfoam"
    for item in items:
        here = Path(__file__).parent in item.path.parents
        if here and item.path.name not in WITHOUT:
            item.add_marker(pytest.mark.skip(reason=reason))


def square_house(linear: float, constant: float, canopy: bool = True, cells=(20, 20, 5)) -> Site:
    """The trial's house, 100 m x 100 m x 5 m, with one loss all over and one block of trees."""
    faces = {"west": "x0", "east": "x1", "south": "y0", "north": "y1", "roof": "roof"}
    block = {"start": (6, 6), "end": (94, 94), "height": 3, "drag_area_density": 0.3}
    return Site.model_validate(
        {
            "name": "square",
            "title": "Square house",
            "footprint": {"length_x": 100, "length_y": 100, "height": 5, "x_axis_bearing": 90},
            "terrain": {"roughness_length": 0.05, "reference_height": 10},
            "mast": {"sensor": "mast", "speed_height": 40, "direction_height": 38},
            "output_grid": {"cells": cells},
            "panels": [
                {
                    "name": name,
                    "face": face,
                    "start": (0, 0),
                    "end": (100, 100 if face == "roof" else 5),
                    "screen": {"linear": linear, "constant": constant},
                }
                for name, face in faces.items()
            ],
            "canopy": [block] if canopy else [],
        }
    )


@pytest.fixture(scope="session")
def house() -> Callable[..., Site]:
    return square_house


@pytest.fixture(scope="session")
def site() -> Site:
    return square_house(0.0, 3.0, cells=(10, 10, 5))


@pytest.fixture(scope="session")
def resources() -> Resources:
    return Resources(threads=1, batch=1)


@pytest.fixture(scope="session")
def case(site: Site) -> Case:
    """A few thousand cells: a second."""
    scenario = Scenario(wind_speed=5, wind_from_direction=240)
    return Case(site, scenario, Fidelity(simulator="openfoam", cells=(20, 20, 9)))


@dataclass
class StopAt:
    """Asks to stop once an iteration has been reported."""

    iteration: int
    seen: int = 0

    def report(self, _digest, monitor) -> None:
        self.seen = monitor.iteration

    def remaining(self) -> float:
        return float("inf")

    def stop_requested(self) -> bool:
        return self.seen >= self.iteration


@pytest.fixture
def stop_at() -> type[StopAt]:
    return StopAt


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"
