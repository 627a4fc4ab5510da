"""Files of simulations: what is read is what was written, or an error that says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import datasets
from apps.datasets import (
    Fields,
    RunInfo,
    load_simulations,
    native_path,
    read_ensemble,
    read_failure,
    read_simulation,
    set_digest,
    simulation_path,
    write_ensemble,
    write_failure,
    write_native,
    write_simulation,
)
from apps.errors import DatasetError
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources, simulation_digest

INFO = RunInfo(
    solver="embedded",
    solver_version="1",
    converged=True,
    residual=1e-3,
    steps=100,
    mass_imbalance=1e-6,
    wall_seconds=0.25,
    cpu_seconds=0.2,
    versions={"torch": "2"},
)


@pytest.fixture
def write(site, cases, resources, store):
    """Write a made-up simulation of the n-th case and return (digest, wind, path)."""

    def written(n=0):
        digest = simulation_digest(cases[n], resources, "1")
        wind = np.random.default_rng(n).normal(size=(3, *site.grid().shape)).astype(np.float32)
        more = {"eddy_viscosity": wind[1] ** 2}
        path = write_simulation(store, digest, cases[n], resources, wind, wind[0], INFO, more)
        return digest, wind, path

    return written


def test_what_is_read_is_what_was_written(write, cases):
    digest, wind, path = write()
    run = read_simulation(path)
    assert (run.digest, run.scenario, run.seconds) == (digest, cases[0].scenario, 0.25)
    assert run.wind.dtype == np.float32
    assert np.array_equal(run.wind, wind)


def test_a_file_is_immutable(write):
    _, _, path = write()
    before = path.read_bytes(), path.stat().st_ino
    write()
    assert (path.read_bytes(), path.stat().st_ino) == before


def test_simulations_load_in_the_order_asked_for(write, store, site, cases):
    digests = [write(n)[0] for n in range(3)]
    loaded = load_simulations(store, digests[::-1], site)
    assert loaded.digests == tuple(digests[::-1])
    assert loaded.wind_speed.tolist() == [c.scenario.wind_speed for c in cases[::-1]]
    assert loaded.wind.shape == (3, 3, *site.grid().shape)
    assert np.array_equal(loaded.wind[2], write(0)[1])
    assert load_simulations(store, [], site).wind.shape == (0, 3, *site.grid().shape)


def test_truncated_and_foreign_files(write, store, site, tmp_path):
    digest, _, path = write()
    whole = path.read_bytes()
    for length in (0, 7, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="simulate again"):
            read_simulation(path)
    path.write_bytes(whole)
    other = simulation_path(store, "0" * 64)
    path.rename(other)
    with pytest.raises(DatasetError, match="no such simulation"):
        load_simulations(store, [digest], site)
    with pytest.raises(DatasetError, match=f"holds simulation {digest}"):
        load_simulations(store, ["0" * 64], site)
    import netCDF4

    foreign = tmp_path / "foreign.nc"
    netCDF4.Dataset(foreign, "w").close()
    with pytest.raises(DatasetError, match="not a simulation"):
        read_simulation(foreign)


def test_a_damaged_chunk_is_noticed(write):
    """The checksum: without it a flipped bit would be another wind."""
    _, _, path = write()
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole) // 4, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            wind = read_simulation(path).wind
        except DatasetError:
            noticed += 1
        else:
            path.write_bytes(whole)
            assert np.array_equal(wind, read_simulation(path).wind)
    assert noticed


def test_another_version_of_the_site(write, store, site):
    digest, _, _ = write()
    changed = site.model_copy(update={"title": "Other"})
    with pytest.raises(DatasetError, match="another version of site small"):
        load_simulations(store, [digest], changed)


def test_wrong_shape_and_nan_are_not_written(site, cases, resources, store):
    wind = np.zeros((3, *site.grid().shape), np.float32)
    for bad in (wind[:, :-1], np.full_like(wind, np.nan)):
        with pytest.raises(DatasetError):
            write_simulation(store, "0" * 64, cases[0], resources, bad, None, INFO)
    assert not store.exists() or not list(store.iterdir())


def test_a_full_disk_leaves_nothing(site, cases, resources, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_agent.contracts.storage.fsync", full)
    wind = np.zeros((3, *site.grid().shape), np.float32)
    with pytest.raises(OSError, match="No space left"):
        write_simulation(store, "0" * 64, cases[0], resources, wind, None, INFO)
    assert list(store.iterdir()) == []


def test_kill_during_writing_leaves_no_simulation(store):
    script = f"""
import numpy as np
from pathlib import Path
from apps.datasets import RunInfo, write_simulation
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources
from edge_agent.contracts.site import Site
site = Site.from_toml("configs/sites/lindcove.toml")
case = Case(site, Scenario(wind_speed=3, wind_from_direction=0), Fidelity())
wind = np.zeros((3, *site.grid().shape), np.float32)
info = RunInfo("embedded", "1", True, 0.0, 1, 0.0, 0.0, 0.0, {{}})
write_simulation(Path({str(store)!r}), "0" * 64, case, Resources(), wind, None, info)
"""
    root = Path(datasets.__file__).parents[1]
    command = [sys.executable, "-c", script]
    armed = os.environ | {"RBF_FAILPOINT": "simulation.partial"}
    assert subprocess.run(command, env=armed, cwd=root).returncode == -9
    assert [p.suffix for p in store.iterdir()] == [".partial"]
    assert subprocess.run(command, cwd=root).returncode == 0
    assert simulation_path(store, "0" * 64).exists()


def test_turbulence_and_native_files(cases, resources, store):
    shape, edges = (2, 3, 4), [np.arange(n + 1.0) for n in (4, 3, 2)]
    wind, more = np.ones((3, *shape), np.float32), np.ones(shape, np.float32)
    fields = Fields(wind, more, {"eddy_viscosity": more})
    path = write_native(store, "0" * 64, cases[0], resources, edges, fields, INFO)
    assert path == native_path(store, "0" * 64)
    with pytest.raises(DatasetError, match="not a simulation"):
        read_simulation(path)
    for bad, match in (
        (Fields(wind, more, {"colour": more}), "colour"),
        (Fields(wind, more[:1]), "shaped"),
        (Fields(wind, more * np.nan), "not finite"),
    ):
        with pytest.raises(DatasetError, match=match):
            write_native(store, "1" * 64, cases[0], resources, edges, bad, INFO)


@pytest.mark.parametrize("native", [False, True])
def test_files_follow_the_cf_conventions(write, cases, resources, store, native):
    digest, wind, path = write()
    if native:
        edges = [np.arange(n + 1.0) for n in reversed(wind.shape[1:])]
        fields = Fields(wind, wind[0], {"turbulent_kinetic_energy": wind[0] ** 2})
        path = write_native(store, digest, cases[0], resources, edges, fields, INFO)
    checker = Path(sys.executable).with_name("compliance-checker")
    if not checker.exists():
        pytest.skip("compliance-checker is not installed; it is in the extra dev")
    report = subprocess.run(
        [checker, "--test=cf:1.8", "--format=json", "--output=-", path],
        capture_output=True,
        text=True,
    )
    result = json.loads(report.stdout[report.stdout.index("{") :])["cf:1.8"]
    assert result["high_count"] == 0, result["high_priorities"]
    import xarray

    with xarray.open_dataset(path) as dataset:
        assert dataset.x_wind.attrs["standard_name"] == "x_wind"
        assert dataset.attrs["Conventions"] == "CF-1.8"


def test_failures_are_recorded(cases, store):
    path = write_failure(store, "0" * 64, cases[0], "diverged", "speeds have run away")
    failure = read_failure(path)
    assert (failure.reason, failure.detail) == ("diverged", "speeds have run away")
    assert failure.scenario == cases[0].scenario
    path.write_text("{}")
    with pytest.raises(DatasetError, match="not a recorded failure"):
        read_failure(path)


def test_sets_are_named_by_their_content(tmp_path):
    digest = set_digest(["b", "a"])
    assert write_ensemble(tmp_path, ["b", "a"]) == write_ensemble(tmp_path, ["a", "b"])
    assert read_ensemble(tmp_path, digest) == ("a", "b")
    (tmp_path / f"{digest}.json").write_text('["a"]')
    with pytest.raises(DatasetError, match="does not fit its name"):
        read_ensemble(tmp_path, digest)
    for content in ("{", "3", "[1, null]"):
        (tmp_path / f"{digest}.json").write_text(content)
        with pytest.raises(DatasetError):
            read_ensemble(tmp_path, digest)
    with pytest.raises(DatasetError, match="not a set"):
        read_ensemble(tmp_path, "0" * 64)


TEARS = [{"panel": "east", "centre": 5, "width": 2}, {"panel": "roof", "centre": 5, "width": 2}]
SCENARIO = st.fixed_dictionaries(
    {
        "wind_speed": st.floats(0.1, 60),
        "wind_from_direction": st.floats(0, 359),
        "screen_loss_factor": st.floats(0, 10),
        "tears": st.sampled_from([[], TEARS[:1], TEARS, [TEARS[0] | {"open_fraction": 0.5}]]),
    }
)


@given(SCENARIO, st.permutations(range(4)), SCENARIO)
def test_digest_is_the_content_and_nothing_else(site, one, order, other):
    """The order of fields does not matter; any change of any value does."""

    def digest(values, cells=(8, 8, 8), batch=4):
        case = Case(site, Scenario.model_validate(values), Fidelity(cells=cells))
        return simulation_digest(case, Resources(batch=batch), "1")

    shuffled = dict([list(one.items())[k] for k in order])
    assert digest(one) == digest(shuffled)
    assert (digest(one) == digest(other)) == (one == other)
    assert len({digest(one), digest(one, cells=(8, 8, 9)), digest(one, batch=5)}) == 3
