"""A campaign with everything on: a house that changes, interior sensors as inputs, two grids."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from apps.repository.reading import open_index, read_release
from apps.repository.store import FolderStore
from apps.repository.verify import verify
from edge_agent.contracts.features import SILENT
from workflows.ledger import Ledger
from workflows.tasks import pairs_of, state_of

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(400)]

EVERYTHING = """
name = "everything"
seed = 11
simulators = ["embedded", "embedded"]
[fidelity]
simulator = "embedded"
cells = [12, 8, 6]
[resources]
batch = 8
[scenarios]
screen_loss_factor = [0.7, 3.0]
torn = 0.3
[reference]
pairs = 4
most = 12
held_out = 4
frozen = true
[reference.fidelity]
simulator = "embedded"
cells = [18, 12, 9]
[frozen]
selection = 8
calibration = 16
evaluation = 16
[training]
family = "pod_gp"
first = 16
growth = 1.5
[training.readings]
[following]
every_hours = 24.0
new_days = 2.0
step = 0.03
log = "data/weather/lindcove_made_log.toml"
[replay]
record = "data/weather/lindcove_made.csv"
rate = 20.0
minimum_answers = 50
[budget]
simulations = 40
wall_seconds = 90.0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    (folder / "everything.toml").write_text(EVERYTHING)
    result = subprocess.run(
        [
            sys.executable, "workflows/campaign.py", "--plain",
            "--campaign", folder / "everything.toml", "--out", folder / "run",
        ],
        capture_output=True, text=True, timeout=360,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def summary(run):
    return json.loads((run / "summary.json").read_text())


@pytest.fixture(scope="module")
def published(run):
    path = run / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as base:
        ((name,),) = base.execute("SELECT value FROM meta WHERE key = 'campaign'")
    with closing(Ledger(path, name)) as ledger:
        return [c for c in ledger.candidates() if c.state == "published"]


def test_releases_follow_the_house(run, summary, published):
    assert len(summary["states"]) >= 2
    assert len(published) >= 2
    told = [state_of(c).screen_loss_factor for c in published]
    assert len(set(told)) >= 2, told
    assert summary["agent"]["failed"] == 0
    assert all(s["seconds"] is not None for s in summary["serving"])
    assert "The house" in (run / "report.html").read_text()


def test_the_dear_grid_corrects_and_judges(summary, published):
    sets = summary["simulations"]["by_set"]
    assert sets["reference"] >= 4
    assert pairs_of(published[-1]) >= 4
    errors = summary["correction"]["errors"]
    names = list(errors)
    assert errors[names[-1]]["rmse"] < errors[names[0]]["rmse"], errors


def test_the_last_release_knows_its_state_and_takes_sensors(run, published):
    store = FolderStore(run / "repository")
    release = read_release(store, open_index(store), published[-1].version)
    inputs = {v.name: v for v in release.inputs}
    told = state_of(published[-1])
    assert inputs["screen_loss_factor"].default == pytest.approx(told.screen_loss_factor)
    assert [v.default for n, v in inputs.items() if n.endswith("_wind_speed")] == [SILENT] * 3
    assert {v.name for v in release.outputs} >= {"distance", "innovation"}
    assert release.reading_errors is not None


def test_what_is_published_is_sound_and_scores_as_it_says(run):
    assert not verify(FolderStore(run / "repository"), None).problems
    rescored = subprocess.run(
        [sys.executable, "-m", "apps.validate", str(run / "repository")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert rescored.returncode == 0, rescored.stdout + rescored.stderr
