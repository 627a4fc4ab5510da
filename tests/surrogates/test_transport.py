"""What serves is what devices rebuild; a delta that is not worth it is left out, and says why."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from apps.candidates import CANDIDATE, MODEL, read_candidate
from apps.errors import ValidationError
from apps.surrogates.export import canonical_bytes
from apps.transport import (
    DELTA,
    SERVING,
    SERVING_MODEL,
    Base,
    DeltaSettings,
    Shown,
    read_serving,
    serving_delta,
    serving_model,
    settle,
)
from edge_agent.contracts.delta import apply
from edge_agent.contracts.model import sha256

GOOD = DeltaSettings(max_loss=1.0)


def retrained(folder: Path, to: Path, by: float, **changes) -> Path:
    """A candidate whose weights differ a little from another's, as a warm start leaves them."""
    shutil.copytree(folder, to)
    model = onnx.load(to / MODEL)
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size > 100:
            value = value * (1 + by * rng.standard_normal(value.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    data = canonical_bytes(model)
    (to / MODEL).write_bytes(data)
    known = json.loads((to / CANDIDATE).read_text()) | {"model_sha256": sha256(data)} | changes
    (to / CANDIDATE).write_text(json.dumps(known))
    (to / SERVING).unlink()
    return to


@pytest.fixture
def pair(run, tmp_path):
    """The candidate of release 2, and one trained on from there."""
    first = tmp_path / "first"
    shutil.copytree(run.tasks[2].candidate, first)
    return first, retrained(first, tmp_path / "second", 0.02)


def close(folder, wrong=0.0, std=1.0):
    """RMSE and deviation that differ from those of the trained model by so much."""

    def show(model):
        rounded = sha256(model) != read_candidate(folder).model_sha256
        return Shown(1.0 + wrong * rounded, np.array([std if rounded else 1.0]))

    return show


def test_the_first_release_goes_whole(run):
    record = read_serving(Path(run.tasks[1].candidate))
    assert (record.delta, record.since_full) == (None, 0)
    assert record.whole_because == "it is the first release"
    assert record.model_sha256 == read_candidate(Path(run.tasks[1].candidate)).model_sha256


def test_what_serves_is_what_the_delta_makes(pair):
    first, second = pair
    record, model = settle(second, Base(folder=str(first), version=2), GOOD, close(second))
    base = serving_model(first)
    assert apply(base, serving_delta(second)) == model == serving_model(second)
    assert record == read_serving(second)
    assert record.model_sha256 == sha256(model) != read_candidate(second).model_sha256
    assert (record.delta.base_version, record.delta.base_sha256) == (2, sha256(base))
    assert (record.delta.bits, record.since_full) == (4, read_serving(first).since_full + 1)
    assert record.delta.length == (second / DELTA).stat().st_size < record.model_length / 8


def test_differences_are_taken_to_what_devices_have(pair, tmp_path):
    first, second = pair
    settle(second, Base(folder=str(first), version=2), GOOD, close(second))
    third = retrained(second, tmp_path / "third", 0.01)
    settle(third, Base(folder=str(second), version=3), GOOD, close(third))
    assert apply((second / SERVING_MODEL).read_bytes(), serving_delta(third)) == (
        serving_model(third)
    )
    assert read_serving(third).since_full == read_serving(first).since_full + 2


def test_one_release_of_so_many_is_a_full_file(pair):
    first, second = pair
    settings = GOOD.model_copy(update={"full_every": 1})
    record, model = settle(second, Base(folder=str(first), version=2), settings, close(second))
    assert record.whole_because == "one release of 1 is a full file"
    assert model == (second / MODEL).read_bytes() == serving_model(second)
    assert serving_delta(second) is None


@pytest.mark.parametrize(
    ("settings", "wrong", "std", "reason"),
    [
        ({"worth": 0.01}, 0.0, 1.0, "4 bits the delta has"),
        ({"worth": 1.0}, 0.03, 1.0, "8 bits rounding adds 3.0%"),
        ({"worth": 1.0}, 0.0, 0.8, "standard deviation by 20.0%"),
    ],
)
def test_a_delta_that_is_not_worth_it_is_left_out(pair, settings, wrong, std, reason):
    first, second = pair
    settings = DeltaSettings(**settings)
    record, model = settle(
        second, Base(folder=str(first), version=2), settings, close(second, wrong, std)
    )
    assert reason in record.whole_because
    assert model == (second / MODEL).read_bytes()


def test_bits_are_added_until_rounding_costs_little(pair):
    first, second = pair
    std = np.ones(3)
    # As trained, then with 4, 5, 6 and 7 bits.
    answers = [Shown(1.0, std), Shown(1.5, std), None, Shown(1.0, 1.2 * std), Shown(1.005, std)]

    def show(_model):
        return answers.pop(0)

    record, _ = settle(second, Base(folder=str(first), version=2), DeltaSettings(), show)
    assert record.delta.bits == 7


def test_another_family_goes_whole(pair, tmp_path):
    first, second = pair
    (second / SERVING).write_text("{}")
    other = retrained(second, tmp_path / "other", 0.02, family="fno")
    record, _ = settle(other, Base(folder=str(first), version=2), GOOD, close(other))
    assert record.whole_because == "the release before is of another family, pod_regression"


def test_a_prediction_that_is_not_finite_is_left_to_the_gate(pair):
    first, second = pair
    record, _ = settle(second, Base(folder=str(first), version=2), GOOD, lambda _: None)
    assert record.whole_because == "a prediction is not finite"


@pytest.mark.parametrize("name", [MODEL, SERVING_MODEL, DELTA, SERVING])
def test_altered_files_are_refused(pair, name):
    first, second = pair
    settle(second, Base(folder=str(first), version=2), GOOD, close(second))
    (second / name).write_bytes((second / name).read_bytes()[:-9])

    def use():
        serving_delta(second)
        serving_model(second)
        settle(second, Base(folder=str(first), version=2), GOOD, close(second))

    with pytest.raises(ValidationError, match=name):
        use()


def test_killed_in_between_a_second_call_writes_the_same(pair):
    first, second = pair
    code = (
        "import sys; from pathlib import Path;"
        "import numpy as np; from apps.transport import Base, DeltaSettings, Shown, settle;"
        "settle(Path(sys.argv[1]), Base(folder=sys.argv[2], version=2),"
        " DeltaSettings(max_loss=1.0), lambda _: Shown(1.0, np.ones(1)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(second), str(first)],
        env=os.environ | {"RBF_FAILPOINT": "transport.files"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert not (second / SERVING).exists()
    half = (second / DELTA).read_bytes()
    settle(second, Base(folder=str(first), version=2), GOOD, lambda _: Shown(1.0, np.ones(1)))
    assert serving_delta(second) == half
