"""Makes sure that an agent runs: finds it, waits for it, or starts it. One, however many ask."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from edge_agent.client.connections import Connections
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import AgentUnreachable, RbfError

#: Longest wait for an agent that starts, s: on a Raspberry Pi it takes a few.
START_SECONDS = 60.0
_PAUSE = 0.05


def ensure(
    config: Path, *, timeout: float = START_SECONDS, start: bool = True
) -> Literal["running", "started"]:
    """Return once the agent of a configuration answers, and say whether it had to be started.

    It is started detached, in a session of its own with its output in ``state/agent.log``, and
    outlives whoever asked. Any number of processes may ask at once: one starts it.

    Parameters
    ----------
    config : Path
        The agent's TOML file.
    timeout : float, s
    start : bool
        Whether to start it; if not, something else does (systemd) and is only waited for.

    Raises
    ------
    InvalidConfig
        If the configuration is wrong.
    AgentUnreachable
        If it does not answer in time; ``.log`` is the file that says why.
    """
    settings = AgentConfig.from_toml(config)
    connections = Connections(f"unix:{settings.socket_path}", timeout=2.0, token=None, ca_file=None)
    deadline = time.monotonic() + timeout
    if answers(connections):
        return "running"
    if not start:
        _wait(connections, deadline, None, settings.state)
        return "running"
    with _starting(settings.state, deadline):
        if answers(connections):
            return "running"
        log = settings.state / "agent.log"
        with log.open("ab") as output:
            agent = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "serve", "--config", str(config.absolute())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        _wait(connections, deadline, agent, settings.state)
    return "started"


def answers(connections: Connections) -> bool:
    """Whether an agent answers, before it serves a release too."""
    try:
        return connections.request("GET", "/v2/health/live").status == 200
    except RbfError:
        return False
    finally:
        connections.close()


def _wait(
    connections: Connections,
    deadline: float,
    agent: subprocess.Popen[bytes] | None,
    state: Path,
) -> None:
    log = state / "agent.log"
    while not answers(connections):
        ended = None if agent is None else agent.poll()
        if ended is not None:
            lines = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            msg = f"the agent does not start (status {ended}); {log} ends with: {lines[0]}"
            raise AgentUnreachable(msg, log=str(log))
        if time.monotonic() >= deadline:
            msg = f"the agent at {connections.address} does not answer; see {log}"
            raise AgentUnreachable(msg, log=str(log))
        time.sleep(_PAUSE)


@contextmanager
def _starting(state: Path, deadline: float) -> Iterator[None]:
    """Be the only one who starts the agent; raises AgentUnreachable if that does not come."""
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / "starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    msg = f"somebody else starts the agent of {state} and does not get it up"
                    raise AgentUnreachable(msg, log=str(state / "agent.log")) from error
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)
