"""What systemd and the auditor see: heartbeats, the record of changes and commands."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import NoSuchRelease, ProtocolError
from edge_agent.journal import Journal
from edge_agent.watchdog import Watchdog

from .conftest import REPOSITORY_ROOT, listening
from .releases import NAME, make_release


@pytest.fixture
def manager(tmp_path):
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_without_systemd_nothing_happens():
    watchdog = Watchdog({})
    assert watchdog.interval is None
    watchdog.ready()
    watchdog.alive()


def test_another_process_is_watched(manager):
    address = manager.getsockname()
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    others = Watchdog(environment)
    assert others.interval is None
    others.close()
    ours = Watchdog(environment | {"WATCHDOG_PID": str(os.getpid())})
    assert ours.interval == 1.0
    ours.ready()
    assert manager.recv(100) == b"READY=1"
    ours.close()
    ours.alive()


def test_a_manager_that_is_gone_or_full_stops_nothing(manager, tmp_path):
    watchdog = Watchdog({"NOTIFY_SOCKET": manager.getsockname()})
    for _ in range(2000):
        watchdog.alive()
    (tmp_path / "notify").unlink()
    watchdog.alive()
    watchdog.close()


def until_silent(sock):
    """Take messages until none has come for the socket's timeout; endless if they go on."""
    with suppress(TimeoutError):
        while sock.recv(100):
            pass


def test_the_heartbeat_comes_from_the_loop(manager, tmp_path):
    config = tmp_path / "edge.toml"
    config.write_text(f'name = "{NAME}"\nrepository = "r"\nroot = "q"\nstate = "state"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "serve", "-c", str(config)],
        cwd=REPOSITORY_ROOT,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "300000",
        },
    )
    try:
        assert manager.recv(100) == b"READY=1"
        assert [manager.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4
        process.send_signal(19)  # SIGSTOP: a loop that stands still
        time.sleep(0.2)
        manager.settimeout(0.5)
        until_silent(manager)
        process.send_signal(18)
        manager.settimeout(20)
        assert manager.recv(100) == b"WATCHDOG=1"
        process.terminate()
        while (message := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_the_unit_file_is_accepted():
    unit = REPOSITORY_ROOT / "configs" / "edge" / "edge-agent.service"
    text = unit.read_text()
    for line in ("Type=notify", "WatchdogSec=", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in text


def events(config):
    lines = (config.state / "journal.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def test_every_command_is_on_record_with_who_asked_and_what_came_of_it(agent, config):
    make_release(config.repository, 1)
    with listening(agent) as server:
        with RemoteAgent(f"unix:{config.socket_path}") as unix:
            unix.pull()
            with pytest.raises(NoSuchRelease):
                unix.rollback()
        with RemoteAgent(server.http) as tcp, pytest.raises(ProtocolError):
            tcp.rollback()
    agent.pull().result(20)
    found = [e for e in events(config) if e["event"] == "command"]
    me = f"uid {os.getuid()}, pid {os.getpid()}"
    assert [(e["command"], e["by"], e["active"]) for e in found] == [
        ("pull", me, 1), ("rollback", me, 1), ("pull", "in-process", 1)
    ]  # fmt: skip
    assert [e["outcome"] for e in found][::2] == ["done", "done"]
    assert found[1]["outcome"].startswith("NoSuchRelease: ")


def test_the_record_is_rotated_and_its_swaps_are_still_known(config):
    small = config.model_copy(update={"journal_bytes": 8192})
    with EdgeAgent(small) as agent:
        for version in range(1, 31):
            make_release(config.repository, version)
            agent.pull().result(20)
    assert (config.state / "journal.1.jsonl").exists()
    with EdgeAgent(small) as agent:
        versions = [s.version for s in agent.swaps if s.reason == "release"]
        assert versions == list(range(1, 31))


def test_old_records_are_bounded(tmp_path):
    journal = Journal(tmp_path, max_bytes=100)
    for number in range(50):
        journal.event("test", number=number)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    assert sum(f.stat().st_size for f in files) < 5 * 150
    assert b'"number":49' in (tmp_path / "journal.jsonl").read_bytes()
