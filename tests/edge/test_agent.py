"""The agent in process: predictions, rollback, restart, swaps under load."""

import json
import shutil
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.clock import ManualClock
from edge_agent.contracts.errors import (
    InvalidConfig,
    InvalidInput,
    InvalidReading,
    NoSuchRelease,
    NotReady,
)

from .conftest import wind
from .releases import FEATURES, expected_wind, make_release

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}


@pytest.fixture
def serving(agent, config):
    make_release(config.repository, 1)
    assert agent.pull().result(20) == 1
    return agent


def test_inputs_by_name_by_row_and_by_batch_agree(serving):
    one = serving.predict(WEST)
    assert one.wind.shape == (1, 3, 2, 3, 4)
    assert one.wind.dtype == np.float32
    np.testing.assert_allclose(one.wind, expected_wind(np.array([[4, 270]], np.float32)), atol=1e-4)
    np.testing.assert_array_equal(serving.predict([4.0, 270.0]).wind, one.wind)
    batch = serving.predict({"wind_speed": [4, 5], "wind_from_direction": [270, 90]})
    assert batch.wind.shape == (2, 3, 2, 3, 4)
    np.testing.assert_allclose(batch.wind[0], one.wind[0], rtol=1e-5)
    assert (one.version, one.interval_factor) == (1, 1.7)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ([np.nan, 270.0], "'wind_speed' of row 0 is not a finite"),
        ([[1.0, 2.0], [3.0, np.inf]], "'wind_from_direction' of row 1"),
        ([1e300, 0.0], "finite"),
        ([1.0], "expected \\(batch, 2\\)"),
        ([[[1.0, 2.0]]], "expected"),
        (np.empty((0, 2)), "expected"),
        ([[1.0, 2.0], [3.0]], "not an array"),
        (["a", "b"], "not an array"),
        (WEST | {"pressure": 1.0}, "unknown input 'pressure'"),
        ({"wind_speed": 1.0}, "'wind_from_direction' is missing"),
        (np.ones((257, 2)), "at most 256"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(serving, inputs, match):
    with pytest.raises(InvalidInput, match=match):
        serving.predict(inputs)


def test_inputs_outside_the_trained_range_are_answered_and_flagged(serving):
    rows = [[4, 270], [15.1, 0], [15, 360], [3, -1]]
    assert serving.predict(rows).out_of_range.tolist() == [False, True, False, True]


def test_before_the_first_release(agent):
    assert not agent.ready
    with pytest.raises(NotReady):
        agent.predict(WEST)
    with pytest.raises(NoSuchRelease):
        agent.rollback().result(20)


def test_predictions_from_readings_use_the_feature_map_and_know_their_age(config):
    clock = ManualClock()
    with EdgeAgent(config, clock=clock) as agent:
        make_release(config.repository, 1, data_until=datetime(2016, 6, 1, tzinfo=UTC))
        agent.pull().result(20)
        assert agent.predict(WEST).staleness_seconds is None
        readings = wind("2016-06-01T00:10:00", 5.0, 270.0)
        found = agent.predict_readings(readings)
        np.testing.assert_allclose(
            found.inputs[0],
            FEATURES.from_readings({"wind_speed": [5.0], "wind_from_direction": [270.0]}),
        )
        assert found.staleness_seconds == 600.0
        assert found.data_time == "2016-06-01T00:10:00"
        assert found.wall_time == clock.now()
        good, bad = agent.check_readings(readings)
        assert not bad
        agent.keep_readings(good)
        assert agent.predict(WEST).staleness_seconds == 600.0


def test_wind_at_the_sensors_is_interpolated(serving):
    found = serving.predict_readings(wind("2016-06-01T00:10:00"))
    corner = found.wind[0, :, 0, 0, 0]
    np.testing.assert_allclose(
        found.sensors["corner"].wind_speed, np.linalg.norm(corner), rtol=1e-5
    )
    middle = found.wind[0][:, :, 1, 1:3].mean(axis=(1, 2))
    np.testing.assert_allclose(
        found.sensors["middle"].wind_speed, np.linalg.norm(middle), rtol=1e-4
    )
    assert found.sensors["corner"].wind_speed_std > 0


def test_readings_that_cannot_be_used_are_refused(serving):
    with pytest.raises(InvalidInput, match="'wind_from_direction' of sensor 'mast' is missing"):
        serving.predict_readings(wind("2016-06-01T00:10:00")[:1])
    with pytest.raises(InvalidReading):
        serving.predict_readings(wind("yesterday"))


def test_rollback_holds_the_version_left_until_a_newer_one(agent, config):
    for version in (1, 2):
        make_release(config.repository, version, bias=float(version))
        agent.pull().result(20)
    assert agent.rollback().result(20) == 1
    assert agent.pull().result(20) == 1, "the version left stays out"
    assert agent.status()["held"] == 2
    make_release(config.repository, 3)
    assert agent.pull().result(20) == 3
    assert agent.status()["held"] is None
    assert agent.rollback().result(20) == 1
    assert [(s["version"], s["from_version"], s["reason"]) for s in agent.status()["swaps"]] == [
        (1, None, "release"), (2, 1, "release"), (1, 2, "rollback"),
        (3, 1, "release"), (1, 3, "rollback"),
    ]  # fmt: skip


def test_there_must_be_something_to_roll_back_to(serving):
    with pytest.raises(NoSuchRelease):
        serving.rollback().result(20)


def test_both_loaded_versions_can_be_asked(agent, config):
    for version in (1, 2):
        make_release(config.repository, version, bias=float(version))
        agent.pull().result(20)
    assert agent.predict(WEST).version == 2
    assert agent.predict(WEST, version=1).version == 1
    with pytest.raises(NoSuchRelease, match=r"loaded: 2, 1"):
        agent.predict(WEST, version=3)


def test_restart_serves_what_served_without_the_repository(config):
    with EdgeAgent(config) as agent:
        for version in (1, 2, 3):
            make_release(config.repository, version, bias=float(version))
            agent.pull().result(20)
        agent.rollback().result(20)
        before = agent.predict(WEST)
    shutil.rmtree(config.repository)
    with EdgeAgent(config) as agent:
        after = agent.predict(WEST)
        assert agent.versions == [2, 3]
        assert agent.status()["held"] == 3
        assert agent.status()["swaps"][-1]["reason"] == "restart"
        assert len(agent.status()["swaps"]) == 5
    np.testing.assert_array_equal(after.wind, before.wind)


def test_restart_with_a_damaged_release_serves_another(config):
    with EdgeAgent(config) as agent:
        for version in (1, 2, 3):
            make_release(config.repository, version)
            agent.pull().result(20)
    (config.state / "releases" / "3" / "model.onnx").write_bytes(b"rust")
    with EdgeAgent(config) as agent:
        assert agent.predict(WEST).version == 2
        assert agent.pull().result(20) == 3, "fetched again and verified"
    (config.state / "active.json").write_text("{")
    (config.state / "journal.jsonl").write_bytes(b'{"event": "swap", "ver')
    with EdgeAgent(config) as agent:
        assert agent.predict(WEST).version == 3, "the newest that verifies"
    lines = (config.state / "journal.jsonl").read_bytes().splitlines()
    assert json.loads(lines[-1])["reason"] == "restart"


def test_what_was_rolled_back_from_is_the_last_resort(config):
    with EdgeAgent(config) as agent:
        for version in (1, 2):
            make_release(config.repository, version)
            agent.pull().result(20)
        agent.rollback().result(20)
    shutil.rmtree(config.state / "releases" / "1")
    shutil.rmtree(config.repository)
    with EdgeAgent(config) as agent:
        assert agent.predict(WEST).version == 2


@pytest.mark.usefixtures("agent")
def test_one_agent_per_state_folder(config):
    with pytest.raises(InvalidConfig, match="held by a running agent"):
        EdgeAgent(config).start()


def test_swaps_under_load_fail_no_request_and_never_go_back(config):
    with EdgeAgent(config.model_copy(update={"poll_seconds": 0.001})) as agent:
        make_release(config.repository, 1, bias=0.01)
        agent.pull().result(20)
        stop = threading.Event()
        seen: list[list[int]] = [[], []]
        problems: list[BaseException] = []

        def hammer(versions: list[int]) -> None:
            rows = np.array([[4, 270]], np.float32)
            try:
                while not stop.is_set():
                    found = agent.predict(rows)
                    versions.append(found.version)
                    expected = expected_wind(rows, found.version / 100)
                    np.testing.assert_allclose(found.wind, expected, atol=1e-4)
            except BaseException as error:  # noqa: BLE001 - shown below
                problems.append(error)

        threads = [threading.Thread(target=hammer, args=(v,)) for v in seen]
        for thread in threads:
            thread.start()
        for version in range(2, 22):
            make_release(config.repository, version, bias=version / 100)
            assert agent.pull().result(20) == version
        stop.set()
        for thread in threads:
            thread.join()
        assert not problems
        for versions in seen:
            assert versions == sorted(versions)
            assert set(versions) <= set(range(1, 22))
        assert len(agent.status()["swaps"]) == 21
