"""From training to a device: what was scored and signed is what serves, bit for bit."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from apps.publish import publish
from apps.surrogates.export import run_onnx
from apps.train import read_candidate
from apps.transport import read_serving, serving_model
from apps.validate import VALIDATION, ValidateResult
from edge_agent.agent import EdgeAgent
from edge_agent.config import AgentConfig
from edge_agent.settings import PromotionSettings
from edge_agent.updates.store import read_stored

INPUTS = np.array([[4.0, 200.0]], np.float32)


@pytest.fixture
def second(run):
    return Path(run.tasks[2].candidate)


@pytest.fixture
def repository(run, tmp_path):
    """With the first release alone."""
    folder = tmp_path / "repository"
    shutil.copytree(run.repository / "metadata", folder / "metadata", ignore=_later)
    publish(run.tasks[1].model_copy(update={"repository": str(folder)}))
    return folder


def _later(_folder, names):
    return [n for n in names if not n.startswith("1.root")]


def agent(repository, state):
    return EdgeAgent(
        AgentConfig(
            name="lindcove",
            repository=repository,
            root=repository / "metadata" / "1.root.json",
            state=state,
            poll_seconds=3600.0,
            promotion=PromotionSettings(shadow_predictions=0, soak_seconds=0.001),
        )
    )


def test_what_was_scored_is_what_the_delta_makes(second):
    serving, candidate = read_serving(second), read_candidate(second)
    assert serving.delta is not None, serving.whole_because
    validation = ValidateResult.model_validate_json((second / VALIDATION).read_bytes())
    assert validation.model_sha256 == serving.model_sha256 != candidate.model_sha256
    assert serving.delta.loss < 0.02


def test_a_device_rebuilds_what_was_published(run, repository, second, tmp_path):
    with agent(repository, tmp_path / "state") as device:
        assert device.pull().result(60) == 1
        publish(run.tasks[2].model_copy(update={"repository": str(repository)}))
        before = device.counters.bytes_downloaded
        assert device.pull().result(60) == 2
        assert (device.counters.models_rebuilt, device.counters.deltas_failed) == (1, 0)
        model = serving_model(second)
        assert device.counters.bytes_downloaded - before < len(model) / 2
        stored = read_stored(tmp_path / "state" / "releases" / "2", name="lindcove")
        assert stored.files["model.onnx"] == model
        wind = device.predict(INPUTS).wind
    np.testing.assert_allclose(wind, run_onnx(model, INPUTS)[0], atol=1e-4)


def test_a_device_that_missed_a_release_takes_the_full_file(run, repository, second, tmp_path):
    publish(run.tasks[2].model_copy(update={"repository": str(repository)}))
    with agent(repository, tmp_path / "state") as device:
        assert device.pull().result(60) == 2
        assert device.counters.models_rebuilt == 0
    stored = read_stored(tmp_path / "state" / "releases" / "2", name="lindcove")
    assert stored.files["model.onnx"] == serving_model(second)
