"""OpenFOAM behind the interface: files, stopping and going on, failing, extremes."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from apps.datasets import failure_path, read_failure, read_simulation, simulation_path
from apps.deadline import Unlimited
from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulators import openfoam as module
from apps.simulators.base import Failed, Finished, Resources, Unfinished, simulation_digest
from apps.simulators.foam import numerics, solve
from apps.simulators.foam.text import write
from apps.simulators.openfoam import OpenFOAMSimulator
from apps.simulators.registry import solver_version

#: Interior wind of the reference case, m/s: (component, z, y, x) -> value.
GOLDEN = {
    (0, 1, 2, 1): 0.69128,
    (0, 3, 3, 6): 1.66134,
    (1, 0, 5, 4): 0.32138,
    (2, 4, 1, 0): 0.15713,
    (1, 2, 7, 8): 0.60044,
}


def run(case, store, resources, control=None, checkpoint=None, **options):
    simulator = OpenFOAMSimulator(store, **options)
    (outcome,) = simulator.run([case], resources, checkpoint, control or Unlimited())
    return outcome


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.fixture(scope="module")
def reference(case, resources, tmp_path_factory):
    """The case run without interruption: (outcome, simulation)."""
    outcome = run(case, tmp_path_factory.mktemp("reference"), resources, native=True)
    return outcome, read_simulation(outcome.path)


def test_a_finished_run_has_its_file(reference, case, resources):
    outcome, found = reference
    assert outcome.digest == simulation_digest(case, resources, solver_version("openfoam"))
    assert found.attrs["solver"] == "openfoam"
    assert found.attrs["converged"] == 1
    assert found.attrs["residual"] < case.fidelity.tolerance
    assert found.attrs["mass_imbalance"] <= 1e-4
    assert 0 < found.attrs["cpu_seconds"] < 60
    assert json.loads(found.attrs["versions"])["openfoam"].startswith("19")
    speed = np.sqrt((found.wind**2).sum(axis=0)).mean()
    assert 0.2 < speed / case.scenario.wind_speed < 0.5
    folder = outcome.path.parent
    assert {p.suffix for p in folder.iterdir()} == {".nc"}, "the case folder is gone"
    import xarray as xr

    with xr.open_dataset(folder / f"{outcome.digest}.native.nc") as native:
        assert native["turbulent_kinetic_energy"].shape == case.fidelity.cells[::-1]
        assert float(native["turbulent_kinetic_energy"].min()) > 0
    with xr.open_dataset(outcome.path) as file:
        assert float(file["eddy_viscosity"].min()) > 0


def test_golden_case(reference):
    """Guards the version: its digests promise these numbers."""
    _, found = reference
    for place, value in GOLDEN.items():
        assert found.wind[place] == pytest.approx(value, abs=2e-4), (
            "OpenFOAM's numbers have changed: raise the version in apps/simulators/registry.py "
            "and renew these"
        )


def test_mesh_lines_are_those_of_the_grid(case, tmp_path):
    one = solve.Run(tmp_path, case, 1, tmp_path / "ducts")
    one.prepare()
    data = (tmp_path / "constant/polyMesh/points").read_bytes()
    count = int(re.search(rb"\n(\d+)\n?\(", data)[1])
    assert count == np.prod([n + 1 for n in case.fidelity.cells])
    log = subprocess.run(
        ["checkMesh"], cwd=tmp_path, env=module.environment.environment(tmp_path),
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "Mesh OK" in log


def stopped(case, store, resources, control, checkpoint):
    return run(case, store, resources, control, checkpoint, report=control.report)


def test_stopped_runs_go_on_to_the_same_answer(
    case, resources, store, tmp_path, stop_at, monkeypatch
):
    """Stopped within the first segment, within the second, and at the start of the third."""
    monkeypatch.setattr(solve, "SEGMENT", 15)
    whole = read_simulation(run(case, tmp_path / "whole", resources).path)
    assert whole.attrs["steps"] > 30
    checkpoint, progress = tmp_path / "one.checkpoint", 0.0
    for iteration in (5, 20, 31):
        outcome = stopped(case, store, resources, stop_at(iteration), checkpoint)
        assert isinstance(outcome, Unfinished)
        assert outcome.checkpoint == checkpoint
        assert progress < outcome.progress < 1
        progress = outcome.progress
        assert checkpoint.stat().st_size > 10000
        assert list(store.iterdir()) == []
    last = run(case, store, resources, None, checkpoint)
    found = read_simulation(last.path)
    assert found.attrs["steps"] == whole.attrs["steps"]
    assert relative(found.wind, whole.wind) <= 1e-6
    assert found.attrs["wall_seconds"] == last.seconds > 0
    assert not checkpoint.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_an_unusable_checkpoint_is_a_fresh_start(
    reference, case, resources, store, tmp_path, content
):
    _, whole = reference
    checkpoint = tmp_path / "one.checkpoint"
    checkpoint.write_bytes(content)
    found = read_simulation(run(case, store, resources, None, checkpoint).path)
    assert np.array_equal(found.wind, whole.wind)


def test_two_processes_give_the_same_answer(case, resources, store, tmp_path, stop_at, monkeypatch):
    """Serial and parallel, stopped once in between; both well converged."""
    monkeypatch.setattr(solve, "SEGMENT", 30)
    fidelity = case.fidelity.model_copy(update={"tolerance": 1e-4})
    case = replace(case, fidelity=fidelity)
    whole = read_simulation(run(case, tmp_path / "serial", resources).path)
    two, checkpoint = Resources(threads=2, batch=1), tmp_path / "two.checkpoint"
    assert isinstance(stopped(case, store, two, stop_at(45), checkpoint), Unfinished)
    found = read_simulation(run(case, store, two, None, checkpoint).path)
    assert relative(found.wind, whole.wind) <= 1e-4
    assert found.attrs["mass_imbalance"] <= 1e-4


def test_a_run_too_close_to_its_end_is_not_begun(case, resources, store, monkeypatch):
    class Nearly(Unlimited):
        def remaining(self):
            return 1.0

    monkeypatch.setattr(solve.Run, "prepare", lambda _: pytest.fail("begun"))
    assert isinstance(run(case, store, resources, Nearly()), Unfinished)


def test_done_cases_are_not_run_again(reference, case, resources, monkeypatch):
    outcome, _ = reference
    monkeypatch.setattr(solve.Run, "iterate", lambda *_: pytest.fail("run again"))
    again = run(case, outcome.path.parent, resources)
    assert (again.path, again.seconds) == (outcome.path, 0.0)


def test_progress_is_told(case, resources, store, stop_at):
    told, control = [], stop_at(8)

    def report(digest, monitor):
        told.append((monitor.iteration, monitor.residual))
        control.report(digest, monitor)

    run(case, store, resources, control, report=report)
    assert [i for i, _ in told][:8] == list(range(1, 9))
    assert told[-1][1] < told[0][1]


@pytest.mark.parametrize("speed", [0.2, 60.0])
def test_calm_and_storm(case, resources, store, speed):
    """Of constant K: the answer scales with the wind."""
    found = read_simulation(
        run(
            replace(case, scenario=Scenario(wind_speed=speed, wind_from_direction=240)),
            store,
            resources,
        ).path
    )
    assert found.attrs["converged"] == 1
    assert 0.2 < np.sqrt((found.wind**2).sum(axis=0)).mean() / speed < 0.5


def test_loss_of_nothing_and_of_a_thousand(case, resources, store, house):
    """Both converge; behind K = 1000 little is left, what turbulence carries through the roof."""
    means = []
    for constant in (0.0, 3.0, 1000.0):
        one = replace(case, site=house(0.0, constant, cells=(10, 10, 5)))
        found = read_simulation(run(one, store, resources).path)
        assert found.attrs["converged"] == 1
        assert found.attrs["mass_imbalance"] <= 1e-4
        means.append(float(np.sqrt((found.wind**2).sum(axis=0)).mean()) / 5)
    assert means == sorted(means, reverse=True)
    assert means[2] < 0.65 * means[1]


def test_a_torn_panel_lets_more_wind_in(reference, case, resources, store):
    tear = Tear(panel="west", centre=50, width=40)
    torn = case.scenario.model_copy(update={"tears": (tear,)})
    found = read_simulation(run(replace(case, scenario=torn), store, resources).path)
    _, whole = reference
    assert found.wind[0, :4, 4:6, 0].mean() > 1.15 * whole.wind[0, :4, 4:6, 0].mean()


def test_scenarios_that_cannot_be(case, resources, store):
    with pytest.raises(ValidationError):
        Scenario(wind_speed=float("nan"), wind_from_direction=240)
    door = Scenario(
        wind_speed=5, wind_from_direction=240, tears=(Tear(panel="door", centre=1, width=1),)
    )
    with pytest.raises(SimulationError, match="no panel door"):
        run(replace(case, scenario=door), store, resources)
    with pytest.raises(SimulationError, match="2 cases in a batch of 1"):
        OpenFOAMSimulator(store).run([case, case], resources, None, Unlimited())


def test_divergence_is_recorded(case, resources, store, monkeypatch):
    """A stiff baffle without its relaxation blows up, and may claim to have converged."""
    stiff = replace(case, scenario=case.scenario.model_copy(update={"screen_loss_factor": 20.0}))
    monkeypatch.setattr(solve, "plan", lambda found, _: solve.Plan(tuple(found), (), 0.9))
    monkeypatch.setattr(solve, "MAX_ITERATIONS", 200)
    failed = run(stiff, store, resources)
    assert isinstance(failed, Failed)
    assert failed.reason in {"diverged", "not_finite", "not_converged"}
    assert read_failure(failure_path(store, failed.digest)).detail == failed.detail
    assert run(stiff, store, resources) == failed
    assert not list(store.glob("*.nc"))


@pytest.mark.parametrize(
    ("field", "change", "reason", "detail"),
    [
        ("U", lambda f: f * 40, "diverged", "times the wind speed"),
        ("k", lambda f: f * np.nan, "not_finite", "not finite"),
    ],
)
def test_absurd_fields_are_failures(
    case, resources, store, monkeypatch, field, change, reason, detail
):
    fields = solve.Run.fields
    monkeypatch.setattr(
        solve.Run, "fields", lambda self: (f := fields(self)) | {field: change(f[field])}
    )
    failed = run(case, store, resources)
    assert failed.reason == reason
    assert detail in failed.detail


def test_lost_mass_is_a_failure(case, resources, store, monkeypatch):
    monkeypatch.setattr(solve.Run, "imbalance", 2e-4)
    failed = run(case, store, resources)
    assert (failed.reason, failed.detail[:22]) == ("not_converged", "mass imbalance 2.0e-04")


@pytest.mark.parametrize(("limit", "result"), [(5, Failed), (30, Finished)])
def test_the_iteration_limit(case, resources, store, monkeypatch, limit, result):
    """Far from the tolerance it is a failure, near it a result that says so."""
    monkeypatch.setattr(solve, "MAX_ITERATIONS", limit)
    outcome = run(case, store, resources)
    assert isinstance(outcome, result)
    if isinstance(outcome, Failed):
        assert outcome.reason == "not_converged"
    else:
        assert read_simulation(outcome.path).attrs["converged"] == 0


def test_a_program_that_fails_for_its_own_reasons(case, resources, store, monkeypatch):
    def broken(folder, *_args, **_kwargs):
        write(folder, "system/controlDict", {"application": "simpleFoam"})

    monkeypatch.setattr(numerics, "write_control", broken)
    with pytest.raises(SimulationError, match="blockMesh failed"):
        run(case, store, resources)
    assert not [p for p in store.iterdir() if p.suffix == ".foam"]


def test_a_full_disk_is_an_oserror(case, resources, tmp_path):
    """A disk of one megabyte: the mesh fits, the fields do not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a small disk here")
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is the point
            run(case, disk, resources)
        assert caught.value.errno == errno.ENOSPC
        assert not list(disk.glob("*.nc"))
        assert not list(disk.glob("*.failed.json"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_while_the_result_is_written(case, resources, store, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_simulation", full)
    with pytest.raises(OSError, match="No space left"):
        run(case, store, resources)
    assert [p.name for p in store.iterdir()] == []


VICTIM = """
import sys
from pathlib import Path
from apps.deadline import Unlimited
from apps.simulators.openfoam import OpenFOAMSimulator
from apps.simulate import SimulateTask, _cases
task = SimulateTask.model_validate_json(sys.argv[1])
report = lambda digest, monitor: print(monitor.iteration, flush=True)
OpenFOAMSimulator(Path(task.store), report=report).run(
    _cases(task), task.resources, None, Unlimited()
)
"""


@pytest.mark.parametrize("when", ["iterating", "writing"])
def test_killed_at_work_leaves_nothing(reference, case, resources, store, when):
    from apps.simulate import SimulateTask

    task = SimulateTask(
        site=case.site, scenarios=(case.scenario,), fidelity=case.fidelity, resources=resources,
        store=str(store),
    )  # fmt: skip
    options = {"RBF_FAILPOINT": "simulation.partial"} if when == "writing" else {}
    child = subprocess.Popen(
        [sys.executable, "-c", VICTIM, task.model_dump_json()],
        stdout=subprocess.PIPE, env=os.environ | options,
    )  # fmt: skip
    if when == "iterating":
        for line in child.stdout:
            if int(line) >= 5:
                break
        child.send_signal(signal.SIGKILL)
    child.stdout.read()
    child.stdout.close()
    child.wait(60)
    outcome, whole = reference
    assert not simulation_path(store, outcome.digest).exists()
    left = [p for p in store.iterdir() if p.suffix == ".foam"]
    assert len(left) == 1, "its case folder, hidden and swept by the next run"
    time.sleep(0.5)
    assert not [p for p in Path("/proc").glob("[0-9]*/cwd") if _points_to(p, left[0])], (
        "the solver has ended with its parent"
    )
    again = run(case, store, resources)
    assert relative(read_simulation(again.path).wind, whole.wind) <= 1e-6
    assert not [p for p in store.iterdir() if p.suffix == ".foam"]


def _points_to(link, folder):
    try:
        return link.readlink() == folder
    except OSError:
        return False


def test_a_batch_goes_on_where_it_stopped(reference, case, store, tmp_path, stop_at):
    """Two cases in one task, one after the other."""
    both = Resources(threads=1, batch=2)
    other = replace(case, scenario=Scenario(wind_speed=5, wind_from_direction=270))
    checkpoint, control = tmp_path / "batch.checkpoint", stop_at(10)
    simulator = OpenFOAMSimulator(store, report=control.report)
    begun = simulator.run([case, other], both, checkpoint, control)
    assert [type(o) for o in begun] == [Unfinished, Unfinished]
    assert begun[0].progress > begun[1].progress == 0
    ended = simulator.run([case, other], both, checkpoint, Unlimited())
    assert [type(o) for o in ended] == [Finished, Finished]
    _, whole = reference
    assert relative(read_simulation(ended[0].path).wind, whole.wind) <= 1e-6
