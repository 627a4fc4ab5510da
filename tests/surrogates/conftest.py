"""A synthetic flow with the traits of the real one, and a run folder made of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from apps.datasets import RunInfo, write_ensemble, write_simulation
from apps.publish import PublishTask, publish
from apps.repository import roots
from apps.repository.keys import new_passphrase
from apps.repository.store import FolderStore
from apps.scenarios import Scenario
from apps.simulation_set import SimulationSet
from apps.simulators.base import Case, Fidelity, Resources
from apps.space import Space, space_of
from apps.surrogates.base import by_name
from apps.surrogates.export import check_parity
from apps.surrogates.symmetry import (
    mirror_direction,
    mirror_field,
    mirror_scenarios,
    symmetries,
)
from apps.train import TrainTask, train
from apps.transport import Base, read_serving
from apps.validate import ValidateTask, validate
from edge_agent.contracts.features import InputVariable
from edge_agent.contracts.geometry import wind_vector
from edge_agent.contracts.site import Site
from workflows.config import ScenarioRange
from workflows.steering import cover
from workflows.variety import Variety

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ("selection", "calibration", "evaluation")


def pattern(site: Site, speed: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Smooth in direction, with a wake; slower the higher the screens' K = 6 / U + 3.6."""
    grid, box = site.grid(), site.footprint
    z, y, x = np.meshgrid(grid.z, grid.y, grid.x, indexing="ij")
    x, y, z = x / box.length_x - 0.5, y / box.length_y - 0.5, z / box.height
    u, v = (c[:, None, None, None] for c in wind_vector(1.0, direction, box.x_axis_bearing))
    through = (1 / (1 + (6 / (0.3 * speed) + 3.6) / 4))[:, None, None, None]
    along, across = x * u + y * v, y * u - x * v
    wake = np.exp(-3 * np.maximum(along + 0.5, 0)) * (1 + 0.3 * np.tanh(4 * across) * along)
    strength = through * wake * (z + 0.1) ** 0.3 * (1 + 0.2 * through * np.sin(4 * along))
    return np.stack([strength * u, strength * v, 0.1 * strength * np.sin(6 * along)], axis=1)


def flow(site: Site, speed: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The pattern made as symmetric as the site, in m/s."""
    group, bearing = symmetries(site), site.footprint.x_axis_bearing
    total = sum(
        mirror_field(pattern(site, speed, mirror_direction(direction, m, bearing)), m)
        for m in group
    )
    return (total / len(group) * speed[:, None, None, None, None]).astype(np.float32)


def simulations(site: Site, n: int, seed: int) -> SimulationSet:
    # Golden-ratio and plastic-number steps: an even cover for every n.
    i = np.arange(n) + 1000 * seed
    speed = 0.5 * 24 ** ((i * 0.7548776662 + 0.1) % 1)
    direction = 360 * ((i * 0.5698402910 + 0.3) % 1)
    digests = tuple(hashlib.sha256(f"{seed}/{k}".encode()).hexdigest() for k in i)
    return SimulationSet(digests, speed, direction, flow(site, speed, direction))


def in_state(site: Site, inputs: np.ndarray, space: Space) -> np.ndarray:
    """The flow in a house with denser screens (the first scalar) and a tear, in m/s.

    A tear lets a jet in that fades along and across the house; as symmetric as the site.
    """
    grid, box = site.grid(), site.footprint
    _, y, x = np.meshgrid(grid.z, grid.y, grid.x, indexing="ij")

    def one(rows: np.ndarray) -> np.ndarray:
        dense = rows[:, 2] if space.scalars else np.ones(len(rows))
        wind = pattern(site, rows[:, 0] / dense, rows[:, 1])
        if not space.panels:
            return wind
        panel, centre, width = rows[:, 2 + len(space.scalars) :].T
        for k, name in enumerate(space.panels):
            found = next(p for p in site.panels if p.name == name)
            along, into = (y, x) if found.face[0] == "x" else (x, y)
            length = box.length_x if found.face[0] == "x" else box.length_y
            depth = length - into if found.face[1] == "1" else into
            for i in np.flatnonzero(np.abs(panel - (k + 1)) < 0.5):
                near = np.exp(-(((along - centre[i]) / 20) ** 2) - depth / 30)
                axis = 0 if found.face[0] == "x" else 1
                inwards = -1.0 if found.face[1] == "1" else 1.0
                wind[i, axis] += 0.3 * inwards * width[i] / 40 * near
        return wind

    total = sum(
        mirror_field(one(mirror_scenarios(inputs, site, space, m)), m) for m in symmetries(site)
    )
    speed = inputs[:, 0, None, None, None, None]
    return (total / len(symmetries(site)) * speed).astype(np.float32)


def houses(site: Site, n: int, seed: int, *, tears: bool = False) -> SimulationSet:
    """Simulations of houses whose screens differ, and of which some are torn."""
    space = space_of(site, loss=True, tears=tears)
    ranges = ScenarioRange(
        wind_speed=(0.5, 12.0), screen_loss_factor=(0.5, 2.5), torn=0.5 if tears else 0.0
    )
    variety = Variety.of(ranges, site)
    scenarios = cover("houses", 1000 * seed, n, 5, ranges.wind_speed, variety)
    rows = [(s.wind_speed, s.wind_from_direction, *space.row(s)) for s in scenarios]
    inputs = np.array(rows, dtype=float)
    digests = tuple(hashlib.sha256(f"{seed}/{k}/{tears}".encode()).hexdigest() for k in range(n))
    wind = in_state(site, inputs, space)
    return SimulationSet(digests, inputs[:, 0], inputs[:, 1], wind, inputs[:, 2:], space)


@pytest.fixture(scope="session")
def site() -> Site:
    return Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")


@pytest.fixture(scope="session")
def small_site(site: Site) -> Site:
    return site.model_copy(
        update={"output_grid": site.output_grid.model_copy(update={"cells": (8, 6, 3)})}
    )


@pytest.fixture(scope="session")
def make(site: Site):
    def function(n: int, seed: int = 1, of: Site = site) -> SimulationSet:
        return simulations(of, n, seed)

    return function


@pytest.fixture(scope="session")
def make_houses(small_site):
    def function(n: int, seed: int = 1, *, tears: bool = False) -> SimulationSet:
        return houses(small_site, n, seed, tears=tears)

    return function


@pytest.fixture(scope="session")
def parity():
    """Check an export against the model that it was made of, over some speeds, m/s."""

    def check(model, exported: bytes, low: float = 0.5, high: float = 12.0) -> float:
        variables = (
            InputVariable(name="wind_speed", unit="m s-1", minimum=low, maximum=high),
            InputVariable(name="wind_from_direction", unit="degree", minimum=0, maximum=360),
        )
        return check_parity(by_name(model.predict), exported, variables)

    return check


@dataclass
class Run:
    """A run folder with two published releases."""

    root: Path
    site: Site
    tasks: dict[int, PublishTask]

    @property
    def repository(self) -> Path:
        return self.root / "repository"


def store_set(root: Path, site: Site, data: SimulationSet) -> tuple[str, ...]:
    info = RunInfo("embedded", "0", True, 0.0, 1, 0.0, 0.1, 0.1, {})
    for i, digest in enumerate(data.digests):
        scenario = Scenario(
            wind_speed=data.wind_speed[i], wind_from_direction=data.wind_from_direction[i]
        )
        case = Case(site, scenario, Fidelity())
        write_simulation(root / "simulations", digest, case, Resources(), data.wind[i], None, info)
    write_ensemble(root / "ensembles", data.digests)
    return data.digests


@pytest.fixture(scope="session")
def run(tmp_path_factory, small_site) -> Run:
    """Read-only: two releases, of 12 and of 30 training runs; the second has a delta."""
    root = tmp_path_factory.mktemp("run")
    training = store_set(root, small_site, simulations(small_site, 30, 1))
    sets = {
        name: store_set(root, small_site, simulations(small_site, 16, 2 + k))
        for k, name in enumerate(FROZEN)
    }
    roots.init(
        FolderStore(root / "repository"),
        root / "keys",
        [root / "root-keys"],
        passphrase=new_passphrase,
    )
    tasks, previous = {}, None
    for version, n in ((1, 12), (2, 30)):
        write_ensemble(root / "ensembles", training[:n])
        trained = train(
            TrainTask(
                site=small_site,
                digests=training[:n],
                store=str(root / "simulations"),
                candidates=str(root / "candidates"),
                previous=previous and Path(previous.folder).name,
                served=previous and read_serving(Path(previous.folder)).model_sha256,
                keep_basis=previous is not None,
            )
        )
        result = validate(
            ValidateTask(
                site=small_site,
                candidate=trained.folder,
                store=str(root / "simulations"),
                frozen_sets=sets,
                fidelity="synthetic",
                previous=previous,
            )
        )
        assert result.verdict.accepted, result.verdict
        tasks[version] = PublishTask(
            site=small_site,
            version=version,
            candidate=trained.folder,
            repository=str(root / "repository"),
            keys=str(root / "keys"),
            created=datetime(2026, 1, version, tzinfo=UTC),
        )
        publish(tasks[version])
        previous = Base(folder=trained.folder, version=version)
    return Run(root, small_site, tasks)
