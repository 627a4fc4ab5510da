"""The small study from end to end: the direction of every claim that the document makes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The first test waits for the whole study: four minutes on two free cores.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")

    def study():
        command = [sys.executable, "-m", "benchmarks.study", "--setting", "small"]
        command += ["--work", folder / "work", "--out", folder / "evidence.md"]
        command += ["--figures", folder / "figures", "--json", folder / "claims.json"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return folder, study(), study


@pytest.fixture(scope="module")
def claims(run):
    folder, done, _ = run
    assert done.returncode == 0, done.stderr
    return {c["name"]: c for c in json.loads((folder / "claims.json").read_text())}


@pytest.mark.parametrize(
    "name",
    [
        "releases get better",
        "enough releases",
        "ratio beaten",
        "nearest beaten",
        "releases get better, fine",
        "ratio beaten, fine",
        "nearest beaten, fine",
        "coverage, fine",
        "persistence beaten in service",
        "constant ratio beaten in service",
        "nearest simulation beaten in service",
        "frozen beaten in service",
        "delay costs, fine",
        "delay costs, own",
        "late is better than never, own",
        "sensors help, first release, frozen",
    ],
)
def test_the_direction_of(claims, name):
    assert claims[name]["holds"], claims[name]["found"]


def test_the_document_is_whole(run, claims):
    folder = run[0]
    text = (folder / "evidence.md").read_text()
    for claim in claims.values():
        assert claim["what"] in text
    for word in ("(figures/evidence_time.png)", "KTH", "refused", "core-hours", "persistence"):
        assert word in text
    assert not re.search(r"\bnan\b", text)
    assert len(list((folder / "figures").glob("*.png"))) == 4


def test_a_second_run_computes_nothing_and_writes_the_same(run, claims):  # noqa: ARG001 - after it
    folder, _, study = run
    before = (folder / "evidence.md").read_bytes()
    again = study()
    assert again.returncode == 0, again.stderr
    assert "of which solver 0 s" in again.stdout
    assert (folder / "evidence.md").read_bytes() == before
