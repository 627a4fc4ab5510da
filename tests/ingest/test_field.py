"""The services of an agent without a broker: push, status, metrics, monitors, delivery."""

import msgspec
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.client import RemoteAgent
from edge_agent.clock import ManualClock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import InvalidMonitors
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.observation import Reading
from edge_agent.field import FieldServices
from edge_agent.settings import MonitorSettings, UpstreamSettings
from tests.edge.conftest import listening, wait_until
from tests.edge.owner import first_root
from tests.edge.releases import INSIDE, NAME, STATE, make_release
from workflows.observations import ObservationStore, take_folder

INSTANT = [
    Reading("2016-06-01T00:00:00", "mast", "wind_speed", 5.0, "m s-1"),
    Reading("2016-06-01T00:00:00", "mast", "wind_from_direction", 270.0, "degree"),
]


@pytest.fixture
def services(tmp_path):
    make_release(tmp_path / "repository", 1)
    config = AgentConfig(
        name=NAME,
        repository=tmp_path / "repository",
        root=first_root(tmp_path / "repository"),
        state=tmp_path / "state",
        poll_seconds=3600,
        upstream=UpstreamSettings(folder=tmp_path / "inbox", batch_seconds=0.05),
    )
    with EdgeAgent(config) as agent:
        assert agent.pull().result(20) == 1
        services = FieldServices(agent)
        services.start()
        yield agent, services
        services.close()


def test_a_push_is_answered_by_a_receipt_and_predicted_from(services):
    agent, field = services
    bad = INSTANT[0]._replace(unit="mph")
    with listening(agent) as server, RemoteAgent(server.http) as client:
        body = {"readings": [r._asdict() for r in [*INSTANT, bad]]}
        reply = client.request("POST", "/rbf/v1/push", msgspec.json.encode(body))
        assert reply.status == 200
        told = reply.json()
        assert (told["kept"], told["new"], told["rejected"][0]["reason"]) == (2, 2, "unit")
        assert len(agent.readings()) == 2
        wait_until(lambda: field.side.counts["predicted"] == 1)
        assert client.status()["ingest"]["predicted"] == 1
        assert {"ingest", "monitors", "upstream"} <= client.status().keys()


def test_readings_and_predictions_arrive_upstream(services, tmp_path):
    agent, _ = services
    with listening(agent) as server, RemoteAgent(server.http) as client:
        client.post_readings(INSTANT)
        with ObservationStore(tmp_path / "o.sqlite") as store:

            def arrived():
                take_folder(store, tmp_path / "inbox")
                return store.counts()["readings"] == 2 and store.counts()["predictions"] == 1

            wait_until(arrived)
            assert [r for _, r in store.readings()] == INSTANT


def test_gauges_can_be_read(services):
    agent, _ = services
    values = {name: read() for name, (_, read) in agent.gauges.items()}
    assert values["alarms_standing"] == 0
    assert values["spool_uncut_readings"] == 0


def test_monitors_that_cannot_be_read_stop_the_start(tmp_path):
    config = AgentConfig(
        name=NAME,
        repository=tmp_path,
        root=first_root(tmp_path),
        state=tmp_path / "state",
        monitors=MonitorSettings(calibration=tmp_path / "missing.json"),
    )
    with EdgeAgent(config) as agent, pytest.raises(InvalidMonitors, match="missing"):
        FieldServices(agent)


@pytest.fixture
def house(tmp_path):
    """A release with interior sensors; the agent, its services and the clock, on this thread."""
    make_release(tmp_path / "repository", 1, state=STATE, inside=INSIDE, limits={"innovation": 3.0})
    config = AgentConfig(
        name=NAME,
        repository=tmp_path / "repository",
        root=first_root(tmp_path / "repository"),
        state=tmp_path / "state",
        poll_seconds=3600,
    )
    clock = ManualClock()
    with EdgeAgent(config, clock=clock) as agent:
        assert agent.pull().result(20) == 1
        yield agent, FieldServices(agent), clock


def inside(**speeds):
    return [INSTANT[0]._replace(sensor=name, value=value) for name, value in speeds.items()]


def at(minute, readings):
    return [r._replace(time=f"2016-06-01T00:{minute:02}:00") for r in readings]


def test_interior_sensors_are_used_where_they_are_there_and_named_where_they_are_not(house):
    agent, services, clock = house
    records = []
    services.side.publish = records.append
    served = agent.counters.answered

    def push(*readings):
        good, bad = agent.check_readings(readings)
        assert not bad
        agent.observe(good, None)
        services.side.look()
        return len(records)

    assert push(*inside(middle=0.5, corner=0.75)) == 0, "alone they ask for nothing"
    assert push(*INSTANT) == 1
    assert push(*at(10, INSTANT), *at(10, inside(corner=2.0))) == 1
    clock.advance(6.0)
    assert push() == 2
    clock.advance(594.0)
    push(INSTANT[0]._replace(time="2016-06-01T00:20:00"), *at(20, inside(middle=3.0, corner=2.0)))
    clock.advance(6.0)
    assert push() == 3
    assert agent.counters.answered == served + 3
    whole, silent, stood_in = records
    assert [r.degraded for r in records] == [
        (), ("middle/wind_speed silent",), ("mast/wind_from_direction",)
    ]  # fmt: skip
    assert [r.stand_ins for r in records] == [(), (), ("mast/wind_from_direction",)]
    assert whole.inputs[4:] == (0.5, 0.75)
    assert silent.inputs[4:] == (SILENT, 2.0)
    assert [r.out_of_range for r in records] == [False, False, True]
    counts = services.side.status()
    assert (counts["predicted"], counts["degraded"], counts["silent"]) == (3, 1, 1)
    # What monitors compare with the readings has not seen them.
    assert whole.sensors == silent.sensors == stood_in.sensors
    assert whole.inputs[:2] == silent.inputs[:2] == stood_in.inputs[:2]


def test_a_prediction_that_was_asked_for_names_its_silent_sensors_too(house):
    agent, services, _ = house
    kept = []
    services.side._keep = kept.append
    readings = [*INSTANT, *inside(corner=0.5)]
    good, _ = agent.check_readings(readings)
    agent.observe(good, agent.predict_checked(good))
    services.side.look()
    assert [r.degraded for r in kept] == [("middle/wind_speed silent",)]
