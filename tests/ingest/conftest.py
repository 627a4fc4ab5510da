"""A real Mosquitto on a loopback port, and what speaks through it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import structlog

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


class Broker:
    """Mosquitto with a configuration of its own; killed by pid."""

    def __init__(
        self, folder: Path, port: int | None = None, extra: str = "allow_anonymous true\n"
    ) -> None:
        self.port = port or free_port()
        config = folder / f"mosquitto-{self.port}.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\n{extra}persistence false\n"
            "max_queued_messages 0\nuser root\n"
        )
        self._log = (folder / "mosquitto.log").open("ab")
        self.process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(config)], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None, (folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def brokers(tmp_path):
    """Start brokers; those left are killed."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    started = []

    def start(port=None):
        started.append(Broker(tmp_path, port))
        return started[-1]

    yield start
    for broker in started:
        if broker.process.poll() is None:
            broker.kill()
