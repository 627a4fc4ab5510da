"""What the functions registered with Globus Compute do on the device.

They speak to the agent over its socket and have it started if it is not there. Requests and answers
are JSON values; errors of ours are answers, so that they arrive as they are.

The endpoint's environment says where the agent is: ``RBF_EDGE_CONFIG`` is its TOML file
(``/etc/rbf/edge.toml`` if not set); with ``RBF_EDGE_START=0`` it is waited for and never started,
because something else does that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.calls.contract import VERSION, Outcome, failure_of
from edge_agent.client.connections import Connections
from edge_agent.client.http import HttpTransport
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import (
    AgentUnreachable,
    InvalidInput,
    PayloadTooLarge,
    RbfError,
)

CONFIG = Path("/etc/rbf/edge.toml")
#: Longest wait for one answer of the agent, s: loading a release takes seconds on a small device.
ANSWER_SECONDS = 60.0
#: How long an agent that dies under a call is brought back and asked again, s.
KEEP_ASKING_SECONDS = 120.0
#: Largest result that the service carries, bytes: 10 MiB, less what is put round it.
RESULT_BYTES = 10 * 2**20 - 64 * 2**10

Answer = dict[str, Any]
_encode = msgspec.json.Encoder().encode


def predict(request: Answer) -> Answer:
    """Predict: ``arguments`` are inputs, columns and version."""
    return _call("predict", request)


def pull(request: Answer) -> Answer:
    """Make the agent look for a release now."""
    return _call("pull", request)


def promote(request: Answer) -> Answer:
    """Let a release serve: ``arguments`` may name its version."""
    return _call("promote", request)


def rollback(request: Answer) -> Answer:
    """Return to the previous release."""
    return _call("rollback", request)


def status(request: Answer) -> Answer:
    """Return the agent's status."""
    return _asked(request, lambda agent: Outcome(result=agent.status()))


def releases(request: Answer) -> Answer:
    """Return the releases on the device."""
    return _asked(request, lambda agent: Outcome(result=agent.releases()))


def result(request: Answer) -> Answer:
    """Return the outcome of an earlier call; ``{"state": "begun"}`` while it is under way."""

    def found(agent: HttpTransport) -> Outcome:
        outcome = agent.found(str(request.get("id")))
        return Outcome(result={"state": "begun"}) if outcome is None else outcome

    return _asked(request, found)


#: Name to function: what is registered, and what an endpoint's allow-list holds.
FUNCTIONS: dict[str, Callable[[Answer], Answer]] = {
    f.__name__: f for f in (predict, status, releases, pull, promote, rollback, result)
}


def registered_name(name: str) -> str:
    """Return the name under which a function is registered; it holds the version."""
    return f"rbf_{name}_v{VERSION}"


def source(name: str) -> str:
    """Return the source text that is registered for a function: it imports this module."""
    return (
        f"def {registered_name(name)}(request):\n"
        "    from edge_agent import remote\n"
        f"    return remote.{name}(request)\n"
    )


def _call(command: str, request: Answer) -> Answer:
    # Whatever breaks in between, asking again with the same identifier is safe.
    def outcome(agent: HttpTransport) -> Outcome:
        arguments = request.get("arguments")
        return agent.outcome(command, arguments or {}, str(request.get("id")))

    return _asked(request, outcome)


def _asked(request: Answer, ask: Callable[[HttpTransport], Outcome]) -> Answer:
    try:
        if not isinstance(request, dict) or request.get("format") != VERSION:
            msg = f"this device speaks version {VERSION} of remote calls; update the caller or it"
            raise InvalidInput(msg, name="format")
        outcome = _insist(ask)
    except RbfError as error:
        outcome = Outcome(failure=failure_of(error))
    size = len(_encode(outcome))
    if size > RESULT_BYTES:
        msg = f"the answer has {size} bytes, Globus Compute carries {RESULT_BYTES}"
        large = PayloadTooLarge(msg, size=size, limit=RESULT_BYTES)
        outcome = Outcome(failure=failure_of(large))
    answer: Answer = msgspec.to_builtins(outcome)
    return answer


def _insist(ask: Callable[[HttpTransport], Outcome]) -> Outcome:
    config = Path(os.environ.get("RBF_EDGE_CONFIG", CONFIG))
    address = f"unix:{AgentConfig.from_toml(config).socket_path}"
    connections = Connections(address, timeout=ANSWER_SECONDS, token=None, ca_file=None)
    agent = HttpTransport(connections)
    deadline = time.monotonic() + KEEP_ASKING_SECONDS
    try:
        while True:
            try:
                return ask(agent)
            except AgentUnreachable:
                if time.monotonic() >= deadline:
                    raise
            _ensure(config)
    finally:
        agent.close()


def _ensure(config: Path) -> None:
    """Have the agent started by a process of its own: it must not be a child of the endpoint."""
    command = [sys.executable, "-m", "edge_agent", "ensure", "--config", str(config)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        msg = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise AgentUnreachable(f"no agent on the device: {msg[0]}", config=str(config))
