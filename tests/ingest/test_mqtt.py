"""A real Mosquitto between sensors that repeat and an agent that keeps."""

import asyncio
import threading

import aiomqtt
import msgspec
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.config import AgentConfig
from edge_agent.contracts.observation import Reading
from edge_agent.field import FieldServices
from edge_agent.ingest.sender import Sender
from edge_agent.settings import IngestSettings, MqttSettings
from tests.edge.owner import first_root
from tests.edge.releases import NAME, make_release


def reading(n, value=5.0, quantity="wind_speed", sensor="mast"):
    unit = {"wind_speed": "m s-1", "wind_from_direction": "degree"}[quantity]
    return Reading(f"2016-06-01T00:{n // 60:02d}:{n % 60:02d}Z", sensor, quantity, value, unit)


@pytest.fixture
def field(tmp_path, brokers):
    """Start an agent with a broker; returns what makes (agent, services, broker)."""
    running = []

    def start(broker=None, *, release=False, **ingest):
        broker = broker or brokers()
        if release:
            make_release(tmp_path / "repository", 1)
        config = AgentConfig(
            name=NAME,
            repository=tmp_path / "repository",
            root=first_root(tmp_path / "repository"),
            state=tmp_path / "state",
            poll_seconds=3600,
            mqtt=MqttSettings(port=broker.port, retry_seconds=0.02),
            ingest=IngestSettings(**ingest),
        )
        agent = EdgeAgent(config).start()
        running.append(agent)
        if release:
            assert agent.pull().result(20) == 1
        services = FieldServices(agent)
        services.start()
        running.append(services)
        assert services.mqtt.connected.wait(20)
        return agent, services, broker

    yield start
    for one in reversed(running):
        one.close()


def send(port, *readings, seconds=20.0):
    """Send readings until all have an answer; return the sender's tally."""

    async def run():
        sender = Sender(NAME, "127.0.0.1", port, repeat_seconds=0.2)
        for one in readings:
            sender.offer(one)
        async with sender.running():
            assert await sender.settled(seconds)
        return sender.tally

    return asyncio.run(run())


def test_a_receipt_means_that_the_reading_is_on_the_disk(field):
    agent, _, broker = field()
    tally = send(broker.port, *(reading(n) for n in range(50)))
    assert len(tally.receipts) == 50
    assert {r.time for r in agent.readings()} == {reading(n).time for n in range(50)}


def test_a_repeat_gets_a_receipt_and_a_conflict_a_refusal(field):
    agent, _, broker = field()
    send(broker.port, reading(0, 5.0))
    assert len(send(broker.port, reading(0, 5.0)).receipts) == 1
    assert list(send(broker.port, reading(0, 6.0)).refused.values()) == ["conflicting"]
    assert [r.value for r in agent.readings()] == [5.0]
    assert (agent.counters.duplicate, agent.counters.conflicting) == (1, 1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reading(0)._replace(unit="mph"), "unit"),
        (reading(0, 200.0), "range"),
        (reading(0)._replace(quantity="mood"), "quantity"),
        (reading(0)._replace(time="2999-01-01T00:00:00Z"), "clock_skew"),
        (reading(0)._replace(time="yesterday"), "time"),
    ],
)
def test_a_bad_reading_is_refused_with_its_reason(field, bad, reason):
    agent, _, broker = field()
    assert list(send(broker.port, bad).refused.values()) == [reason]
    assert agent.counters.rejected[reason] == 1


def test_nonsense_is_counted_and_harms_nobody(field):
    agent, services, broker = field()

    async def publish():
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            for payload in (b"", b"\xff", b"[" * 4000, b'{"time": 1}', b"x" * 5000):
                await client.publish(f"rbf/{NAME}/mast/wind_speed", payload, qos=1)
            await client.publish(f"rbf/{NAME}/prediction/sensors", b"not ours", qos=1)

    asyncio.run(publish())
    send(broker.port, reading(0))
    assert agent.counters.rejected["format"] == 5
    assert services.mqtt.status()["connected"]


def test_readings_become_a_prediction_that_is_published(field):
    agent, services, broker = field(release=True)
    instant = [reading(0), reading(0, 270.0, "wind_from_direction")]

    async def run():
        sender = Sender(NAME, "127.0.0.1", broker.port, repeat_seconds=0.2)
        async with (
            aiomqtt.Client("127.0.0.1", broker.port) as listener,
            sender.running(),
            asyncio.timeout(20),
        ):
            await listener.subscribe(f"rbf/{NAME}/prediction/+")
            for one in instant:
                sender.offer(one)
            message = await anext(aiter(listener.messages))
        return msgspec.json.decode(message.payload)

    record = asyncio.run(run())
    expected = agent.predict_readings(instant)
    assert record["sensors"] == {n: s.wind_speed for n, s in expected.sensors.items()}
    assert record["degraded"] == []
    assert services.side.counts["predicted"] == 1


def test_a_missing_vane_degrades_the_prediction_and_says_so(field):
    _, services, broker = field(release=True, wait_seconds=0.05)
    told = []
    seen = threading.Event()

    def tell(record):
        told.append(record)
        if len(told) == 2:
            seen.set()

    services.side.publish = tell
    send(broker.port, reading(0), reading(0, 270.0, "wind_from_direction"))
    send(broker.port, reading(60))
    assert seen.wait(20)
    assert told[1].degraded == ("mast/wind_from_direction",)
    assert services.side.status()["degraded"] == 1


def test_a_broker_that_is_killed_costs_nothing_that_had_a_receipt(field, brokers):
    agent, services, broker = field()

    async def run():
        sender = Sender(NAME, "127.0.0.1", broker.port, repeat_seconds=0.1)
        async with sender.running(), asyncio.timeout(40):
            for n in range(100):
                sender.offer(reading(n))
            while len(sender.tally.receipts) < 20:
                await asyncio.sleep(0)
            broker.kill()
            for n in range(100, 200):
                sender.offer(reading(n))
            brokers(broker.port)
            assert await sender.settled(30)
        return sender.tally

    tally = asyncio.run(run())
    assert len(tally.receipts) == 200
    assert {r.time for r in agent.readings()} == {reading(n).time for n in range(200)}
    assert len(agent.readings()) == 200
    assert services.mqtt.connected.is_set()


def test_an_agent_starts_before_its_broker(tmp_path, brokers):
    from .conftest import free_port

    port = free_port()
    config = AgentConfig(
        name=NAME,
        repository=tmp_path / "repository",
        root=first_root(tmp_path / "repository"),
        state=tmp_path / "state",
        mqtt=MqttSettings(port=port, retry_seconds=0.02, retry_max_seconds=0.05),
    )
    with EdgeAgent(config) as agent:
        services = FieldServices(agent)
        services.start()
        brokers(port)
        assert services.mqtt.connected.wait(20)
        services.close()


def test_a_broker_beyond_loopback_wants_tls_and_a_password(tmp_path):
    with pytest.raises(ValueError, match="not loopback"):
        MqttSettings(host="broker.example.org")
    MqttSettings(host="b.example.org", tls=True, username="a", password_file=tmp_path / "p")
