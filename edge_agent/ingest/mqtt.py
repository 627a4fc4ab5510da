"""Readings over MQTT v5, with a receipt of our own for each.

A sensor publishes at ``rbf/SITE/SENSOR/QUANTITY``; the receipt goes out at the same topic with
``/ack`` once the reading is committed. The broker's acknowledgement says nothing about us (a broker
killed with -9 lost every message it had acknowledged), so a sender repeats until it has ours. The
session is a clean one each time: what the broker would remember, the senders do.

Runs on a thread with an event loop of its own, away from the loop that answers requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import aiomqtt
import msgspec
import structlog
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.backoff import pause
from edge_agent.contracts.errors import InvalidReading, SpoolError
from edge_agent.contracts.observation import PredictionRecord, Reading
from edge_agent.settings import MqttSettings
from edge_agent.spool import Kept

log = structlog.get_logger(__name__)

ROOT = "rbf"
#: Sensor names that are topics of ours.
RESERVED = ("prediction", "alarm")
MAX_PAYLOAD = 4096
_encode = msgspec.json.Encoder().encode


class Payload(msgspec.Struct):
    """What a sensor publishes."""

    time: str
    """RFC 3339."""
    value: float
    unit: str
    """UDUNITS spelling; must be the quantity's."""


_decode = msgspec.json.Decoder(Payload).decode


class Receipt(msgspec.Struct, omit_defaults=True):
    """What the agent answers at ``.../ack``."""

    time: str
    """As the sensor sent it."""
    kept: bool
    """Whether the reading is on the agent's disk. If not, repeating it is of no use."""
    reason: str = ""
    """Why not: ``conflicting``, or a reason of `check_reading`."""


class MqttLine:
    """The connection to the broker.

    Parameters
    ----------
    site : str
        Second level of the topics.
    settings : MqttSettings
    take : callable
        Takes a reading; returns the future of its commit. Raises `InvalidReading` for one that
        cannot be used and `SpoolError` when nothing can be kept now.
    rejected : callable
        Told the reason of each message that is not taken.
    """

    def __init__(
        self,
        site: str,
        settings: MqttSettings,
        take: Callable[[Reading], Future[Kept]],
        rejected: Callable[[str], None],
    ) -> None:
        self._site = site
        self._settings = settings
        self._take = take
        self._rejected = rejected
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rbf-mqtt", daemon=True)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._outgoing: deque[tuple[str, bytes, bool]] = deque(maxlen=2 * settings.max_waiting)
        self._wake = asyncio.Event()
        self._woken = False
        self._waiting = 0
        self._counting = threading.Lock()
        self.connected = threading.Event()
        """Set while subscribed."""
        self.trouble: str | None = None
        """What the last failure said; none while connected."""
        self.received = 0
        """Messages taken from the broker."""
        self.receipts = 0
        """Receipts handed to the broker."""

    def start(self) -> None:
        """Begin; the broker need not be there yet."""
        self._thread.start()

    def close(self) -> None:
        """Disconnect; messages without a receipt will be repeated by their senders."""
        if self._thread.ident is None:
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join()
        self._loop.close()

    def publish_prediction(self, record: PredictionRecord) -> None:
        """Publish a prediction, retained, at ``rbf/SITE/prediction/sensors``; from any thread."""
        self._send(f"{ROOT}/{self._site}/prediction/sensors", _encode(record), retain=True)

    def publish_alarm(self, name: str, alarm: Any) -> None:  # noqa: ANN401 - any JSON value
        """Publish an alarm's state, retained, at ``rbf/SITE/alarm/NAME``; from any thread."""
        self._send(f"{ROOT}/{self._site}/alarm/{name}", _encode(alarm), retain=True)

    def status(self) -> dict[str, Any]:
        """Return the state of the connection, as JSON values."""
        return {
            "connected": self.connected.is_set(),
            "trouble": self.trouble,
            "received": self.received,
            "receipts": self.receipts,
            "waiting": self._waiting,
        }

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._stay_connected())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        # aiomqtt leaves tasks behind where a connection is refused.
        for left in asyncio.all_tasks(self._loop):
            left.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError, OSError):
                self._loop.run_until_complete(left)

    def _cancel(self) -> None:
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    async def _stay_connected(self) -> None:
        failures = 0
        # Not `while True` until cancelled: a disconnection that fails while the task is cancelled
        # takes the cancellation's place.
        while not self._stopping:
            try:
                async with self._client() as client:
                    topic = f"{ROOT}/{self._site}/+/+"
                    await client.subscribe(topic, options=SubscribeOptions(qos=1, noLocal=True))
                    failures, self.trouble = 0, None
                    self.connected.set()
                    log.info("listening to the broker", topic=topic)
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._receive(client))
                        group.create_task(self._send_out(client))
            except* (aiomqtt.MqttError, OSError) as errors:
                failures += 1
                self.trouble = str(errors.exceptions[0])
            self.connected.clear()
            if failures == 1:
                log.warning("no broker", error=self.trouble)
            await self._pause(max(1, failures))

    async def _pause(self, failures: int) -> None:
        if not self._stopping:
            settings = self._settings
            seconds = pause(failures, settings.retry_seconds, settings.retry_max_seconds, 0.5)
            await asyncio.sleep(seconds)

    def _client(self) -> aiomqtt.Client:
        settings = self._settings
        password = None
        if settings.password_file is not None:
            password = settings.password_file.read_text(encoding="utf-8").strip()
        context = ssl.create_default_context(cafile=settings.ca_file) if settings.tls else None
        return aiomqtt.Client(
            settings.host,
            settings.port,
            protocol=aiomqtt.ProtocolVersion.V5,
            identifier=settings.client_id or f"rbf-agent-{self._site}",
            username=settings.username,
            password=password,
            tls_context=context,
            keepalive=settings.keepalive_seconds,
            clean_start=True,
            max_queued_incoming_messages=settings.max_waiting,
        )

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            self.received += 1
            topic = str(message.topic)
            try:
                self._accept(topic, bytes(message.payload))
            except SpoolError:
                self._rejected("spool")  # no receipt: the sender repeats it
            except Exception:  # one message must not end the line
                self._rejected("failed")
                log.exception("message not taken", topic=topic)

    def _accept(self, topic: str, payload: bytes) -> None:
        _, _, sensor, quantity = topic.split("/")
        if sensor in RESERVED:
            return
        if self._waiting >= self._settings.max_waiting:
            self._rejected("busy")  # no receipt: the sender repeats it
            return
        try:
            if len(payload) > MAX_PAYLOAD:
                raise msgspec.ValidationError(f"{len(payload)} bytes")
            found = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            msg = f"malformed message at {topic}: {error}"
            self._rejected("format")
            log.warning("message not understood", topic=topic, error=msg)
            return
        reading = Reading(found.time, sensor, quantity, found.value, found.unit)
        try:
            kept = self._take(reading)
        except InvalidReading as error:
            self._receipt(topic, Receipt(found.time, kept=False, reason=str(error.reason)))
            return
        with self._counting:
            self._waiting += 1
        kept.add_done_callback(lambda done: self._committed(topic, found.time, done))

    def _committed(self, topic: str, time: str, done: Future[Kept]) -> None:
        # On the spool's thread. A failed commit gives no receipt.
        with self._counting:
            self._waiting -= 1
        if done.exception() is None:
            conflicting = bool(done.result().conflicting)
            reason = "conflicting" if conflicting else ""
            self._receipt(topic, Receipt(time, kept=not conflicting, reason=reason))

    def _receipt(self, topic: str, receipt: Receipt) -> None:
        self._send(f"{topic}/ack", _encode(receipt), retain=False)

    def _send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._outgoing.append((topic, payload, retain))
        if not self._woken:
            # One wake for all receipts of a commit.
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are stopping
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _send_out(self, client: aiomqtt.Client) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._woken = False
            while self._outgoing:
                topic, payload, retain = self._outgoing.popleft()
                await client.publish(topic, payload, qos=0, retain=retain)
                self.receipts += topic.endswith("/ack")
