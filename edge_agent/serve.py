"""The agent as a process: `python -m edge_agent serve`."""

from __future__ import annotations

import asyncio
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

log = structlog.get_logger(__name__)

ADDRESS = "address.json"


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
    asyncio.run(_run(config))


async def _run(config: AgentConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    path = config.socket_path
    agent = EdgeAgent(config)
    # What outlives a request is put out of the collector's sight: a full collection costs several
    # milliseconds, and would come in the middle of some answer.
    agent.after_swap = gc.freeze
    with contextlib.ExitStack() as closing:
        agent.start()
        closing.callback(agent.close)
        field = FieldServices(agent)
        closing.callback(field.close)
        field.start()
        server = Server(agent)
        await server.start()
        address = Address(
            pid=os.getpid(),
            http=server.http,
            unix_socket=f"unix:{path}",
            started_at=agent.started_at,
        )
        file = config.state / ADDRESS
        storage.write_bytes(file, canonical_json(address.model_dump()))
        gc.collect()
        gc.freeze()
        log.info("listening", http=server.http, unix_socket=str(path), model=config.name)
        await stop.wait()
        log.info("stopping")
        file.unlink(missing_ok=True)
        await server.stop()
