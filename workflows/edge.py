"""The campaign's edge agent and the replay that feeds it, as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog

from apps.repository.keys import ROOT
from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import AgentUnreachable, RbfError
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import write_bytes
from workflows.config import to_toml_value
from workflows.errors import AgentError
from workflows.layout import RunFolder

log = structlog.get_logger()

START_SECONDS = 30.0
STOP_SECONDS = 10.0
#: How long a reading may wait for its batch, s: steering wants them soon.
BATCH_SECONDS = 0.5


class EdgeProcess:
    """An edge agent that serves the campaign's repository.

    It is started detached and survives a campaign that is killed; the resumed campaign finds it by
    its socket and goes on with it, so that it never stops answering.
    """

    def __init__(self, folder: RunFolder, site: Site) -> None:
        self._folder = folder
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.client = RemoteAgent(f"unix:{folder.socket}")

    @property
    def config(self) -> Path:
        """The agent's configuration file."""
        return self._folder.agent / "edge.toml"

    def ensure(self) -> None:
        """Start the agent, or find the one that runs; start it again if it has died.

        Raises
        ------
        AgentError
            If it does not answer within `START_SECONDS`.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is None and self.pid() is not None:
            return
        if self._process is not None:
            self.restarts += 1
        self._start()

    def pid(self) -> int | None:
        """Return the process id of the agent that answers, or none."""
        try:
            return int(self.client.status()["pid"])
        except RbfError:
            return None

    def stop(self) -> None:
        """Ask the agent to end, wait, and insist if it does not."""
        pid = self.pid() if self._process is None else self._process.pid
        if pid is None:
            return
        _terminate(pid, self._process)
        self._process = None

    def _start(self) -> None:
        folder = self._folder
        folder.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.agent.mkdir(parents=True, exist_ok=True)
        # What setting up a device means: it gets the root once, and not from what it follows.
        root = folder.agent / "root.json"
        if not root.exists():
            write_bytes(root, (folder.keys / ROOT).read_bytes())
        self.config.write_text(
            f"name = {to_toml_value(self._site.name)}\n"
            f"repository = {to_toml_value(str(folder.repository))}\n"
            f"root = {to_toml_value(str(root))}\n"
            f"state = {to_toml_value(str(folder.agent / 'state'))}\n"
            f"unix_socket = {to_toml_value(str(folder.socket))}\n"
            "port = 0\n"
            "poll_seconds = 0.2\n"
            "[updates]\n"
            "retry_seconds = 0.2\n"
            "retry_max_seconds = 0.5\n"
            # A demonstration's releases come every few seconds.
            "[promotion]\n"
            "shadow_predictions = 20\n"
            "shadow_seconds = 5.0\n"
            "soak_seconds = 10.0\n"
            "[upstream]\n"
            f"folder = {to_toml_value(str(folder.inbox))}\n"
            f"batch_seconds = {BATCH_SECONDS}\n",
            encoding="utf-8",
        )
        output_file = folder.agent / "agent.log"
        command = [sys.executable, "-m", "edge_agent", "serve", "--config", str(self.config)]
        with output_file.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = self._process
        answered = wait_until(
            lambda: process.poll() is not None or self.pid() == process.pid, START_SECONDS
        )
        if process.poll() is not None or not answered:
            tail = output_file.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            msg = f"the edge agent does not start; {output_file} ends with: {tail[0]}"
            raise AgentError(msg, log=str(output_file))


class RemoteEdge:
    """An edge agent that is there without the campaign, such as one behind Globus Compute.

    Parameters
    ----------
    address : str
        `RemoteAgent`'s.
    site : Site
        What it must serve.
    """

    restarts = 0

    def __init__(self, address: str, site: Site) -> None:
        self.client = RemoteAgent(address)
        self._site = site
        self._looked = False

    def ensure(self) -> None:
        """Look once whether it can be asked; one that is only away now may come back.

        Raises
        ------
        AgentError
            If it never will, or serves another site.
        """
        if self._looked:
            return
        self._looked = True
        try:
            site = self.client.status()["site"]
        except AgentUnreachable as error:
            log.warning("the edge agent does not answer now", error=str(error))
            return
        except RbfError as error:
            msg = f"the edge agent at {self.client.address} cannot be used: {error}"
            raise AgentError(msg, address=self.client.address) from error
        if site != self._site.name:
            msg = f"the edge agent at {self.client.address} serves {site}, not {self._site.name}"
            raise AgentError(msg, address=self.client.address)

    def stop(self) -> None:
        """Leave it alone."""
        self.client.close()


class ReplayProcess:
    """The weather record, fed to the agent faster than real time."""

    def __init__(self, folder: RunFolder, agent: EdgeProcess, record: Path, rate: float) -> None:
        self._folder = folder
        self._agent = agent
        self._record = record
        self._rate = rate
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, start_at: str | None) -> None:
        """Start feeding, from a data time on when resuming."""
        command = [
            sys.executable, "-m", "edge_agent", "replay",
            "--config", str(self._agent.config),
            "--record", str(self._record),
            "--rate", str(self._rate),
            "--log", str(self._folder.replay_log),
            "--with-parent",
        ]  # fmt: skip
        if start_at is not None:
            command += ["--start-at", start_at]
        with (self._folder.agent / "replay.err").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def stop(self) -> None:
        """End the replay; it flushes its log."""
        if self._process is not None:
            _terminate(self._process.pid, self._process)
            self._process = None


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Return whether a condition comes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def _terminate(pid: int, child: subprocess.Popen[bytes] | None) -> None:
    try:
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    if child is not None:
        child.wait()
