"""The sensors' side of MQTT: publishes readings and repeats each until it has the agent's receipt.

For replays, tests and benchmarks; a gateway in the field does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiomqtt
import msgspec

from edge_agent.contracts.observation import Reading
from edge_agent.ingest.mqtt import ROOT, Payload, Receipt

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Receipt).decode

Key = tuple[str, str]


@dataclass
class _Waiting:
    payload: bytes
    due: float
    pause: float


@dataclass
class Tally:
    """What a sender knows; keys are (topic, time)."""

    sent: int = 0
    """Messages published, repetitions among them."""
    receipts: set[Key] = field(default_factory=set)
    """Readings that the agent has said it keeps."""
    refused: dict[Key, str] = field(default_factory=dict)
    """Readings that it has said it does not keep, and why."""


class Sender:
    """Publishes and repeats.

    Parameters
    ----------
    site : str
    host, port
        The broker.
    repeat_seconds : float, s
        First pause before a repetition; it doubles up to eight times that.
    identifier : str, optional
        Name at the broker.
    """

    def __init__(
        self,
        site: str,
        host: str,
        port: int,
        *,
        repeat_seconds: float = 1.0,
        identifier: str | None = None,
    ) -> None:
        self._site = site
        self._host, self._port = host, port
        self._repeat = repeat_seconds
        self._identifier = identifier
        self._waiting: dict[Key, _Waiting] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self.tally = Tally()

    @property
    def outstanding(self) -> int:
        """Readings without an answer."""
        return len(self._waiting)

    def offer(self, reading: Reading) -> None:
        """Publish a reading until there is an answer; returns at once."""
        topic = f"{ROOT}/{self._site}/{reading.sensor}/{reading.quantity}"
        payload = _encode(Payload(reading.time, reading.value, reading.unit))
        self._waiting[topic, reading.time] = _Waiting(payload, 0.0, self._repeat)
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect, and connect again, for as long as the block runs."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._stopping = True
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settled(self, seconds: float) -> bool:
        """Wait until every reading has its answer; return whether they have in time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._waiting and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return not self._waiting

    async def _run(self) -> None:
        # Not until cancelled: a disconnection that fails takes the cancellation's place.
        while not self._stopping:
            with contextlib.suppress(aiomqtt.MqttError, OSError, ExceptionGroup):
                async with aiomqtt.Client(
                    self._host,
                    self._port,
                    protocol=aiomqtt.ProtocolVersion.V5,
                    identifier=self._identifier,
                    timeout=5.0,
                    keepalive=10,
                ) as client:
                    await client.subscribe(f"{ROOT}/{self._site}/+/+/ack", qos=0)
                    for waiting in self._waiting.values():
                        waiting.due = 0.0
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._receive(client))
                        group.create_task(self._publish(client))
            if not self._stopping:
                await asyncio.sleep(min(0.2, self._repeat))

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            receipt = _decode(bytes(message.payload))
            key = (str(message.topic).removesuffix("/ack"), receipt.time)
            self._waiting.pop(key, None)
            if receipt.kept:
                self.tally.receipts.add(key)
            else:
                self.tally.refused[key] = receipt.reason

    async def _publish(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for (topic, time), waiting in list(self._waiting.items()):
                if waiting.due > now or (topic, time) not in self._waiting:
                    continue
                waiting.due = now + waiting.pause
                waiting.pause = min(2 * waiting.pause, 8 * self._repeat)
                await client.publish(topic, waiting.payload, qos=1)
                self.tally.sent += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._repeat / 4)
            self._wake.clear()
