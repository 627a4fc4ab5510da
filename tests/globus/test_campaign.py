"""A campaign here, an agent behind the endpoint: each release is told, fetched and served."""

import json
import os
import subprocess
import sys
import time

import pytest

from edge_agent.client import RemoteAgent

from .stack import CREDENTIALS, ENDPOINT, ROOT

#: Bounded by simulations alone: a busy machine makes as many releases.
BUDGET = "[budget]\nsimulations = 140\nwall_seconds = 400.0\n"


@pytest.fixture
def field(stack, tmp_path):
    """The device follows the campaign's repository; afterwards its own again."""
    out = tmp_path / "run"
    with stack.device.serving(out / "repository", "lindcove", tmp_path / "edge"):
        yield out


@pytest.mark.timeout(480)
def test_three_releases_reach_the_device(stack, field):
    quick = (ROOT / "configs" / "campaigns" / "quick.toml").read_text()
    file = field.parent / "campaign.toml"
    file.write_text(quick[: quick.index("[budget]")] + BUDGET)
    command = [
        sys.executable, "workflows/campaign.py", "--plain",
        "--campaign", file, "--out", field,
        "--edge", f"globus:{ENDPOINT}",
    ]  # fmt: skip
    environment = (
        os.environ
        | CREDENTIALS
        | {
            "GLOBUS_COMPUTE_USER_DIR": str(field.parent / "client"),
            "PYTHONPATH": str(ROOT),
        }
    )
    began = time.time()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=450, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    summary = json.loads((field / "summary.json").read_text())
    serving = summary["serving"]
    versions = [row["version"] for row in serving]
    assert versions == [release["version"] for release in summary["releases"]]
    assert len(versions) >= 3
    assert all(row["reason"] == "" for row in serving)
    assert all(0 <= row["seconds"] <= row["seen_seconds"] for row in serving)
    with RemoteAgent(stack.device.socket) as agent:
        swaps = [s for s in agent.status()["swaps"] if s["reason"] == "release"]
    assert [s["version"] for s in swaps] == versions
    assert all(s["swapped_at"] > began for s in swaps)
    # Told through the endpoint: a call for each, carried out once.
    pulls = [row for row in stack.device.calls() if row.command == "pull"]
    assert [(row.state, row.executions) for row in pulls] == [("ended", 1)] * len(versions)
    report = (field / "report.html").read_text()
    assert "From publish to serving" in report
    for row in serving:
        assert f"<td>{row['seconds']:.2f}</td><td>{row['seen_seconds']:.2f}</td>" in report
