import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = Path("configs/campaigns/quick.toml").read_text()


def campaign(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "workflows/campaign.py", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (QUICK + "\n[telescope]\naperture = 1\n", "telescope"),
        (QUICK + "\n[scenarios]\nwind_speed = [-1.0, 5.0]\n", "scenarios.wind_speed"),
        (QUICK.replace('site = "lindcove"', 'site = "atlantis"'), "site"),
        (QUICK.replace("rate = 100.0", 'rate = 100.0\nrecord = "none.csv"'), "replay.record"),
        (QUICK.replace("evaluation = 16", "evaluation = 3"), "frozen.evaluation"),
        (QUICK.replace('machine = "local"', 'machine = "abacus"'), "machine"),
        (QUICK.replace("[budget]", "[budget"), "TOML"),
    ],
    ids=["unknown-key", "negative-speed", "missing-site", "record", "size", "machine", "toml"],
)
def test_a_broken_campaign_exits_2_with_one_line_that_names_the_field(tmp_path, text, field):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    result = campaign("--campaign", path, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert field in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "ledger.sqlite").exists()


def test_resume_needs_a_campaign_and_a_campaign_needs_resume(tmp_path):
    arguments = ("--campaign", "configs/campaigns/quick.toml", "--out", tmp_path)
    result = campaign(*arguments, "--resume")
    assert (result.returncode, "holds no campaign" in result.stderr) == (2, True)
    (tmp_path / "ledger.sqlite").touch()
    result = campaign(*arguments)
    assert (result.returncode, "--resume" in result.stderr) == (2, True)


def test_a_missing_file_is_named(tmp_path):
    result = campaign("--campaign", tmp_path / "none.toml")
    assert result.returncode == 2
    assert "none.toml" in result.stderr


def test_help_explains_itself():
    result = campaign("--help", env=os.environ | {"COLUMNS": "120", "TERM": "dumb"})
    assert result.returncode == 0
    for word in ("--campaign", "--out", "--resume", "--machine", "Exit status"):
        assert word in result.stdout
