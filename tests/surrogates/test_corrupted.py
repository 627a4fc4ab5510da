"""Training data corrupted on purpose: refused through train, validate and gate, each by name.

Flows are the embedded solver's, so that what is told apart here is told apart there.
"""

import dataclasses
import math
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from netCDF4 import Dataset

from apps.consistency import suspicions
from apps.datasets import RunInfo, load_simulations, simulation_path, write_simulation
from apps.errors import DatasetError, PublishError
from apps.publish import PublishTask, publish
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from apps.simulators.registry import make as simulator
from apps.train import TrainTask, train
from apps.validate import ValidateTask, validate

FIDELITY = Fidelity(cells=(28, 18, 8))
SIZES = {"training": 14, "selection": 12, "calibration": 6, "evaluation": 6}


class Unlimited:
    def remaining(self):
        return math.inf

    def stop_requested(self):
        return False


@dataclasses.dataclass
class House:
    site: object
    store: Path
    sets: dict

    def set(self, name):
        return load_simulations(self.store, self.sets[name], self.site)


@pytest.fixture(scope="module")
def house(tmp_path_factory, site) -> House:
    store = tmp_path_factory.mktemp("house")
    sets = {
        name: simulated(site, store, n, 100 * k, FIDELITY)
        for k, (name, n) in enumerate(SIZES.items())
    }
    return House(site, store, sets)


def simulated(site, store, n, first, fidelity):
    i = np.arange(n) + first
    speeds = 0.6 + 12 * ((i * 0.7548776662 + 0.1) % 1)
    directions = 360 * ((i * 0.5698402910 + 0.3) % 1)
    cases = [
        Case(site, Scenario(wind_speed=s, wind_from_direction=d), fidelity)
        for s, d in zip(speeds.tolist(), directions.tolist(), strict=True)
    ]
    done = simulator("embedded", store).run(cases, Resources(batch=n), None, Unlimited())
    return tuple(sorted(one.digest for one in done))


def swapped(data):
    return dataclasses.replace(data, wind=data.wind[:, [1, 0, 2]])


def in_kilometres_per_hour(data):
    return dataclasses.replace(data, wind=data.wind * np.float32(3.6))


def of_a_lower_grid(data):
    """Cell k holds what is at four fifths of its height."""
    n = data.wind.shape[2]
    at = np.clip((np.arange(n) + 0.5) * 0.8 - 0.5, 0, n - 1)
    low, share = np.floor(at).astype(int), (at % 1)[:, None, None].astype(np.float32)
    high = np.minimum(low + 1, n - 1)
    wind = (1 - share) * data.wind[:, :, low] + share * data.wind[:, :, high]
    return dataclasses.replace(data, wind=wind)


def upside_down(data):
    return dataclasses.replace(data, wind=np.flip(data.wind, 2).copy())


CORRUPTED = {
    "the x and y components of the wind are exchanged": swapped,
    r"other units \(km/h\?\)": in_kilometres_per_hour,
    "profile along z is .* of another grid": of_a_lower_grid,
    "reversed along z, of another grid": upside_down,
}


def through_the_line(house, data, root):
    """Train on `data`, validate, publish."""
    shutil.copytree(house.store, root / "simulations")
    info = RunInfo("embedded", "0", True, 0.0, 1, 0.0, 0.1, 0.1, {})
    for i, digest in enumerate(data.digests):
        scenario = Scenario(
            wind_speed=data.wind_speed[i], wind_from_direction=data.wind_from_direction[i]
        )
        case = Case(house.site, scenario, FIDELITY)
        simulation_path(root / "simulations", digest).unlink()
        write_simulation(root / "simulations", digest, case, Resources(), data.wind[i], None, info)
    trained = train(
        TrainTask(
            site=house.site,
            digests=data.digests,
            store=str(root / "simulations"),
            candidates=str(root / "candidates"),
        )
    )
    frozen = {name: house.sets[name] for name in ("selection", "calibration", "evaluation")}
    return trained, validate(
        ValidateTask(
            site=house.site,
            candidate=trained.folder,
            store=str(root / "simulations"),
            frozen_sets=frozen,
            fidelity=str(FIDELITY),
        )
    ).verdict


@pytest.mark.parametrize("reason", CORRUPTED)
def test_corrupted_data_are_refused_with_their_reason(house, tmp_path, reason):
    data = CORRUPTED[reason](house.set("training"))
    trained, verdict = through_the_line(house, data, tmp_path)
    assert not verdict.accepted
    assert any(re.search(reason, r) for r in verdict.reasons), verdict.reasons
    task = PublishTask(
        site=house.site,
        version=1,
        candidate=trained.folder,
        repository=str(tmp_path / "repository"),
        keys=str(tmp_path / "keys"),
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(PublishError, match="refused by the gate"):
        publish(task)


def test_sound_data_are_not_suspected(house, tmp_path):
    _, verdict = through_the_line(house, house.set("training"), tmp_path)
    assert verdict.accepted, verdict.reasons
    training, selection = house.set("training"), house.set("selection")
    few = dataclasses.replace(
        training,
        digests=training.digests[:8],
        wind_speed=training.wind_speed[:8],
        wind_from_direction=training.wind_from_direction[:8],
        wind=training.wind[:8],
    )
    assert suspicions(house.site, few, selection) == ()
    dusty = dataclasses.replace(training, wind=training.wind * np.float32(0.8))
    assert suspicions(house.site, dusty, selection) == (), "dust is no fault"


def test_frozen_sets_of_a_finer_grid_hide_no_coarse_fault(house, site, tmp_path):
    digests = simulated(site, tmp_path, SIZES["selection"], 100, Fidelity(cells=(44, 28, 12)))
    fine = load_simulations(tmp_path, digests, site)
    training = house.set("training")
    assert suspicions(site, training, fine, same_solver=False) == ()
    # Which units, a coarse grid's own error may hide.
    for corrupt, named in ((swapped, "are exchanged"), (in_kilometres_per_hour, "other units")):
        doubts = suspicions(site, corrupt(training), fine, same_solver=False)
        assert named in " ".join(doubts), doubts


def test_directions_the_other_way_and_fields_of_something_else_are_named(house, site):
    training, selection = house.set("training"), house.set("selection")
    turned = dataclasses.replace(
        training, wind_from_direction=(training.wind_from_direction + 180) % 360
    )
    assert "blows to" in suspicions(site, turned, selection)[0]
    other = np.random.default_rng(0).normal(size=training.wind.shape).astype(np.float32)
    assert suspicions(site, dataclasses.replace(training, wind=other), selection)


def test_files_that_say_other_units_or_cells_are_not_read(house, site, tmp_path):
    digest = house.sets["training"][0]
    for change, message in (
        (lambda f: f["x_wind"].setncattr("units", "km h-1"), "wind in km h-1, m s-1, not m s-1"),
        (lambda f: f["z"].__setitem__(slice(None), f["z"][:] * 0.8), "cells along z are not"),
    ):
        path = simulation_path(tmp_path, digest)
        shutil.copy(simulation_path(house.store, digest), path)
        with Dataset(path, "a") as file:
            change(file)
        with pytest.raises(DatasetError, match=message):
            load_simulations(tmp_path, [digest], site)
