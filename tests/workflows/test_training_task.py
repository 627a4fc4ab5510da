"""What the campaign file says about training reaches the task."""

from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError

from apps.scenarios import Scenario
from apps.surrogates.base import AUTO
from apps.train import TrainTask
from apps.transport import SERVING, Serving
from edge_agent.contracts.storage import write_bytes
from workflows.config import Campaign, Training
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.tasks import simulation_name, training_task

RELEASE = "a" * 64


def task_of(tmp_path, training: Training) -> TrainTask:
    campaign = Campaign(name="t", training=training)
    site = campaign.load_site(Path("t.toml"))
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        for role, speed in (("training", 3.0), ("selection", 4.0), ("evaluation", 5.0)):
            scenario = Scenario(wind_speed=speed, wind_from_direction=10.0)
            digest = simulation_name(campaign, site, scenario, role)
            ledger.plan(role, [(0, digest, scenario)], None)
            ledger.finish(digest, 1.0)
        ledger.add_candidate({"digests": []})
        folder = tmp_path / "candidates" / RELEASE
        serving = Serving(candidate=RELEASE, model_sha256="b" * 64, model_length=1)
        write_bytes(folder / SERVING, serving.model_dump_json().encode())
        ledger.update_candidate(1, "published", folder=str(folder), version=1)
        return training_task(campaign, site, RunFolder(tmp_path), ledger)


def test_one_family_needs_no_selection_set_and_regression_keeps_the_basis(tmp_path):
    task = task_of(tmp_path, Training())
    assert task.family == "pod_regression"
    assert len(task.digests) == 1
    assert task.selection == ()
    assert task.previous == RELEASE
    assert task.keep_basis


def test_auto_is_every_family_with_the_selection_set_and_the_release_to_start_from(tmp_path):
    training = Training(family="auto", settings={"pod_network": {"steps": 7}}, latency_limit_ms=2)
    task = task_of(tmp_path, training)
    assert task.family == AUTO
    assert task.settings == {"pod_network": {"steps": 7}}
    assert len(task.selection) == 1
    assert task.selection != task.digests
    assert task.latency_limit_ms == 2
    assert task.previous == RELEASE
    assert task.served == "b" * 64
    again = TrainTask.model_validate_json(task.model_dump_json())
    assert again.digest() == task.digest(), "it is read back from the ledger"


def test_one_network_has_its_own_settings_and_can_be_told_to_start_cold(tmp_path):
    one = {"family": "pod_network", "settings": {"pod_network": {"steps": 7}}}
    task = task_of(tmp_path, Training(**one, warm_start=False))
    assert task.settings == {"steps": 7}
    assert task.previous is None


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"family": "crystal_ball"}, "one of pod_regression"),
        ({"family": ["pod_network", "pod_network"]}, "different ones"),
        ({"family": []}, "different ones"),
        ({"settings": {"pod_network": {}}}, "not among the families"),
        ({"settings": {"pod_regression": {"membres": 2}}}, "membres"),
    ],
)
def test_what_cannot_be_is_said(training, message):
    with pytest.raises(ValidationError, match=message):
        Training.model_validate(training)
