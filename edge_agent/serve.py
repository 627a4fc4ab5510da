"""The agent as a process: `python -m edge_agent serve`."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.server import Server
from edge_agent.config import AgentConfig
from edge_agent.contracts import storage
from edge_agent.contracts.model import Contract, canonical_json
from edge_agent.field import FieldServices
from edge_agent.scheduling import SHORTEST_SLICE, ask_for_slice, awake
from edge_agent.watchdog import Watchdog

log = structlog.get_logger(__name__)

ADDRESS = "address.json"
SWITCH_SECONDS = 5e-4


class Address(Contract):
    """``state/address.json``: where a running agent listens."""

    pid: int
    """Process id."""
    http: str
    """``http://HOST:PORT``."""
    unix_socket: str
    """``unix:PATH``."""
    started_at: float
    """s since the Unix epoch."""


def configure_logging() -> None:
    """Log to stderr: coloured lines on a terminal, else one JSON object a line."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def run(config: AgentConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    InvalidConfig
        If the state folder, the port or the socket path cannot be used.
    SpoolError
        If the spool cannot be opened.
    """
    path = config.socket_path
    servers: list[Server] = []
    asked: list[int] = []

    def stop(number: int, _frame: object) -> None:
        asked.append(number)
        for server in servers:
            server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    watchdog = Watchdog()
    # A thread that wants the interpreter waits this long before it asks for it: at the default of
    # 5 ms a request would wait so long for the thread that loads a release.
    sys.setswitchinterval(SWITCH_SECONDS)
    # Threads started from here on inherit it.
    ask_for_slice(SHORTEST_SLICE)
    with contextlib.ExitStack() as closing:
        closing.callback(watchdog.close)
        if config.wake_latency_us is not None:
            closing.enter_context(awake(config.wake_latency_us))
        agent = EdgeAgent(config)
        agent.start()
        closing.callback(agent.close)
        field = FieldServices(agent)
        closing.callback(field.close)
        field.start()
        server = Server(agent, watchdog)
        server.listen()
        address = Address(
            pid=os.getpid(),
            http=server.http,
            unix_socket=f"unix:{path}",
            started_at=agent.started_at,
        )
        file = config.state / ADDRESS
        storage.write_bytes(file, canonical_json(address.model_dump()))
        # What outlives every request is put out of the collector's sight: a full collection costs
        # several milliseconds, and would come in the middle of some answer.
        gc.collect()
        gc.freeze()
        log.info("listening", http=server.http, unix_socket=str(path), model=config.name)
        watchdog.ready()
        servers.append(server)
        if asked:  # while it started
            server.stop()
        server.run()
        watchdog.stopping()
        log.info("stopping")
        file.unlink(missing_ok=True)
