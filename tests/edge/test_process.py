"""The agent as a process: crashes, restarts, the command line, imports."""

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import AgentUnreachable

from .conftest import REPOSITORY_ROOT, wait_until, wind
from .releases import NAME, make_release

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}


def cli(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=options.pop("cwd", REPOSITORY_ROOT),
        timeout=60,
        **options,
    )


def listens(process):
    wait_until((process.folder / "state" / "address.json").exists)
    wait_until(lambda: process.client.request("GET", "/v2/health/live").status == 200)


@pytest.mark.parametrize(
    ("point", "allowed"),
    [
        ("promotion.loaded", {1}),
        ("promotion.recorded", {1}),
        ("promotion.committed", {2}),
        ("promotion.swapped", {2}),
        ("promotion.journalled", {2}),
    ],
)
def test_an_agent_killed_in_a_swap_serves_the_old_or_the_new_release(
    launch, tmp_path, point, allowed
):
    repository = tmp_path / "repository"
    make_release(repository, 1, bias=1.0)
    # Each point is passed once by each promotion.
    agent = launch(failpoint=f"{point}:2")
    agent.client.wait_serving(1)
    make_release(repository, 2, bias=2.0)
    assert agent.wait() == -signal.SIGKILL
    repository.rename(tmp_path / "away")
    (tmp_path / "state" / "address.json").unlink()

    again = launch()
    listens(again)
    assert again.client.predict(WEST).version in allowed
    (tmp_path / "away").rename(repository)
    assert again.client.wait_serving(2)["ready"]
    assert again.stop() == 0


def test_a_process_serves_replays_and_ends_cleanly(launch, tmp_path):
    agent = launch()
    listens(agent)
    address = agent.address
    assert address["unix_socket"] == f"unix:{tmp_path / 'state' / 'agent.sock'}"
    log = tmp_path / "replay.csv"
    log.write_text("sent_at,latency_seconds,status,version,data_time,staleness_seconds\n1.0,0.0")

    def replay(**options):
        extra = [x for k, v in options.items() for x in (f"--{k.replace('_', '-')}", v)]
        done = cli("replay", "-c", agent.config, "--rate", 500, "--log", log, *extra)
        assert done.returncode == 0, done.stderr
        with log.open() as file:
            return list(csv.DictReader(file))

    assert [r["status"] for r in replay(count=3)] == ["503"] * 3
    make_release(tmp_path / "repository", 1)
    agent.client.wait_serving(1)
    rows = replay(count=5, start_at="2016-06-01T01:00:00")[3:]
    assert [(r["status"], r["version"]) for r in rows] == [("200", "1")] * 5
    assert rows[0]["data_time"] == "2016-06-01T01:00:00"
    assert float(rows[0]["staleness_seconds"]) == 3600.0
    assert 0 < float(rows[0]["latency_seconds"]) < 10

    with RemoteAgent(address["http"]) as tcp:
        np.testing.assert_array_equal(tcp.predict(WEST).wind, agent.client.predict(WEST).wind)
    shown = cli("status", "-c", agent.config)
    assert "release 1" in shown.stdout
    assert json.loads(cli("status", "-a", address["http"], "--json").stdout)["active"] == 1
    asked = ("predict", "--wind-speed", 4, "--wind-from-direction", 270, "-c", agent.config)
    assert "release 1: mean" in cli(*asked).stdout
    assert json.loads(cli(*asked, "--json").stdout)["version"] == 1
    nothing = cli("rollback", "-c", agent.config)
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    second = cli("serve", "-c", agent.config)
    assert second.returncode == 2
    assert "held by a running agent" in second.stderr

    assert agent.stop() == 0
    assert not (tmp_path / "state" / "agent.sock").exists()
    assert not (tmp_path / "state" / "address.json").exists()
    gone = cli("status", "-c", agent.config)
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert [r["status"] for r in replay(count=2)[-2:]] == ["error"] * 2


def test_replay_goes_on_while_the_agent_is_away_and_ends_on_sigterm(launch, tmp_path):
    make_release(tmp_path / "repository", 1)
    agent = launch()
    agent.client.wait_serving(1)
    log = tmp_path / "replay.csv"
    replay = subprocess.Popen(
        [
            sys.executable, "-m", "edge_agent", "replay", "-c", str(agent.config),
            "--rate", "50", "--log", str(log), "--with-parent",
        ],
        cwd=REPOSITORY_ROOT,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def statuses():
        return [r.split(",")[2] for r in log.read_text().splitlines()[1:]] if log.exists() else []

    wait_until(lambda: "200" in statuses())
    agent.process.kill()
    agent.wait()
    wait_until(lambda: statuses()[-1:] == ["error"])
    again = launch()
    again.client.wait_serving(1)
    wait_until(lambda: statuses()[-1:] == ["200"])
    replay.send_signal(signal.SIGTERM)
    assert replay.wait(20) == 0
    assert log.read_text().endswith("\n")
    assert again.client.status()["counters"]["failed"] == 0


def test_readings_acknowledged_before_a_kill_are_there_after(launch):
    agent = launch()
    listens(agent)
    reply = agent.client.request(
        "POST",
        "/rbf/v1/readings",
        json.dumps({"readings": [r._asdict() for r in wind("2016-06-01T00:00:00")]}).encode(),
    )
    assert (reply.status, reply.json()["kept"]) == (503, 2)
    agent.process.kill()
    agent.wait()
    with pytest.raises(AgentUnreachable):
        agent.client.status()
    again = launch()
    wait_until(lambda: _alive(again.client))
    assert len(again.client.readings()) == 2


def _alive(client):
    try:
        return client.request("GET", "/v2/health/live").status == 200
    except AgentUnreachable:
        return False


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("poll = 3", "poll"),
        ("poll_seconds = -1", "poll_seconds"),
        ('host = "0.0.0.0"', "host"),
        ('channel = "nightly"', "channel"),
        (f'unix_socket = "{"x" * 120}"', "unix_socket"),
    ],
)
def test_a_bad_configuration_ends_with_2_and_names_the_field(tmp_path, line, field):
    config = tmp_path / "edge.toml"
    config.write_text(f'name = "{NAME}"\nrepository = "r"\nroot = "q"\nstate = "s"\n{line}\n')
    done = cli("check-config", "-c", config)
    assert done.returncode == 2
    assert field in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_check_config_shows_absolute_paths(tmp_path):
    config = tmp_path / "edge.toml"
    config.write_text(f'name = "{NAME}"\nrepository = "../r"\nroot = "1.root.json"\nstate = "s"\n')
    done = cli("check-config", "-c", config)
    assert done.returncode == 0
    assert str(tmp_path / "s") in done.stdout
    assert str(tmp_path.parent / "r") in done.stdout


def test_the_shipped_configuration_is_valid():
    assert cli("check-config", "-c", "configs/edge/local.toml").returncode == 0


def test_help_explains():
    done = cli("--help")
    assert done.returncode == 0
    for command in ("serve", "status", "predict", "rollback", "pull", "replay", "check-config"):
        assert command in done.stdout
    assert "Unix socket only" in cli("rollback", "--help").stdout


IMPORT_ALL = """
import importlib, pkgutil, sys
import edge_agent
names = [m.name for m in pkgutil.walk_packages(edge_agent.__path__, "edge_agent.")]
assert len(names) > 20, names
for name in names:
    importlib.import_module(name)
banned = {"torch", "parsl", "xarray", "apps", "workflows", "configs", "onnx", "scipy", "netCDF4"}
print(sorted(banned & set(sys.modules)))
"""


def test_no_module_pulls_in_what_the_device_does_not_have():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        capture_output=True,
        text=True,
        cwd=REPOSITORY_ROOT,
    )
    assert done.stdout.strip() == "[]", done.stderr
