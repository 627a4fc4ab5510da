"""The campaign is killed with SIGKILL in every stage and goes on."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import psutil
import pytest

from apps.datasets import read_simulation
from apps.errors import PublishError
from apps.repository.reading import open_index
from apps.repository.store import FolderStore
from workflows.edge import wait_until
from workflows.layout import RunFolder

pytestmark = pytest.mark.campaign

TINY = """
name = "tiny"
seed = 7
[fidelity]
cells = [24, 16, 8]
tolerance = 0.02
[resources]
batch = 8
[frozen]
selection = 4
calibration = 4
evaluation = 16
[training]
first = 8
growth = 1.5
min_improvement = 0.0
[replay]
rate = 50.0
minimum_answers = 100
[budget]
simulations = 24
wall_seconds = 60.0
"""


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    folder = RunFolder(tmp_path / "run")
    yield folder
    pid = agent_pid(folder)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def campaign(folder, *arguments, failpoint=""):
    return subprocess.run(
        [
            sys.executable, "workflows/campaign.py",
            "--campaign", str(folder.root.parent / "tiny.toml"), "--out", str(folder.root),
            *arguments,
        ],
        env=os.environ | {"RBF_FAILPOINT": failpoint},
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip


def agent_pid(folder):
    """Return the pid of the run's agent if it lives."""
    for process in psutil.process_iter(["cmdline", "pid", "status"]):
        command = process.info["cmdline"] or []
        if str(folder.agent / "edge.toml") in command and "serve" in command:
            return process.info["pid"]
    return None


def parsl_processes(folder):
    """Return the interchange and worker pools that log into the run's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        pool = "process_worker_pool" in command and str(folder.parsl) in command
        if pool or (
            "interchange" in command and str(folder.root) in " ".join(_open_files(process))
        ):
            found.append(process)
    return found


def _open_files(process):
    try:
        return [file.path for file in process.open_files()]
    except psutil.Error:
        return []


def rows(folder, query):
    with closing(sqlite3.connect(f"file:{folder.ledger}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def finished(folder):
    return {path.name: path.stat().st_ino for path in folder.simulations.glob("*.nc")}


def published(folder):
    try:
        return open_index(FolderStore(folder.repository)).releases
    except PublishError:
        return ()  # nothing is published yet


@pytest.mark.parametrize(
    "failpoint",
    [
        "campaign.simulate.submitted:6",
        "campaign.train.submitted",
        "campaign.publish.submitted",
        "campaign.publish.returned",
    ],
)
def test_a_killed_campaign_goes_on_and_repeats_nothing(tiny, failpoint):
    killed = campaign(tiny, failpoint=failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    agent = agent_pid(tiny)
    assert agent is not None, "the agent goes on without the campaign"
    assert wait_until(lambda: not parsl_processes(tiny), 30.0), "Parsl's processes stayed"
    before, releases = finished(tiny), published(tiny)

    resumed = campaign(tiny, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert agent_pid(tiny) is None, "the agent ends with the campaign"

    after = finished(tiny)
    assert {name: after[name] for name in before} == before, "a finished simulation was repeated"
    done = rows(tiny, "SELECT digest FROM simulation WHERE state = 'done'")
    assert {f"{digest}.nc" for (digest,) in done} == set(after)
    assert rows(tiny, "SELECT count(*) FROM simulation WHERE state = 'planned'") == [(0,)]
    for name in after:
        assert read_simulation(tiny.simulations / name).digest == name.removesuffix(".nc")

    known = rows(tiny, "SELECT version FROM candidate WHERE state = 'published' ORDER BY version")
    index = published(tiny)
    assert [(r.version,) for r in index] == known
    assert len(known) >= 1
    assert index[: len(releases)] == releases, "what was published changed"
    ended = rows(tiny, "SELECT ended_at FROM candidate")
    assert None not in [at for (at,) in ended], "a candidate was left half-way"

    summary = json.loads(tiny.summary.read_text())
    assert summary["simulations"]["done"] == len(after)
    assert summary["agent"]["failed"] == 0
    assert tiny.report.stat().st_size > 10_000


def test_the_agent_that_dies_is_started_again(tiny):
    process = subprocess.Popen(
        [
            sys.executable, "workflows/campaign.py",
            "--campaign", str(tiny.root.parent / "tiny.toml"), "--out", str(tiny.root),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert wait_until(lambda: len(published(tiny)) > 0, 90.0)
    assert len(parsl_processes(tiny)) >= 2  # the test above looks for these
    first = agent_pid(tiny)
    os.kill(first, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    swaps = json.loads(tiny.summary.read_text())["swaps"]
    assert swaps[-1]["version"] == published(tiny)[-1].version


def test_sigterm_ends_everything_politely(tiny):
    process = subprocess.Popen(
        [
            sys.executable, "workflows/campaign.py",
            "--campaign", str(tiny.root.parent / "tiny.toml"), "--out", str(tiny.root),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert wait_until(lambda: bool(finished(tiny)), 90.0)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "--resume" in output
    assert agent_pid(tiny) is None
    assert not parsl_processes(tiny)
