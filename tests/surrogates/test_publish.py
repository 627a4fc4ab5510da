import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.errors import PublishError, ValidationError
from apps.publish import LOCK, publish
from apps.surrogates.export import run_onnx
from apps.validate import VALIDATION, ValidateResult
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import Release
from edge_agent.contracts.repository import INDEX, Index, stored_path, target_file

SCRIPT = (
    "import sys; from apps.publish import *; publish(PublishTask.model_validate_json(sys.argv[1]))"
)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != LOCK}


def into(run, folder, version):
    return run.tasks[version].model_copy(update={"repository": str(folder)})


def test_a_release_is_whole(run):
    index = Index.model_validate_json((run.repository / INDEX).read_bytes())
    assert [r.version for r in index.releases] == [1, 2]
    ref = index.current("stable")
    assert ref.version == 2
    assert ref.manifest.path == "lindcove/2/release.json"
    data = target_file(run.repository, ref.manifest).read_bytes()
    assert sha256(data) == ref.manifest.sha256
    release = Release.model_validate_json(data)
    for target in release.files():
        content = target_file(run.repository, target).read_bytes()
        assert (sha256(content), len(content)) == (target.sha256, target.length)
        assert Path(stored_path(target)).name.startswith(target.sha256)
    assert set(release.scores["selection"].baselines) == {
        "constant_ratio",
        "nearest_simulation",
        "previous_release",
    }
    model = target_file(run.repository, release.model).read_bytes()
    inputs = np.load(target_file(run.repository, release.golden.inputs))
    low, high = (np.array([getattr(v, e) for v in release.inputs]) for e in ("minimum", "maximum"))
    assert ((low <= inputs) & (inputs <= high)).all()
    for name, got in zip(("wind", "wind_std"), run_onnx(model, inputs), strict=True):
        expected = np.load(target_file(run.repository, release.golden.outputs[name]))
        np.testing.assert_allclose(got, expected, atol=release.golden.absolute_tolerance)


def test_publishing_twice_is_publishing_once(run, tmp_path):
    first = publish(into(run, tmp_path, 1))
    before = files(tmp_path)
    assert publish(into(run, tmp_path, 1)) == first
    publish(into(run, tmp_path, 2))
    assert publish(into(run, tmp_path, 1)) == first
    assert {k: v for k, v in files(tmp_path).items() if k != INDEX}.items() >= {
        k: v for k, v in before.items() if k != INDEX
    }.items()
    assert files(tmp_path) == files(run.repository)


def test_versions_only_grow_and_keep_their_model(run, tmp_path):
    publish(into(run, tmp_path, 2))
    with pytest.raises(PublishError, match="below the newest"):
        publish(into(run, tmp_path, 1))
    other = into(run, tmp_path, 1).model_copy(update={"version": 2})
    with pytest.raises(PublishError, match="another model"):
        publish(other)


@pytest.mark.parametrize("point", ["publish.targets", "publish.manifest", "publish.index"])
def test_killed_anywhere_a_second_call_completes(run, tmp_path, point):
    publish(into(run, tmp_path, 1))
    task = into(run, tmp_path, 2)
    env = os.environ | {"RBF_FAILPOINT": point}
    done = subprocess.run([sys.executable, "-c", SCRIPT, task.model_dump_json()], env=env)
    assert done.returncode == -signal.SIGKILL
    index = Index.model_validate_json((tmp_path / INDEX).read_bytes())
    assert index.channels == {"stable": 1}
    publish(task)
    assert files(tmp_path) == files(run.repository)


def test_two_publishers_at_once(run, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        results = pool.map(publish, [into(run, tmp_path, 1)] * 6, chunksize=1)
    assert len({r.manifest.sha256 for r in results}) == 1
    index = Index.model_validate_json((tmp_path / INDEX).read_bytes())
    assert [r.version for r in index.releases] == [1]


def test_what_must_not_be_published_is_not(run, tmp_path):
    task = into(run, tmp_path / "repository", 1)
    folder = tmp_path / "candidate"
    shutil.copytree(task.candidate, folder)
    task = task.model_copy(update={"candidate": str(folder)})
    result = ValidateResult.model_validate_json((folder / VALIDATION).read_bytes())

    refused = result.verdict.model_copy(update={"accepted": False, "reasons": ("too bad",)})
    (folder / VALIDATION).write_text(
        result.model_copy(update={"verdict": refused}).model_dump_json()
    )
    with pytest.raises(PublishError, match="refused by the gate: too bad"):
        publish(task)
    (folder / VALIDATION).write_text(
        result.model_copy(update={"model_sha256": "0" * 64}).model_dump_json()
    )
    with pytest.raises(PublishError, match="of another model"):
        publish(task)
    (folder / VALIDATION).unlink()
    with pytest.raises(PublishError, match="not validated"):
        publish(task)
    (folder / VALIDATION).write_text(result.model_dump_json())
    with pytest.raises(PublishError, match="time zone"):
        publish(task.model_copy(update={"created": task.created.replace(tzinfo=None)}))
    (folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ValidationError, match="not what was trained"):
        publish(task)
    assert not (tmp_path / "repository" / INDEX).exists()


def test_a_repository_of_another_model_is_left_alone(run, tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / INDEX).write_text(Index(name="elsewhere").model_dump_json())
    with pytest.raises(PublishError, match="of model 'elsewhere'"):
        publish(into(run, tmp_path, 1))
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(PublishError, match="not a repository's index"):
        publish(into(run, tmp_path, 1))
