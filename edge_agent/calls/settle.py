"""What a crash left of the calls that were under way: carried out, or not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import structlog

from edge_agent.calls.contract import CHANGING, Outcome
from edge_agent.calls.journal import CallJournal
from edge_agent.clock import Clock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import SpoolError
from edge_agent.journal import ACTIVE

log = structlog.get_logger(__name__)

FILE = "calls.sqlite"


def open_journal(config: AgentConfig) -> CallJournal:
    """Open an agent's call journal; raises `SpoolError`."""
    path = config.state / FILE
    return CallJournal(path, max_bytes=config.calls_bytes, max_calls=config.calls_kept)


def standing_of(state: Path) -> bytes:
    """Return what serves, as it is on the disk; empty before the first release."""
    try:
        return (state / ACTIVE).read_bytes()
    except FileNotFoundError:
        return b""


def settle(config: AgentConfig, clock: Clock) -> None:
    """Settle the calls that an earlier process began and did not end.

    To be called with the state folder held and before anything in it changes. What serves is
    replaced whole or not at all, and between a command's beginning and its end nothing else
    changes it: if it is as it was at the beginning, the command had no effect and is begun anew
    when it is asked for again; if not, the command was carried out and gets its answer here.

    A journal that cannot be used does not keep the agent from serving; calls are refused then.
    """
    if not (config.state / FILE).exists():
        return
    try:
        journal = open_journal(config)
    except SpoolError as error:
        log.error("remote calls cannot be taken", reason=str(error))
        return
    try:
        standing = standing_of(config.state)
        for row in journal.begun():
            changed = row.command in CHANGING - {"pull"} and row.standing != standing
            if changed:
                active = msgspec.json.decode(standing)["active"]
                journal.end(row.id, Outcome(result={"active": active}), now=clock.now())
            else:
                journal.void(row.id)
            log.info("call settled", id=row.id, command=row.command, carried_out=changed)
    except (sqlite3.Error, SpoolError) as error:
        log.error("remote calls cannot be taken", reason=str(error))
    finally:
        journal.close()
