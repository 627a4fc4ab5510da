"""A small screenhouse that no site file can change, and controls that stop on count."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from edge_agent.contracts.site import Site

SCREEN = {"linear": 6.0, "constant": 3.6}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small grids gain nothing from more, and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def site() -> Site:
    """A house of 42 m x 30 m x 5 m; its west wall is three panels, the middle one 10 m wide."""
    walls = [
        ("west_south", "x0", (0, 0), (10, 5)),
        ("west_middle", "x0", (10, 0), (20, 5)),
        ("west_north", "x0", (20, 0), (30, 5)),
        ("east", "x1", (0, 0), (30, 5)),
        ("south", "y0", (0, 0), (42, 5)),
        ("north", "y1", (0, 0), (42, 5)),
        ("roof", "roof", (0, 0), (42, 30)),
    ]
    return Site.model_validate(
        {
            "name": "small",
            "title": "Small house",
            "footprint": {"length_x": 42, "length_y": 30, "height": 5, "x_axis_bearing": 90},
            "terrain": {"roughness_length": 0.05, "reference_height": 10},
            "mast": {"sensor": "mast", "speed_height": 40, "direction_height": 38},
            "output_grid": {"cells": (8, 6, 4)},
            "panels": [
                {"name": n, "face": f, "start": a, "end": b, "screen": SCREEN}
                for n, f, a, b in walls
            ],
            "canopy": [
                {"start": (6, y), "end": (36, y + 4), "height": 3, "drag_area_density": 0.3}
                for y in (5, 13, 21)
            ],
        }
    )


@pytest.fixture(scope="session")
def fidelity() -> Fidelity:
    return Fidelity(cells=(14, 12, 6), tolerance=2e-3)


@pytest.fixture(scope="session")
def resources() -> Resources:
    return Resources(threads=1, batch=3)


@pytest.fixture(scope="session")
def cases(site: Site, fidelity: Fidelity) -> list[Case]:
    """Three winds that end after different numbers of steps."""
    winds = [(5.0, 270.0), (1.0, 310.0), (8.0, 190.0)]
    return [Case(site, Scenario(wind_speed=s, wind_from_direction=d), fidelity) for s, d in winds]


@dataclass
class StopAfter:
    """Asks to stop after a number of questions, which come once per step."""

    steps: int
    asked: int = field(default=0)

    def remaining(self) -> float:
        return float("inf")

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.asked > self.steps


@pytest.fixture
def stop_after() -> type[StopAfter]:
    return StopAfter


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"
