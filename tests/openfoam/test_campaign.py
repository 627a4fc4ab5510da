"""A campaign with both solvers: the correction is worth its runs."""

import json
import subprocess
import sys

import pytest

from apps.simulators.foam.environment import missing

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(bool(missing()), reason="OpenFOAM is missing: apt install openfoam"),
]

TWO = """
name = "two"
seed = 7
simulators = ["embedded", "openfoam"]
[fidelity]
cells = [32, 20, 8]
[resources]
batch = 8
[scenarios]
wind_speed = [3.0, 12.0]
[reference]
pairs = 4
held_out = 3
[reference.fidelity]
simulator = "openfoam"
cells = [30, 24, 10]
[frozen]
selection = 4
calibration = 4
evaluation = 16
[training]
first = 8
[replay]
rate = 50.0
minimum_answers = 50
[budget]
simulations = 48
wall_seconds = 90.0
"""


def test_the_correction_lowers_the_error_against_held_out_runs(tmp_path):
    (tmp_path / "two.toml").write_text(TWO)
    result = subprocess.run(
        [
            sys.executable, "workflows/campaign.py",
            "--campaign", str(tmp_path / "two.toml"), "--out", str(tmp_path / "run"),
        ],
        capture_output=True, text=True, timeout=220,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    correction = summary["correction"]
    assert (correction["pairs"], correction["held_out"]) == (4, 3)
    errors = correction["errors"]
    assert errors["embedded, corrected"]["rmse"] < errors["embedded"]["rmse"]
    released = [name for name in errors if name.startswith("release")]
    assert errors[released[0]]["rmse"] < errors["embedded"]["rmse"]
    assert correction["seconds"]["openfoam"] > correction["seconds"]["embedded"]
    assert "Two simulators" in (tmp_path / "run" / "report.html").read_text()
    rescored = subprocess.run(
        [sys.executable, "-m", "apps.validate", str(tmp_path / "run" / "repository")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert rescored.returncode == 0, rescored.stdout + rescored.stderr
