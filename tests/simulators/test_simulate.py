"""The simulation stage and its deadline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from apps import simulate as stage
from apps.deadline import FileDeadline, Unlimited
from apps.simulate import SimulateResult, SimulateTask, simulate, simulation_digests
from apps.simulators.base import Fidelity, Resources
from edge_agent.contracts.storage import write_bytes


@pytest.fixture
def task(cases, resources, fidelity, store, tmp_path):
    return SimulateTask(
        site=cases[0].site,
        scenarios=tuple(c.scenario for c in cases),
        fidelity=fidelity,
        resources=resources,
        store=str(store),
        checkpoint=str(tmp_path / "task.checkpoint"),
        deadline=str(tmp_path / "deadline.json"),
    )


def test_a_task_ends_at_its_deadline_and_goes_on_in_the_next_block(task):
    """And crosses processes as JSON."""
    task = SimulateTask.model_validate_json(task.model_dump_json())
    write_bytes(Path(task.deadline), b'{"ends_at": 0}')
    first = simulate(task)
    assert [o.status for o in first.outcomes] == ["unfinished"] * 3
    write_bytes(Path(task.deadline), b'{"ends_at": 1e12, "stop": false}')
    second = simulate(task)
    assert [o.status for o in second.outcomes] == ["finished"] * 3
    assert tuple(o.digest for o in second.outcomes) == simulation_digests(task)
    third = simulate(task)
    assert [o.seconds for o in third.outcomes] == [0.0] * 3
    assert SimulateResult.model_validate_json(third.model_dump_json()) == third


def test_names_need_no_solver(task):
    script = (
        "import sys; from apps.simulate import SimulateTask, simulation_digests;"
        "print(*simulation_digests(SimulateTask.model_validate_json(sys.stdin.read())));"
        "sys.exit(bool({'torch', 'xarray', 'netCDF4'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], input=task.model_dump_json(), capture_output=True, text=True
    )
    assert (run.returncode, tuple(run.stdout.split())) == (0, simulation_digests(task))


def test_command_line(store):
    app = typer.Typer()
    app.command()(stage._main)
    site = Path(stage.__file__).parents[1] / "configs" / "sites" / "lindcove.toml"
    command = ["--wind-speed", "3", "--wind-from-direction", "270", "--site", str(site)]
    command += ["--cells", "12", "10", "6", "--store", str(store)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "3 m/s from 270 degrees:" in done.output
    assert "m/s inside on average" in done.output
    for wrong in (["--torn-panel", "door"], ["--wind-speed", "-1"], ["--site", "none.toml"]):
        failed = CliRunner().invoke(app, command + wrong)
        assert failed.exit_code == 2
        assert failed.output.startswith("error: ")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_deadline_follows_its_file(tmp_path):
    path, clock = tmp_path / "deadline.json", Clock()
    deadline = FileDeadline(path, clock)
    assert (deadline.remaining(), deadline.stop_requested()) == (float("inf"), False)
    write_bytes(path, b'{"ends_at": 130}')
    assert (deadline.remaining(), deadline.stop_requested()) == (30, False)
    clock.now = 120.0
    assert deadline.remaining() == 10
    write_bytes(path, json.dumps({"ends_at": 150, "stop": False}).encode())
    assert deadline.remaining() == 30
    write_bytes(path, json.dumps({"ends_at": 150, "stop": True}).encode())
    assert deadline.stop_requested()
    write_bytes(path, b'{"ends_at": 110, "stop": false}')
    assert deadline.stop_requested()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ends_at": "soon"}', b"{}"])
def test_a_damaged_deadline_leaves_the_last_good_one(tmp_path, content):
    path, clock = tmp_path / "deadline.json", Clock()
    deadline = FileDeadline(path, clock)
    write_bytes(path, b'{"ends_at": 130}')
    assert deadline.remaining() == 30
    write_bytes(path, content)
    assert deadline.remaining() == 30
    path.unlink()
    assert deadline.remaining() == 30


def test_unlimited_never_ends():
    control = Unlimited()
    assert (control.remaining(), control.stop_requested()) == (float("inf"), False)


def test_unknown_fields_are_refused(task):
    with pytest.raises(ValueError, match="walltime"):
        SimulateTask.model_validate(task.model_dump() | {"walltime": 3})
    with pytest.raises(ValueError, match="at least 1"):
        SimulateTask(site=task.site, scenarios=(), store="x")
    assert SimulateTask(site=task.site, scenarios=task.scenarios, store="x").fidelity == Fidelity()
    assert task.resources == Resources(threads=1, batch=3)
