"""Agents with real small releases, in process and behind sockets."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.server import Server
from edge_agent.client import RemoteAgent
from edge_agent.config import AgentConfig
from edge_agent.contracts.observation import Reading
from edge_agent.settings import PromotionSettings, UpdateSettings

from .owner import first_root
from .releases import NAME

# What the agents' threads log would come between the lines of the report.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

TOKEN = "a-token-of-some-length"  # noqa: S105 - of a test
REPOSITORY_ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return once the condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def wind(time_: str, speed: float = 5.0, direction: float = 270.0) -> list[Reading]:
    """One instant of the mast."""
    return [
        Reading(time_, "mast", "wind_speed", speed, "m s-1"),
        Reading(time_, "mast", "wind_from_direction", direction, "degree"),
    ]


@contextmanager
def listening(agent: EdgeAgent) -> Iterator[Server]:
    """A server for a started agent, on a thread of its own."""
    server = Server(agent)
    server.listen()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)


class Process:
    """`python -m edge_agent serve` in a folder, with ``edge.toml`` and ``state/``."""

    promotion = "shadow_predictions = 0\n"

    def __init__(self, folder: Path, *, failpoint: str = "") -> None:
        self.folder = folder
        self.config = folder / "edge.toml"
        self.config.write_text(
            f'name = "{NAME}"\nrepository = "repository"\n'
            'root = "repository/metadata/1.root.json"\nstate = "state"\npoll_seconds = 0.02\n'
            "[updates]\nretry_seconds = 0.02\nretry_max_seconds = 0.1\n"
            f"[promotion]\n{self.promotion}"
        )
        self.client = RemoteAgent(f"unix:{folder / 'state' / 'agent.sock'}")
        with (folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "serve", "--config", str(self.config)],
                cwd=REPOSITORY_ROOT,
                env={**os.environ, "RBF_FAILPOINT": failpoint},
                stdout=log,
                stderr=log,
            )

    @property
    def address(self) -> dict:
        return msgspec.json.decode((self.folder / "state" / "address.json").read_bytes())

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(20)
        self.client.close()
        return status


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(
        name=NAME,
        repository=tmp_path / "repository",
        root=first_root(tmp_path / "repository"),
        state=tmp_path / "state",
        poll_seconds=3600,  # tests say when: agent.pull()
        updates=UpdateSettings(retry_seconds=3600, retry_max_seconds=3600),
        promotion=PromotionSettings(shadow_predictions=0),
    )


@pytest.fixture
def agent(config: AgentConfig) -> Iterator[EdgeAgent]:
    with EdgeAgent(config) as agent:
        yield agent


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start agent processes in the test's folder; those left are killed."""
    started: list[Process] = []

    def start(failpoint: str = "") -> Process:
        started.append(Process(tmp_path, failpoint=failpoint))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        process.wait()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (folder / "token").write_text(TOKEN + "\n")
    return folder


@pytest.fixture
def served(agent):
    """The agent with both listeners: agent, HTTP client, Unix socket client, HTTP host:port."""
    with listening(agent) as server, ExitStack() as stack:
        tcp = stack.enter_context(RemoteAgent(server.http))
        unix = stack.enter_context(RemoteAgent(f"unix:{agent.config.socket_path}"))
        yield agent, tcp, unix, server.http.removeprefix("http://")
