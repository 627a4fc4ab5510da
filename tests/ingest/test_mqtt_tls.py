"""Readings through a real Mosquitto that asks for TLS and a password."""

import asyncio
import ssl
import subprocess

import aiomqtt
import msgspec
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.config import AgentConfig
from edge_agent.field import FieldServices
from edge_agent.settings import MqttSettings
from tests.edge.owner import first_root
from tests.edge.releases import NAME
from tests.ingest.conftest import MOSQUITTO, Broker

PASSWORD = "a password of some length"  # noqa: S105 - the test's own
READING = {"time": "2016-06-01T00:00:00Z", "value": 5.0, "unit": "m s-1"}


def make_certificate(folder, name):
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout", folder / f"{name}-key.pem", "-out", folder / f"{name}.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder / f"{name}.pem"


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    certificate = make_certificate(tmp_path, "broker")
    passwords = tmp_path / "passwords"
    for user in ("agent", "mast"):
        create = ["-c"] if not passwords.exists() else []
        subprocess.run(
            ["mosquitto_passwd", "-b", *create, passwords, user, PASSWORD],
            check=True,
            capture_output=True,
        )
    guarded = (
        f"allow_anonymous false\npassword_file {passwords}\n"
        f"certfile {certificate}\nkeyfile {tmp_path / 'broker-key.pem'}\n"
    )
    running = Broker(tmp_path, extra=guarded)
    yield running
    running.kill()


@pytest.fixture
def services(tmp_path):
    """Start an agent with these settings of the broker."""
    running = []

    def start(port, ca_file, password=PASSWORD):
        (tmp_path / "password").write_text(password + "\n")
        config = AgentConfig(
            name=NAME,
            repository=tmp_path / "repository",
            root=first_root(tmp_path / "repository"),
            state=tmp_path / "state",
            poll_seconds=3600,
            mqtt=MqttSettings(
                port=port,
                tls=True,
                ca_file=ca_file,
                username="agent",
                password_file=tmp_path / "password",
                retry_seconds=0.02,
                retry_max_seconds=0.1,
            ),
        )
        agent = EdgeAgent(config).start()
        running.append(agent)
        field = FieldServices(agent)
        field.start()
        running.append(field)
        return agent, field

    yield start
    for one in reversed(running):
        one.close()


def publish_until_kept(port, ca_file):
    async def run():
        client = aiomqtt.Client(
            "127.0.0.1",
            port,
            username="mast",
            password=PASSWORD,
            tls_context=ssl.create_default_context(cafile=ca_file),
            protocol=aiomqtt.ProtocolVersion.V5,
        )
        topic = f"rbf/{NAME}/mast/wind_speed"
        async with client:
            await client.subscribe(f"{topic}/ack", qos=1)
            async with asyncio.timeout(20):
                await client.publish(topic, msgspec.json.encode(READING), qos=1)
                message = await anext(aiter(client.messages))
        return msgspec.json.decode(message.payload)

    return asyncio.run(run())


def test_a_reading_comes_over_tls_with_a_password(broker, services, tmp_path):
    agent, field = services(broker.port, tmp_path / "broker.pem")
    assert field.mqtt.connected.wait(20)
    receipt = publish_until_kept(broker.port, tmp_path / "broker.pem")
    assert receipt["time"] == READING["time"]
    assert [r.value for r in agent.readings()] == [5.0]


# paho leaves the socket of a failed handshake to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("wrong", ["authority", "password"])
def test_who_cannot_be_trusted_is_not_spoken_to(broker, services, tmp_path, wrong):
    other = make_certificate(tmp_path, "other")
    ca_file = other if wrong == "authority" else tmp_path / "broker.pem"
    password = PASSWORD if wrong == "authority" else "a password of another length"
    agent, field = services(broker.port, ca_file, password)
    reason = "certificate" if wrong == "authority" else "not authori"
    deadline = asyncio.run(_until(lambda: reason in (field.mqtt.trouble or "").lower()))
    assert deadline, field.mqtt.trouble
    assert not field.mqtt.connected.is_set()
    assert agent.readings() == []


async def _until(condition, seconds=20.0):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False
