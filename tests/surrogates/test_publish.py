import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.errors import PublishError, RepositoryDamaged, SigningError, ValidationError
from apps.publish import GOLDEN_STEP, GOLDEN_TOLERANCE, publish, stored
from apps.repository import roots
from apps.repository.keys import new_passphrase
from apps.repository.reading import open_index
from apps.repository.store import FolderStore
from apps.surrogates.export import run_onnx
from apps.validate import VALIDATION, ValidateResult
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import Release
from edge_agent.contracts.repository import Index, stored_path, target_file

SCRIPT = (
    "import sys; from apps.publish import *; publish(PublishTask.model_validate_json(sys.argv[1]))"
)


def targets(folder: Path) -> set[str]:
    return {name for name in FolderStore(folder).names("targets") if "index.json" not in name}


def published(folder: Path) -> Index:
    return open_index(FolderStore(folder))


def into(run, folder, version):
    roots.init(
        FolderStore(folder), run.root / "keys", [run.root / "root-keys"], passphrase=new_passphrase
    )
    return run.tasks[version].model_copy(update={"repository": str(folder)})


def test_a_release_is_whole(run):
    index = published(run.repository)
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
        assert expected.dtype == np.int16
        expected = expected * release.golden.step
        np.testing.assert_allclose(got, expected, atol=release.golden.absolute_tolerance)


def test_golden_outputs_of_a_storm_have_room():
    for value, kind in ((15.9, np.int16), (16.1, np.int32), (-400.0, np.int32)):
        units = stored(np.full((1, 3), value, np.float32))
        assert units.dtype == kind
        assert np.abs(units * GOLDEN_STEP - value).max() <= GOLDEN_TOLERANCE / 4


def test_publishing_twice_is_publishing_once(run, tmp_path):
    first = publish(into(run, tmp_path, 1))
    before = FolderStore(tmp_path).names("metadata")
    again = publish(into(run, tmp_path, 1))
    assert again.published_at is None, "it was there already"
    assert again == first.model_copy(update={"published_at": None})
    assert FolderStore(tmp_path).names("metadata") == before
    publish(into(run, tmp_path, 2))
    again = publish(into(run, tmp_path, 1))
    assert again.published_at is None, "it was there already"
    assert again == first.model_copy(update={"published_at": None})
    assert targets(tmp_path) == targets(run.repository)
    assert published(tmp_path) == published(run.repository)


def test_versions_only_grow_and_keep_their_model(run, tmp_path):
    publish(into(run, tmp_path, 2))
    with pytest.raises(PublishError, match="below the newest"):
        publish(into(run, tmp_path, 1))
    other = into(run, tmp_path, 1).model_copy(update={"version": 2})
    with pytest.raises(PublishError, match="another model"):
        publish(other)


@pytest.mark.parametrize(
    ("point", "present"),
    [
        # Six files, lineage, manifest, index, targets metadata, snapshot.
        *((f"store.write:{k}", 1) for k in range(1, 12)),
        ("store.write:12", 2),  # the timestamp is still missing: it is the second call's to write
        ("repository.clean", 2),
    ],
)
def test_killed_anywhere_a_second_call_completes(run, tmp_path, point, present):
    publish(into(run, tmp_path, 1))
    task = into(run, tmp_path, 2)
    env = os.environ | {"RBF_FAILPOINT": point}
    done = subprocess.run([sys.executable, "-c", SCRIPT, task.model_dump_json()], env=env)
    assert done.returncode == -signal.SIGKILL
    assert published(tmp_path).channels == {"stable": present}
    publish(task)
    assert targets(tmp_path) == targets(run.repository)
    assert published(tmp_path) == published(run.repository)
    assert not list(tmp_path.rglob("*.partial"))


def test_two_publishers_at_once(run, tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        results = pool.map(publish, [into(run, tmp_path, 1)] * 6, chunksize=1)
    assert len({r.manifest.sha256 for r in results}) == 1
    assert [r.version for r in published(tmp_path).releases] == [1]


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
    assert targets(tmp_path / "repository") == set()


def test_a_repository_that_its_keys_did_not_make_is_left_alone(run, tmp_path):
    with pytest.raises(RepositoryDamaged, match="rbf-repo init"):
        publish(run.tasks[1].model_copy(update={"repository": str(tmp_path / "none")}))
    roots.init(FolderStore(tmp_path / "r"), tmp_path / "k", [tmp_path / "o"], passphrase=str)
    with pytest.raises(RepositoryDamaged, match="another repository"):
        publish(run.tasks[1].model_copy(update={"repository": str(tmp_path / "r")}))
    with pytest.raises(SigningError, match="no keyring"):
        publish(run.tasks[1].model_copy(update={"keys": str(tmp_path / "none")}))
