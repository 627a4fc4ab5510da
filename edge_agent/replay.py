"""`python -m edge_agent replay`: plays a record to an agent as its readings.

Over HTTP (`Replay`) or through a broker (`MqttReplay`), which repeats each reading until it has the
agent's receipt. Open loop: instants are sent on a schedule, whether or not the agent keeps up; when
late, at once. Each request becomes one line of the log, measured from here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import msgspec

from edge_agent.client import readings_body
from edge_agent.contracts.errors import AgentUnreachable, InvalidConfig
from edge_agent.ingest.records import Instant, read_record
from edge_agent.wire import Wire

__all__ = ["Instant", "MqttReplay", "Player", "Replay", "read_record"]

HEADER = "sent_at,latency_seconds,status,version,data_time,staleness_seconds\n"
FLUSH_SECONDS = 0.25


class _Answer(msgspec.Struct):
    version: int | None = None
    staleness_seconds: float | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Player(Protocol):
    """Sends a record somewhere."""

    sent: int
    answered: int

    def run(self, record: Iterator[Instant], *, seconds: float | None = None) -> None:
        """Send the record until it or the time ends."""
        ...


class Replay:
    """Sends instants and logs the answers.

    Parameters
    ----------
    address : str
        The agent's; see `RemoteAgent`.
    log : Path or None
        CSV to append to.
    rate : float, instants/s
    with_parent : bool
        End when the parent process does.
    timeout : float, s
        For one answer.
    """

    def __init__(
        self,
        address: str,
        *,
        log: Path | None = None,
        rate: float = 10.0,
        with_parent: bool = False,
        timeout: float = 5.0,
    ) -> None:
        self._agent = Wire(address, timeout)
        self._log = log
        self._interval = 1.0 / rate
        self._parent = os.getppid() if with_parent else None
        self._lines: list[str] = []
        self._flushed = 0.0
        self._stop = False
        self.sent = 0
        """Requests so far."""
        self.answered = 0
        """Of these, answered with a prediction."""

    def stop(self, *_: object) -> None:
        """End after the request under way; usable as a signal handler."""
        self._stop = True

    def run(self, record: Iterator[Instant], *, seconds: float | None = None) -> None:
        """Send the record until it, the time or the parent ends, or `stop` is called.

        Raises
        ------
        OSError
            If the log cannot be written.
        """
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        # The latencies are to be the agent's: no full collection here in the middle of one.
        gc.collect()
        gc.freeze()
        with self._opened() as log:
            began = time.monotonic()
            for number, item in enumerate(record):
                due = began + number * self._interval
                if seconds is not None and due - began >= seconds:
                    break
                self._wait(due, log)
                if self._ended():
                    break
                self._send(item)
                self._flush(log, force=False)
            self._flush(log, force=True)
        self._agent.close()

    def _send(self, item: Instant) -> None:
        body = readings_body(item.readings)
        version: object = ""
        staleness: object = ""
        status: int | str
        answer = b""
        sent_at, began = time.time(), time.perf_counter()
        try:
            status, answer = self._agent.post("/rbf/v1/readings", body)
        except AgentUnreachable:
            status = "error"
        latency = time.perf_counter() - began
        self.sent += 1
        if status == 200:
            found = _decode(answer)
            version = found.version
            if found.staleness_seconds is not None:
                staleness = found.staleness_seconds
            self.answered += 1
        self._lines.append(
            f"{sent_at:.6f},{latency:.6f},{status},{version},{item.time},{staleness}\n"
        )

    def _wait(self, due: float, log: IO[str] | None) -> None:
        while not self._ended():
            left = due - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, FLUSH_SECONDS))
            self._flush(log, force=False)

    def _ended(self) -> bool:
        return self._stop or (self._parent is not None and os.getppid() != self._parent)

    def _flush(self, log: IO[str] | None, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._flushed < FLUSH_SECONDS:
            return
        self._flushed = now
        if log is not None and self._lines:
            log.write("".join(self._lines))
            log.flush()
        self._lines.clear()

    def _opened(self) -> IO[str]:
        if self._log is None:
            return Path(os.devnull).open("w", encoding="utf-8")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        log = self._log.open("a+", encoding="utf-8")
        log.seek(0)
        lines = log.read()
        # A line torn by a kill goes; what follows would run into it.
        log.truncate(len(lines[: lines.rfind("\n") + 1].encode()))
        if not lines:
            log.write(HEADER)
        return log


class MqttReplay:
    """Sends instants through a broker until each reading has the agent's receipt.

    Parameters
    ----------
    site : str
    broker : str
        ``HOST:PORT``.
    rate : float, instants/s
    settle : float, s
        How long to wait for the last receipts.
    """

    def __init__(self, site: str, broker: str, *, rate: float = 10.0, settle: float = 30.0) -> None:
        host, _, port = broker.rpartition(":")
        if not host or not port.isdigit():
            msg = f"broker {broker!r} is not HOST:PORT"
            raise InvalidConfig(msg, field="mqtt")
        self._site, self._host, self._port = site, host, int(port)
        self._interval = 1.0 / rate
        self._settle = settle
        self.sent = 0
        """Readings so far."""
        self.answered = 0
        """Of these, kept by the agent."""

    def run(self, record: Iterator[Instant], *, seconds: float | None = None) -> None:
        """Send the record until it or the time ends, then wait for the last receipts."""
        asyncio.run(self._run(record, seconds))

    async def _run(self, record: Iterator[Instant], seconds: float | None) -> None:
        from edge_agent.ingest.sender import Sender

        loop = asyncio.get_running_loop()
        began = loop.time()
        sender = Sender(self._site, self._host, self._port)
        async with sender.running():
            for number, item in enumerate(record):
                due = number * self._interval
                if seconds is not None and due >= seconds:
                    break
                await asyncio.sleep(max(0.0, began + due - loop.time()))
                for reading in item.readings:
                    sender.offer(reading)
                    self.sent += 1
            await sender.settled(self._settle)
        self.answered = len(sender.tally.receipts)
