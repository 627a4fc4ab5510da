import json
import shutil
import subprocess
import sys

import pytest

from apps.repository.reading import open_index
from apps.repository.store import FolderStore
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import Release
from edge_agent.contracts.repository import target_file


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "apps.validate", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def manifest(repository, version):
    index = open_index(FolderStore(repository))
    return target_file(repository, index.releases[version - 1].manifest)


@pytest.fixture
def copy(run, tmp_path):
    for name in ("repository", "simulations", "ensembles", "candidates"):
        shutil.copytree(run.root / name, tmp_path / name)
    return tmp_path


def test_the_scores_of_a_release_can_be_recomputed(run):
    done = call(manifest(run.repository, 2), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["agrees"]
    assert report["version"] == 2
    assert "evaluation rmse of previous_release" in report["scores"]
    assert report["scores"]["evaluation rmse"]["recomputed"] > 0


def test_a_repository_folder_gives_its_newest(run):
    done = call(run.repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lindcove version 2\n")
    assert done.stdout.rstrip().endswith("agrees")


def test_embellished_scores_are_found(copy):
    path = manifest(copy / "repository", 1)
    release = Release.model_validate_json(path.read_bytes())
    better = release.scores["evaluation"].model_copy(update={"rmse": 0.001})
    text = release.model_copy(update={"scores": release.scores | {"evaluation": better}})
    data = text.model_dump_json(indent=1).encode()
    # Even under a name that fits, as somebody with access to the folder would do it.
    forged = path.with_name(f"{sha256(data)}.release.json")
    forged.write_bytes(data)
    done = call(forged)
    assert done.returncode == 1
    assert "evaluation rmse" in next(x for x in done.stdout.splitlines() if "DIFFERS" in x)

    path.write_bytes(data)
    done = call(path)
    assert done.returncode == 1
    assert "is altered" in done.stderr


def test_a_tampered_model_is_found(copy):
    path = manifest(copy / "repository", 1)
    release = Release.model_validate_json(path.read_bytes())
    model = target_file(copy / "repository", release.model)
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    done = call(path)
    assert done.returncode == 1
    assert "is altered" in done.stderr


def test_missing_files_are_named(copy, tmp_path):
    path = manifest(copy / "repository", 1)
    gone = next((copy / "simulations").glob("*.nc"))
    shutil.rmtree(copy / "simulations")
    (copy / "simulations").mkdir()
    done = call(path)
    assert done.returncode == 2
    assert str(gone.parent) in done.stderr
    assert call(tmp_path / "nothing.release.json").returncode == 2
    assert call(copy / "repository", "--version", 7).returncode == 2
    shutil.rmtree(copy / "candidates")
    assert "--site" in call(path).stderr
