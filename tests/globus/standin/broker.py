"""The service's side of the message broker: commands and tasks out, results and heartbeats in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pika
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import EPStatusReport, Result
from pika.adapters.blocking_connection import BlockingChannel

from .store import Store

T = TypeVar("T")
EXCHANGES = ("tasks", "results", "heartbeats", "commands")
QUEUE_PREFIX = "tg."


class Broker:
    """Publishes over one connection, consumes over another, each with its thread or lock.

    Parameters
    ----------
    url : str
        Of the broker, for the service itself.
    store : Store
    delayed : callable
        Seconds to hold each result back.
    dropped : callable
        Whether to lose a result.
    """

    def __init__(
        self,
        url: str,
        store: Store,
        delayed: Callable[[], float],
        dropped: Callable[[], bool],
    ) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = 0
        self._store = store
        self._delayed = delayed
        self._dropped = dropped
        self._lock = threading.Lock()
        self._channel: BlockingChannel | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._consume, name="standin-broker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        with self._lock:
            if self._channel is not None and self._channel.is_open:
                self._channel.connection.close()

    def declare(self, queue: str, exchange: str | None = None) -> None:
        """Make a queue, bound to an exchange by its own name."""

        def work(channel: BlockingChannel) -> None:
            channel.queue_declare(queue, durable=True)
            if exchange is not None:
                channel.queue_bind(queue, exchange, queue)

        self._do(work)

    def publish(self, exchange: str, key: str, body: bytes, **properties: Any) -> None:
        told = pika.BasicProperties(delivery_mode=2, **properties)
        self._do(lambda c: c.basic_publish(exchange, key, body, told, mandatory=True))

    def _do(self, work: Callable[[BlockingChannel], T]) -> T:
        with self._lock:
            for last in (False, True):
                try:
                    if self._channel is None or not self._channel.is_open:
                        self._channel = self._open()
                        self._channel.confirm_delivery()
                    return work(self._channel)
                except (pika.exceptions.AMQPError, OSError):
                    self._channel = None
                    if last:
                        raise
        raise AssertionError

    def _open(self) -> BlockingChannel:
        channel = pika.BlockingConnection(self._parameters).channel()
        for exchange in EXCHANGES:
            channel.exchange_declare(exchange, "topic", durable=True)
        for queue in ("results", "heartbeats"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, queue, f"*.{queue}")
        return channel

    def _consume(self) -> None:
        while not self._stopped.is_set():
            try:
                channel = self._open()
                channel.basic_consume("results", self._on_result)
                channel.basic_consume("heartbeats", self._on_heartbeat)
                while not self._stopped.is_set():
                    channel.connection.process_data_events(time_limit=0.2)
                channel.connection.close()
            except (pika.exceptions.AMQPError, OSError):
                self._stopped.wait(0.3)

    def _on_result(self, channel: BlockingChannel, method: Any, _: Any, body: bytes) -> None:
        time.sleep(self._delayed())
        if not self._dropped():
            self._finish(channel, messagepack.unpack(body), body)
        channel.basic_ack(method.delivery_tag)

    def _finish(self, channel: BlockingChannel, result: Result, body: bytes) -> None:
        failed = result.error_details is not None
        task = self._store.finish(str(result.task_id), result.data, failed=failed)
        if task is None:
            return
        told = pika.BasicProperties(
            delivery_mode=2, timestamp=int(time.time()), headers={"high_assurance": False}
        )
        channel.basic_publish("", QUEUE_PREFIX + task.group, body, told)

    def _on_heartbeat(self, channel: BlockingChannel, method: Any, _: Any, body: bytes) -> None:
        report = messagepack.unpack(body)
        if isinstance(report, EPStatusReport):
            self._heard(channel, report)
        channel.basic_ack(method.delivery_tag)

    def _heard(self, channel: BlockingChannel, report: EPStatusReport) -> None:
        found = self._store.endpoints.get(str(report.endpoint_id))
        if found is not None:
            found.seen_at, found.state = time.time(), dict(report.global_state)
        problem = report.global_state.get("error")
        if problem is None:
            return
        # A user endpoint that does not start says so once: its tasks fail.
        for task in self._store.pending(str(report.endpoint_id)):
            details = {"code": "EP_START", "user_message": problem}
            result = Result(task_id=task.id, data=problem, error_details=details)
            self._finish(channel, result, messagepack.pack(result))
