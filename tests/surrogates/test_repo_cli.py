"""rbf-repo, from a validated candidate to what devices are offered."""

import json

import pytest
from typer.testing import CliRunner

from apps.repository import cli
from edge_agent.contracts.repository import Index
from edge_agent.contracts.rollout import cohort, offered


@pytest.fixture
def rbf(tmp_path):
    def call(*arguments, code=0):
        command = [*map(str, arguments), "-r", str(tmp_path / "repository")]
        if arguments[0] not in ("show", "verify"):
            command += ["-k", str(tmp_path / "keys")]
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == code, result.output
        return result.output

    call("init", "--root-keys", tmp_path / "stick", "--make-passphrase")
    return call


def test_from_candidate_to_devices(rbf, run):
    first, second = (run.tasks[v].candidate for v in (1, 2))
    assert "version 1 is published" in rbf("publish", first)
    assert "version 1 is published" in rbf("publish", first), "a repeated call changes nothing"
    assert "version 2 is published" in rbf("publish", second, "--channel", "candidate")
    rbf("rollout", 2, "--percent", 30)
    rbf("pin", "north", 1)

    def gets(device):
        index = Index.model_validate(json.loads(rbf("show", "--json"))["index"])
        return offered(index, device=device, channel="stable").version

    early = next(d for d in map(str, range(100)) if cohort(d, 2) < 30)
    late = next(d for d in map(str, range(100)) if cohort(d, 2) >= 30)
    assert (gets(early), gets(late), gets("north")) == (2, 1, 1)
    rbf("promote", 2)
    assert (gets(late), gets("north")) == (2, 1)
    rbf("pin", "north")
    assert gets("north") == 2
    rbf("withdraw", 2, "--reason", "too warm")
    assert gets(early) == 1
    assert "WITHDRAWN: too warm" in rbf("show")
    rbf("verify")
    assert "version 2 is withdrawn" in rbf("promote", 2, code=2)
    assert "is not published" in rbf("rollout", 9, "--percent", 5, code=2)


def test_the_lineage_of_a_release_goes_down_to_its_simulations(rbf, run):
    rbf("publish", run.tasks[2].candidate)
    text = rbf("show", 1)
    for word in ("signed by", "code ", "environment", "embedded", "m/s from", "selection"):
        assert word in text
    found = json.loads(rbf("show", 1, "--json"))
    sets = found["lineage"]["sets"]
    assert {use: len(members) for use, members in sets.items()} == {
        "training": 30, "selection": 16, "calibration": 16, "evaluation": 16,
    }  # fmt: skip
    assert set(found["lineage"]["simulations"]) == {d for s in sets.values() for d in s}
    assert found["release"]["provenance"]["signed_by"]


def test_what_is_wrong_has_its_exit_status(rbf, run, tmp_path):
    rbf("publish", tmp_path / "none", code=2)
    rbf("publish", run.tasks[1].candidate)
    path = tmp_path / "repository" / "metadata" / "timestamp.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    rbf("refresh", code=5)
    rbf("verify", code=1)
    path.write_bytes(whole)
    (tmp_path / "keys" / "passphrase").write_text("wrong")
    assert "passphrase is wrong" in rbf("refresh", code=4)
