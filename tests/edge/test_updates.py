"""What the agent takes from a repository, and what it refuses."""

import shutil

import numpy as np
import pytest
from pydantic import ValidationError

from edge_agent.agent import EdgeAgent
from edge_agent.contracts.errors import DigestMismatch, NotReady, ReleaseError, Untrusted
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.metrics import Counters
from edge_agent.updates.fetch import Fetcher, Limits
from edge_agent.updates.store import read_stored, stored_versions
from edge_agent.updates.transport import FolderTransport

from .owner import Owner, follower
from .releases import NAME, expected_wind, make_release, model_bytes

INPUTS = np.array([[4.0, 270.0]], dtype=np.float32)


def fetcher(folder, source, *, name=NAME, max_bytes=10**8, **options):
    return Fetcher(
        source,
        folder,
        name=name,
        limits=Limits(max_bytes),
        counters=options.pop("counters", Counters()),
        **options,
    )


def source(repository, folder):
    """What a device believes of a repository, after one look."""
    found = follower(repository, folder)
    found.index(NAME)
    return found


def take(made, folder, **options):
    return fetcher(folder, source(made.repository, folder), **options).fetch(made.ref)


def test_a_release_arrives_whole_with_files_named_by_role(tmp_path):
    made = make_release(tmp_path / "repository", 1)
    fetch = fetcher(tmp_path, source(made.repository, tmp_path)).fetch
    folder = fetch(made.ref)
    assert {p.name for p in folder.iterdir()} == {
        "ref.json", "release.json", "model.onnx",
        "golden_inputs.npy", "golden_wind.npy", "golden_wind_std.npy",
    }  # fmt: skip
    assert read_stored(folder, name=NAME).release == made.release
    shutil.rmtree(made.repository)
    assert fetch(made.ref) == folder, "what is here already is not fetched again"


@pytest.mark.parametrize("which", ["manifest", "model", "golden"])
@pytest.mark.parametrize("how", ["truncated", "tampered", "longer"])
def test_bytes_that_differ_are_refused_before_anything_is_loaded(tmp_path, which, how):
    made = make_release(tmp_path / "repository", 1)
    target = {
        "manifest": made.ref.manifest,
        "model": made.release.model,
        "golden": made.release.golden.inputs,
    }[which]
    path = made.path(target)
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[:-1], "tampered": data[:-1] + b"!", "longer": data + b"!"}[how]
    )
    with pytest.raises(DigestMismatch):
        take(made, tmp_path)
    assert stored_versions(tmp_path / "releases") == []
    assert list((tmp_path / "releases").glob(".incoming*")) == []


def test_a_damaged_download_is_fetched_anew(tmp_path):
    made = make_release(tmp_path / "repository", 1)
    folder = take(made, tmp_path)
    (folder / "model.onnx").write_bytes(b"rust")
    with pytest.raises(DigestMismatch):
        read_stored(folder, name=NAME)
    read_stored(take(made, tmp_path), name=NAME)


def test_a_release_of_another_model_or_too_large_is_refused(tmp_path):
    made = make_release(tmp_path / "repository", 1)
    with pytest.raises(ReleaseError, match="this agent serves 'other'"):
        take(made, tmp_path, name="other")
    with pytest.raises(ReleaseError, match="max_release_bytes"):
        take(made, tmp_path, max_bytes=made.ref.manifest.length + 10)
    with pytest.raises(ReleaseError, match="max_release_bytes"):
        take(made, tmp_path, max_bytes=10)
    with pytest.raises(ReleaseError, match="version 1"):
        fetcher(tmp_path, source(made.repository, tmp_path)).fetch(
            ReleaseRef(version=2, manifest=made.ref.manifest)
        )


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/secret", "a//b", "./a", "a\\b"])
def test_a_path_cannot_leave_the_repository(tmp_path, path):
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(ValidationError):
        TargetFile(path=path, sha256=sha256(b"x"), length=1)
    transport = FolderTransport(tmp_path / "repository")
    with pytest.raises(Untrusted, match="leads out"), transport.open(path, seconds=1):
        pass


def refused(agent: EdgeAgent) -> list[int]:
    return [r["version"] for r in agent.status()["refused"]]


def test_a_bad_release_is_refused_once_and_a_newer_one_taken(agent, config):
    make_release(config.repository, 1)
    assert agent.pull().result(20) == 1
    make_release(config.repository, 2, golden_error=0.1)
    for _ in range(3):
        assert agent.pull().result(20) == 1
    assert refused(agent) == [2]
    assert agent.counters.releases_refused == 1
    assert "golden wind" in agent.status()["refused"][0]["reason"]
    make_release(config.repository, 3, bias=1.0)
    assert agent.pull().result(20) == 3
    np.testing.assert_allclose(agent.predict(INPUTS).wind, expected_wind(INPUTS, 1.0), atol=1e-4)


def test_a_refused_version_with_another_manifest_is_tried_again(agent, config):
    make_release(config.repository, 1, golden_error=0.1)
    assert agent.pull().result(20) is None
    make_release(config.repository, 1)
    assert agent.pull().result(20) == 1


@pytest.mark.parametrize(
    "model",
    [b"no model", model_bytes()[:-20], model_bytes(cells=12, shape=(2, 3, 2))],
    ids=["garbage", "truncated", "other-grid"],
)
def test_a_model_that_does_not_load_or_fit_is_refused(agent, config, model):
    make_release(config.repository, 1, model=model)
    assert agent.pull().result(20) is None
    assert refused(agent) == [1]
    with pytest.raises(NotReady):
        agent.predict(INPUTS)


def test_metadata_gone_or_garbage_leave_the_agent_serving(agent, config):
    make_release(config.repository, 1)
    agent.pull().result(20)
    timestamp = config.repository / "metadata" / "timestamp.json"
    whole = timestamp.read_bytes()
    before = agent.counters.source_errors
    for broken in (
        whole[:-5],
        b"",
        b'{"name": 3}',
        b"[]",
        whole.replace(b"timestamp", b"snapshot"),
    ):
        timestamp.write_bytes(broken)
        assert agent.pull().result(20) == 1
        assert agent.status()["source_trouble"]
    timestamp.unlink()
    agent.pull().result(20)
    assert agent.counters.source_errors == before + 6
    assert agent.counters.update_failures["format"] == 5
    assert agent.status()["updates"]["failures"] >= 6
    timestamp.write_bytes(whole)
    agent.pull().result(20)
    assert agent.status()["source_trouble"] is None
    assert agent.status()["updates"]["failures"] == 0
    assert agent.predict(INPUTS).version == 1


def test_an_agent_without_a_root_or_a_repository_waits_for_them(agent, config):
    agent.pull().result(20)
    assert "no trusted root yet" in agent.status()["source_trouble"]
    Owner(config.repository)
    agent.pull().result(20)
    assert agent.status()["source_trouble"] is None, "nothing published is no trouble"
    make_release(config.repository, 1)
    assert agent.pull().result(20) == 1


def test_a_missing_file_is_trouble_and_not_a_refusal(agent, config):
    made = make_release(config.repository, 1)
    path = made.path(made.release.model)
    path.rename(path.with_name("away"))
    assert agent.pull().result(20) is None
    assert refused(agent) == []
    path.with_name("away").rename(path)
    assert agent.pull().result(20) == 1


def test_old_releases_are_pruned_but_never_those_loaded(config):
    with EdgeAgent(config.model_copy(update={"keep_releases": 2})) as agent:
        for version in (1, 2, 3):
            make_release(config.repository, version)
            agent.pull().result(20)
        assert stored_versions(config.state / "releases") == [2, 3]
        agent.rollback().result(20)
        for version in (4, 5):
            make_release(config.repository, version, golden_error=1.0)
            agent.pull().result(20)
        make_release(config.repository, 6)
        agent.pull().result(20)
        assert agent.versions == [6, 2]
        assert set(stored_versions(config.state / "releases")) >= {2, 6}
