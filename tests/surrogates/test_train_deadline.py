"""Training in blocks that end: stopped or killed anywhere, the weights are the same bit for bit."""

from pathlib import Path

import pytest

from apps.candidates import MODEL, STATE, read_candidate
from apps.errors import OutOfTime
from apps.surrogates.base import FAMILIES
from apps.train import TrainTask, train


class Ends:
    """A block that ends after so many questions."""

    def __init__(self, questions):
        self.left = questions

    def remaining(self):
        self.left -= 1
        return 100.0 if self.left >= 0 else -1.0

    def stop_requested(self):
        return self.left < 0


@pytest.fixture
def task(run, tmp_path):
    first = read_candidate(Path(run.tasks[1].candidate))
    return TrainTask(
        site=run.site,
        digests=first.simulations,
        store=str(run.root / "simulations"),
        candidates=str(tmp_path / "candidates"),
        expected_seconds=5.0,
    )


def test_a_training_that_would_not_fit_is_not_begun(task):
    with pytest.raises(OutOfTime):
        train(task.model_copy(update={"expected_seconds": 200.0}), Ends(9))
    assert not Path(task.candidates).exists()


def test_stopped_at_every_step_and_resumed_it_is_the_same_bytes(run, task):
    whole = (run.root / "candidates" / task.digest() / MODEL).read_bytes()
    stops = 0
    while True:
        try:
            train(task, Ends(stops))
        except OutOfTime:
            stops += 1
            continue
        break
    assert stops == 3, "asked before reading, fitting and exporting"
    assert (Path(task.candidates) / task.digest() / MODEL).read_bytes() == whole


@pytest.mark.parametrize("name", [n for n, kind in FAMILIES.items() if kind.resumable])
def test_a_network_interrupted_five_times_is_the_same_bytes(task, name, tmp_path):
    """Each block is another one: only the checkpoint is left of the one before."""
    slow = task.model_copy(
        update={
            "family": name,
            "settings": {"steps": 48, "members": 2, "batch": 4},
            "expected_seconds": 3600.0,  # does not fit into any block, and need not
        }
    )
    whole = slow.model_copy(update={"candidates": str(tmp_path / "whole")})
    train(whole)
    progress = []
    for _ in range(5):
        with pytest.raises(OutOfTime) as caught:
            train(slow, Ends(8))
        progress.append(caught.value.progress)
    assert 0 < progress[0] < progress[-1] < 1
    assert list(Path(slow.candidates).iterdir()) == [_checkpoint(slow)], "no half candidate"
    train(slow)
    for file in (MODEL, STATE):
        one, other = (Path(t.candidates) / t.digest() / file for t in (slow, whole))
        assert one.read_bytes() == other.read_bytes()
    assert not _checkpoint(slow).exists()
    candidate = read_candidate(Path(slow.candidates) / slow.digest())
    assert candidate.environment["torch"]
    assert candidate.settings["steps"] == 48


def _checkpoint(task):
    return Path(task.candidates) / f".{task.digest()}.checkpoint"
