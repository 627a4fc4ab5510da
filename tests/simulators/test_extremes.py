"""What no campaign asks for on purpose: an answer, or an error that says what is wrong."""

import errno
import os

import numpy as np
import pytest
from pydantic import ValidationError

from apps.datasets import native_path, read_simulation, simulation_path
from apps.deadline import Unlimited
from apps.errors import SimulationError
from apps.scenarios import Scenario
from apps.simulators.base import Case, Failed, Fidelity, Finished, Resources
from apps.simulators.embedded import EmbeddedSimulator
from apps.simulators.registry import make


def run(site, store, scenarios, native=False):
    cases = [Case(site, s, Fidelity(cells=(14, 12, 6))) for s in scenarios]
    simulator = EmbeddedSimulator(store, native=native)
    return simulator.run(cases, Resources(batch=len(cases)), None, Unlimited())


@pytest.mark.parametrize("name", ["wind_speed", "wind_from_direction", "screen_loss_factor"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_scenario_without_numbers_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        Scenario.model_validate({"wind_speed": 1, "wind_from_direction": 0} | {name: value})


def test_calm_is_refused():
    """No direction, no steady flow: the contract says so before any solver does."""
    with pytest.raises(ValidationError, match="greater than 0"):
        Scenario(wind_speed=0, wind_from_direction=0)


def test_extreme_winds_and_screens_converge(site, store):
    """Near calm, 60 m/s, and losses of 0 and 1000 times the site's."""
    extremes = [(0.01, 1), (60, 1), (5, 0), (5, 1000), (60, 1000)]
    ends = run(
        site,
        store,
        [
            Scenario(wind_speed=s, wind_from_direction=250, screen_loss_factor=f)
            for s, f in extremes
        ],
    )
    assert all(isinstance(e, Finished) for e in ends)
    runs = [read_simulation(e.path) for e in ends]
    assert all(r.attrs["converged"] for r in runs)
    assert all(r.attrs["mass_imbalance"] <= 1e-4 for r in runs)
    shares = [
        float(np.sqrt((r.wind**2).sum(axis=0)).mean()) / s
        for r, (s, _) in zip(runs, extremes, strict=True)
    ]
    calm, storm, open_, closed, _ = shares
    assert closed < calm < storm < open_ < 1
    assert closed < 0.05


@pytest.mark.parametrize("native", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(site, store, monkeypatch, native):
    scenario = [Scenario(wind_speed=4, wind_from_direction=250)]
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("edge_agent.contracts.storage.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(site, store, scenario, native)
    assert list(store.glob("*")) == []
    (end,) = run(site, store, scenario, native)
    assert isinstance(end, Finished)


def test_the_native_grid_is_written_when_asked_for(site, store):
    """Also of a case that is done; its digest and its bytes stay."""
    scenario = [Scenario(wind_speed=4, wind_from_direction=250)]
    (before,) = run(site, store, scenario)
    assert not native_path(store, before.digest).exists()
    stamp = simulation_path(store, before.digest).stat()
    (after,) = run(site, store, scenario, native=True)
    assert after.digest == before.digest
    assert native_path(store, after.digest).exists()
    assert simulation_path(store, after.digest).stat() == stamp
    (again,) = run(site, store, scenario, native=True)
    assert again.seconds == 0.0


def test_a_native_grid_is_asked_of_who_writes_it(store, monkeypatch):
    monkeypatch.setattr(EmbeddedSimulator, "__init__", lambda _, store: None)  # noqa: ARG005
    with pytest.raises(SimulationError, match="own grid"):
        make("embedded", store, native=True)


def test_divergence_is_recorded(site, store, monkeypatch):
    monkeypatch.setattr("apps.simulators.flow.march.CFL", 8.0)
    (end,) = run(site, store, [Scenario(wind_speed=60, wind_from_direction=250)])
    assert isinstance(end, Failed)
    assert not simulation_path(store, end.digest).exists()
