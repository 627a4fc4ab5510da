import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.candidates import MODEL, read_candidate
from apps.errors import DatasetError, TrainingError
from apps.surrogates.blas import blas_threads
from apps.train import TrainTask, train
from edge_agent.contracts.model import sha256

SCRIPT = "import sys; from apps.train import *; train(TrainTask.model_validate_json(sys.argv[1]))"


@pytest.fixture
def task(run, tmp_path):
    first = read_candidate(Path(run.tasks[1].candidate))
    return TrainTask(
        site=run.site,
        digests=first.simulations,
        store=str(run.root / "simulations"),
        candidates=str(tmp_path / "candidates"),
    )


def test_a_candidate_says_what_it_is(run, task):
    result = train(task)
    candidate = read_candidate(task_folder(task))
    assert result.candidate == task.digest() == candidate.digest
    assert result.simulations == 12
    assert candidate.training.size == 12
    assert candidate.model_sha256 == sha256((task_folder(task) / MODEL).read_bytes())
    assert candidate.chosen["mirrors"] == 4
    assert candidate.inputs[0].minimum < candidate.inputs[0].maximum
    assert candidate.environment["numpy"] == np.__version__
    assert candidate.site == run.site


def task_folder(task):
    return Path(task.candidates) / task.digest()


def test_the_same_task_is_the_same_bytes_elsewhere_and_is_not_done_twice(run, task):
    result = train(task)
    assert train(task) == result
    same = (run.root / "candidates" / task.digest() / MODEL).read_bytes()
    assert (task_folder(task) / MODEL).read_bytes() == same


def test_the_digest_depends_on_all_but_paths_and_order(task):
    def digest(**update):
        return task.model_copy(update=update).digest()

    assert digest(candidates="/else", store="/else", digests=task.digests[::-1]) == task.digest()
    others = [
        digest(seed=1),
        digest(threads=2),
        digest(settings={"members": 4}),
        digest(digests=task.digests[1:]),
        digest(site=task.site.model_copy(update={"title": "another"})),
    ]
    assert len({task.digest(), *others}) == 6
    assert digest(settings={"members": 8}) == task.digest()


def test_killed_before_the_rename_it_starts_again(task):
    env = os.environ | {"RBF_FAILPOINT": "train.partial"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, task.model_dump_json()], env=env)
    assert done.returncode == -signal.SIGKILL
    assert not task_folder(task).exists()
    assert train(task).candidate == task.digest()
    read_candidate(task_folder(task))


def test_what_is_wrong_is_said(task):
    few = task.model_copy(update={"digests": task.digests[:5]})
    with pytest.raises(TrainingError, match="5 training runs; at least 8"):
        train(few)
    with pytest.raises(DatasetError):
        train(task.model_copy(update={"digests": (*task.digests, "0" * 64)}))
    with pytest.raises(TrainingError, match="train it again"):
        read_candidate(task_folder(task))


def test_blas_threads_are_put_back():
    from apps.surrogates.blas import _switch

    get, _ = _switch()
    if get is None:
        pytest.skip("numpy's linear algebra is not a bundled OpenBLAS")
    before = get()
    with blas_threads(1) as switched:
        assert switched
        assert get() == 1
    assert get() == before
