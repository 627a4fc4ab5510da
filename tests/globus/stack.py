"""Everything between a caller and the device: broker, stand-in, lines, endpoint, agent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from edge_agent.calls.contract import Outcome
from edge_agent.calls.journal import CallJournal, CallRow
from edge_agent.client import RemoteAgent
from tests.edge.releases import NAME, make_release
from workflows.edge import wait_until

from .proxy import Line
from .rabbit import Rabbit
from .standin import PORT, StandIn

ROOT = Path(__file__).resolve().parents[2]
ENDPOINT = "bbbbbbbb-0000-4000-8000-000000000001"
NAMED = "rbf"
CREDENTIALS = {
    # Official settings of globus-sdk and globus-compute-sdk.
    "GLOBUS_SDK_ENVIRONMENT": "local",
    "GLOBUS_SDK_SERVICE_URL_AUTH": "http://localhost:5000/",
    "GLOBUS_COMPUTE_CLIENT_ID": "00000000-0000-4000-8000-00000000c11e",
    "GLOBUS_COMPUTE_CLIENT_SECRET": "loopback-test-secret",
}
READY_SECONDS = 60.0


class Device:
    """The edge device: its agent's files, and its endpoint with a supervisor like systemd's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "edge.toml"
        self.state = folder / "state"
        self.repository = folder / "repository"
        folder.mkdir()
        self.configure_agent(self.repository, NAME)
        self.environment = (
            os.environ
            | CREDENTIALS
            | {
                "GLOBUS_COMPUTE_USER_DIR": str(folder / "globus"),
                "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def configure_agent(self, repository: Path, name: str) -> None:
        self.config.write_text(
            f'name = "{name}"\nrepository = "{repository}"\nstate = "{self.state}"\n'
            f'root = "{repository}/metadata/1.root.json"\npoll_seconds = 0.5\n'
            "[promotion]\nshadow_predictions = 0\n"
        )

    @contextmanager
    def serving(self, repository: Path, name: str, state: Path) -> Iterator[None]:
        """Another model from another repository; the next call starts the agent that serves it."""
        before = self.config.read_text(), self.state
        self.kill_agent()
        self.state = state
        self.configure_agent(repository, name)
        try:
            yield
        finally:
            self.kill_agent()
            text, self.state = before
            self.config.write_text(text)

    @property
    def socket(self) -> str:
        return f"unix:{self.state / 'agent.sock'}"

    def configure_endpoint(self) -> None:
        """As docs/globus.md says, with this folder's paths."""
        files = ROOT / "configs" / "endpoint"
        environment = self.folder / "user_environment.yaml"
        environment.write_text(
            f"PATH: {self.environment['PATH']}\n"
            f"PYTHONPATH: {ROOT}\n"
            f"RBF_EDGE_CONFIG: {self.config}\n"
        )
        self.run(
            "globus-compute-endpoint", "configure", NAMED,
            "--core-config", files / "config.yaml",
            "--template-config", files / "user_config_template.yaml.j2",
            "--schema-config", files / "user_config_schema.json",
            "--user-env-config", environment,
        )  # fmt: skip

    def register(self, *arguments: str) -> str:
        return self.run("edge-agent", "globus", "register", "--endpoint", NAMED, *arguments)

    def run(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Have the endpoint run, and started again whenever it ends."""
        self._wanted.set()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the endpoint, and leave it so."""
        self._wanted.clear()
        process = self._process
        if process is not None and process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            process.wait(60)
            psutil.wait_procs(children, 30)

    def signal(self, number: int) -> None:
        """Send a signal to the core endpoint; its supervisor starts another if it ends."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)

    def logs(self) -> list[str]:
        """Of the core endpoint and its user endpoints."""
        return [p.read_text() for p in sorted((self.folder / "globus").glob("*/endpoint.log"))]

    def agent_pid(self) -> int | None:
        with RemoteAgent(self.socket) as agent:
            try:
                return int(agent.status()["pid"])
            except Exception:  # noqa: BLE001 - it is not there
                return None

    def kill_agent(self) -> None:
        pid = self.agent_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 20)

    def start_agent(self, failpoint: str = "") -> None:
        """As a person would, with a point at which it is to die."""
        with (self.folder / "agent.txt").open("ab") as output:
            subprocess.Popen(
                ["edge-agent", "serve", "--config", str(self.config)],
                env=self.environment | {"RBF_FAILPOINT": failpoint},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        with RemoteAgent(self.socket) as agent:
            agent.wait_serving(1, READY_SECONDS)

    def agents(self) -> list[psutil.Process]:
        """The agents that run."""
        wanted = ["serve", "--config", str(self.config)]
        found = psutil.process_iter(["cmdline", "status"])
        return [p for p in found if (p.info["cmdline"] or [])[-3:] == wanted]

    def starts(self) -> int:
        """How often an agent was started for a call."""
        log = self.state / "agent.log"
        return log.read_text().count('"listening"') if log.exists() else 0

    def calls(self) -> list[CallRow]:
        """The agent's own record of calls."""
        journal = CallJournal(self.state / "calls.sqlite", max_bytes=2**30, max_calls=10**9)
        try:
            return journal.rows()
        finally:
            journal.close()

    def swaps(self) -> list[dict[str, Any]]:
        with RemoteAgent(self.socket) as agent:
            return agent.status()["swaps"]

    def close(self) -> None:
        self.stop()
        self._closed.set()
        self._supervisor.join()
        self.kill_agent()

    def _supervise(self) -> None:
        while not self._closed.wait(0.1):
            if not self._wanted.is_set():
                continue
            if self._process is not None and self._process.poll() is not None:
                time.sleep(1.0)  # RestartSec
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "endpoint.txt").open("ab") as output:
                    self._process = subprocess.Popen(
                        [
                            "globus-compute-endpoint", "start", NAMED,
                            "--endpoint-uuid", ENDPOINT,
                        ],
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )  # fmt: skip


class Stack:
    """The whole of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.rabbit = Rabbit(folder / "rabbit")
        self.rabbit.start()
        self.endpoint_line = Line(self.rabbit.port)
        self.client_line = Line(self.rabbit.port)
        self.web = StandIn(
            self.rabbit.url(),
            endpoint_broker=self.rabbit.url(self.endpoint_line.port),
            client_broker=self.rabbit.url(self.client_line.port),
        )
        self.device = Device(folder / "device")

    def prepare(self, release: Callable[[Path], object] = lambda r: make_release(r, 1)) -> None:
        """A first release in the device's repository, and the endpoint set up and running."""
        release(self.device.repository)
        self.device.configure_endpoint()
        self.device.register()
        self.device.start()
        self.wait_online()
        with self.agent() as agent:
            agent.wait_serving(1, READY_SECONDS)

    def wait_online(self) -> None:
        found = wait_until(
            lambda: (
                ENDPOINT in self.web.store.endpoints and self.web.store.endpoints[ENDPOINT].online
            ),
            READY_SECONDS,
        )
        assert found, "\n".join(text[-5000:] for text in self.device.logs())

    def agent(self, **options: Any) -> RemoteAgent:
        return RemoteAgent(f"globus:{ENDPOINT}", **options)

    def close(self) -> None:
        self.device.close()
        self.web.close()
        self.endpoint_line.close()
        self.client_line.close()
        self.rabbit.close()


def missing() -> str | None:
    """Why there can be no stack here, or None."""
    if not Path("/usr/sbin/rabbitmq-server").exists():
        return "no RabbitMQ (Debian: rabbitmq-server)"
    if shutil.which("globus-compute-endpoint", path=str(Path(sys.executable).parent)) is None:
        return "no Globus Compute endpoint (pip install 'reverse-backfill[globus]')"
    if os.geteuid() == 0:
        return "an endpoint run by root serves many users: make test-globus becomes an ordinary one"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", PORT))
        except OSError:
            return f"port {PORT}, where the SDK looks for a local service, is taken"
    return None


def once(rows: list[CallRow], request_id: str) -> Outcome:
    """Return a call's outcome; it must have been carried out to its end exactly once."""
    found = [row for row in rows if row.id == request_id]
    assert len(found) == 1
    assert found[0].state == "ended"
    assert found[0].executions == 1
    assert found[0].outcome is not None
    return found[0].outcome
