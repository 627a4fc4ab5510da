"""The embedded simulator behind the interface: files, company, stopping, failing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.datasets import failure_path, read_failure, read_simulation, simulation_path
from apps.deadline import Unlimited
from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators.base import (
    Case,
    Failed,
    Fidelity,
    Finished,
    Resources,
    Unfinished,
    simulation_digest,
)
from apps.simulators.embedded import EmbeddedSimulator
from apps.simulators.flow import march as march_module
from apps.simulators.flow.stepper import Flow
from apps.simulators.registry import solver_version

DOOR = Tear(panel="door", centre=1, width=1)
#: Interior wind of the golden case, m/s: (component, z, y, x) -> value.
GOLDEN = {
    (0, 1, 2, 1): 0.81723,
    (0, 3, 3, 6): 1.54547,
    (1, 0, 5, 4): -0.06653,
    (2, 3, 1, 0): 0.23834,
    (2, 2, 3, 7): 0.01389,
    (0, 0, 0, 3): 0.64064,
}


@pytest.fixture(scope="module")
def reference(cases, resources, tmp_path_factory):
    """The three cases run together without interruption: (outcomes, winds)."""
    store = tmp_path_factory.mktemp("reference")
    outcomes = EmbeddedSimulator(store).run(cases, resources, None, Unlimited())
    return outcomes, [read_simulation(o.path).wind for o in outcomes]


def test_finished_runs_have_their_files(reference, cases, resources):
    outcomes, winds = reference
    assert all(isinstance(o, Finished) and o.seconds > 0 for o in outcomes)
    steps = set()
    for outcome, case, wind in zip(outcomes, cases, winds, strict=True):
        run = read_simulation(outcome.path)
        assert run.digest == outcome.digest
        assert run.digest == simulation_digest(case, resources, solver_version("embedded"))
        assert run.scenario == case.scenario
        assert (run.attrs["converged"], run.attrs["solver_version"]) == (1, "2")
        assert run.attrs["residual"] < case.fidelity.tolerance
        assert run.attrs["mass_imbalance"] <= 1e-4
        assert json.loads(run.attrs["resources"]) == {"batch": 3, "threads": 1}
        assert 0 < np.sqrt((wind**2).sum(axis=0)).mean() < case.scenario.wind_speed
        steps.add(int(run.attrs["steps"]))
    assert len(steps) > 1, "the cases should end at different steps for the tests below"


def test_golden_case(reference):
    """Guards the version: its digests promise these numbers."""
    _, winds = reference
    for place, value in GOLDEN.items():
        assert winds[0][place] == pytest.approx(value, abs=1e-4), (
            "the solver's numbers have changed: raise the version in apps/simulators/registry.py "
            "and renew these"
        )


def test_result_does_not_depend_on_company(reference, cases, resources, store):
    """Other companions, another place in the batch, a batch padded with itself: equal bits."""
    _, winds = reference
    simulator, stranger = EmbeddedSimulator(store), Scenario(wind_speed=11, wind_from_direction=45)
    company = [replace(cases[0], scenario=stranger), cases[2], cases[0]]
    outcomes = simulator.run(company, resources, None, Unlimited())
    assert np.array_equal(read_simulation(outcomes[1].path).wind, winds[2])
    assert np.array_equal(read_simulation(outcomes[2].path).wind, winds[0])
    (alone,) = simulator.run([cases[1]], resources, None, Unlimited())
    assert np.array_equal(read_simulation(alone.path).wind, winds[1])


@pytest.mark.parametrize("steps", [1, 7, 45])
def test_stopped_runs_go_on_to_the_same_bits(
    reference, cases, resources, store, tmp_path, stop_after, steps
):
    _, winds = reference
    checkpoint, simulator = tmp_path / "batch.checkpoint", EmbeddedSimulator(store)
    first = simulator.run(cases, resources, checkpoint, stop_after(steps))
    assert all(isinstance(o, Unfinished) and 0 <= o.progress < 1 for o in first)
    assert {o.checkpoint for o in first} == {checkpoint}
    assert checkpoint.exists()
    second = simulator.run(cases, resources, checkpoint, stop_after(steps + 3))
    assert all(isinstance(o, Unfinished) for o in second)
    last = simulator.run(cases, resources, checkpoint, Unlimited())
    assert all(
        np.array_equal(read_simulation(o.path).wind, w) for o, w in zip(last, winds, strict=True)
    )
    assert not checkpoint.exists()


def test_cases_that_ended_before_the_stop_stay_ended(
    reference, cases, resources, store, tmp_path, stop_after
):
    outcomes, winds = reference
    steps = [int(read_simulation(o.path).attrs["steps"]) for o in outcomes]
    checkpoint, simulator = tmp_path / "batch.checkpoint", EmbeddedSimulator(store)
    stopped = simulator.run(cases, resources, checkpoint, stop_after(min(steps)))
    ended = [isinstance(o, Finished) for o in stopped]
    assert ended == [s == min(steps) for s in steps]
    left = [c for c, done in zip(cases, ended, strict=True) if not done]
    simulator.run(left, resources, checkpoint, Unlimited())
    runs = [read_simulation(simulation_path(store, o.digest)) for o in outcomes]
    assert all(np.array_equal(r.wind, w) for r, w in zip(runs, winds, strict=True))
    assert not checkpoint.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_an_unusable_checkpoint_is_a_fresh_start(
    reference, cases, resources, store, tmp_path, stop_after, content
):
    """Garbage, or one of other cases."""
    _, winds = reference
    checkpoint, simulator = tmp_path / "batch.checkpoint", EmbeddedSimulator(store)
    if content is None:
        simulator.run(cases[1:], resources, checkpoint, stop_after(3))
    else:
        checkpoint.write_bytes(content)
    (done,) = simulator.run(cases[:1], resources, checkpoint, Unlimited())
    assert np.array_equal(read_simulation(done.path).wind, winds[0])


def test_a_run_too_close_to_its_end_is_not_begun(cases, resources, store):
    class Nearly(Unlimited):
        def remaining(self):
            return 0.5

    outcomes = EmbeddedSimulator(store).run(cases, resources, None, Nearly())
    assert all(isinstance(o, Unfinished) and o.checkpoint.parent == store for o in outcomes)
    again = EmbeddedSimulator(store).run(cases, resources, None, Unlimited())
    assert all(isinstance(o, Finished) for o in again)
    assert [p.suffix for p in store.iterdir()] == [".nc"] * 3


def test_done_cases_are_not_run_again(cases, resources, store, monkeypatch):
    simulator = EmbeddedSimulator(store)
    simulator.run(cases[:2], resources, None, Unlimited())
    monkeypatch.setattr(Flow, "step", lambda _: pytest.fail("solved again"))
    again = simulator.run(cases[:2], resources, None, Unlimited())
    assert [o.seconds for o in again] == [0.0, 0.0]


def test_threads_are_restored(cases, resources, store, stop_after):
    before = torch.get_num_threads()
    two = resources.model_copy(update={"threads": before + 1})
    EmbeddedSimulator(store).run(cases[:1], two, None, stop_after(2))
    assert torch.get_num_threads() == before


def test_one_case_diverges_the_others_go_on(reference, cases, resources, store, monkeypatch):
    """A limit between the cases' largest speeds stands in for a run-away."""
    _, winds = reference
    monkeypatch.setattr(march_module, "FASTEST", 1.2)
    outcomes = EmbeddedSimulator(store).run(cases, resources, None, Unlimited())
    failed = [isinstance(o, Failed) for o in outcomes]
    assert any(failed)
    assert not all(failed)
    for outcome, wind in zip(outcomes, winds, strict=True):
        if isinstance(outcome, Failed):
            assert outcome.reason == "diverged"
            assert read_failure(failure_path(store, outcome.digest)).detail == outcome.detail
            assert not simulation_path(store, outcome.digest).exists()
        else:
            assert np.array_equal(read_simulation(outcome.path).wind, wind)


def test_a_step_too_large_is_a_recorded_failure(cases, resources, store, monkeypatch):
    simulator = EmbeddedSimulator(store)
    with monkeypatch.context() as patch:
        patch.setattr(march_module, "CFL", 8.0)
        outcomes = simulator.run(cases, resources, None, Unlimited())
    assert {o.reason for o in outcomes} <= {"diverged", "not_finite"}
    assert simulator.run(cases, resources, None, Unlimited()) == outcomes


def test_nan_stays_in_its_case(reference, cases, resources, store, monkeypatch):
    _, winds = reference
    step = Flow.step

    def poisoned(flow):
        flow.velocity[0][0, 0, 0] = float("nan")
        step(flow)

    monkeypatch.setattr(Flow, "step", poisoned)
    first, *others = EmbeddedSimulator(store).run(cases, resources, None, Unlimited())
    assert (first.reason, first.detail[:21]) == ("not_finite", "a value is not finite")
    for outcome, wind in zip(others, winds[1:], strict=True):
        assert np.array_equal(read_simulation(outcome.path).wind, wind)


@pytest.mark.parametrize(("tolerance", "result"), [(1e-6, Failed), (0.02, Finished)])
def test_the_step_limit(cases, resources, store, monkeypatch, tolerance, result):
    """Far from the tolerance it is a failure, near it a result that says so."""
    monkeypatch.setattr(march_module, "MAX_STEPS", 50)
    case = replace(cases[0], fidelity=cases[0].fidelity.model_copy(update={"tolerance": tolerance}))
    (outcome,) = EmbeddedSimulator(store).run([case], resources, None, Unlimited())
    assert isinstance(outcome, result)
    if isinstance(outcome, Failed):
        assert outcome.reason == "not_converged"
    else:
        assert read_simulation(outcome.path).attrs["converged"] == 0


def test_batches_that_cannot_be(site, cases, resources, store):
    simulator = EmbeddedSimulator(store)
    with pytest.raises(SimulationError, match="4 cases in a batch of 3"):
        simulator.run([*cases, cases[0]], resources, None, Unlimited())
    other = Case(site, cases[0].scenario, Fidelity(cells=(10, 10, 6)))
    with pytest.raises(SimulationError, match="different sites or fidelities"):
        simulator.run([cases[0], other], resources, None, Unlimited())
    door = Scenario(wind_speed=3, wind_from_direction=0, tears=(DOOR,))
    with pytest.raises(SimulationError, match="no panel door"):
        simulator.run([replace(cases[0], scenario=door)], resources, None, Unlimited())


def test_resources_are_part_of_the_name(cases):
    digests = {
        simulation_digest(cases[0], Resources(threads=t, batch=b), version)
        for t in (1, 2)
        for b in (1, 2)
        for version in ("1", "2")
    }
    assert len(digests) == 8
