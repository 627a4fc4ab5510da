"""A link with a stated latency and rate, in front of a server on this machine.

A proxy holds every piece of data back until it could have come: bytes of a direction share one
rate, whatever connection they are of, and each takes the latency besides. A connection opens one
round trip after it was asked for. Slow start and losses are not played: a real link is slower.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

#: Small against what a link carries in a latency, so that the rate is even.
CHUNK_BYTES = 4096


class Direction:
    """Says when the bytes of one direction arrive."""

    def __init__(self, latency_s: float, bytes_per_s: float) -> None:
        self.carried = 0
        """Bytes so far."""
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def arrival(self, now: float, size: int) -> float:
        self._free_at = max(now, self._free_at) + size / self._bytes_per_s
        self.carried += size
        return self._free_at + self._latency_s


class SlowLink:
    """Forwards a port of its own to a server, slowly.

    Parameters
    ----------
    port : int
        The server's, on loopback.
    latency_s : float, s
        One way.
    bytes_per_s : float, B/s
        In each direction.
    """

    def __init__(self, port: int, *, latency_s: float, bytes_per_s: float) -> None:
        self.port = 0
        """Where to connect to; known once started."""
        self.down = Direction(latency_s, bytes_per_s)
        """From the server."""
        self.up = Direction(latency_s, bytes_per_s)
        """To the server."""
        self._server_port = port
        self._latency_s = latency_s
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stopped: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="slow-link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopped.wait()
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError), contextlib.closing(back):
            await asyncio.sleep(2 * self._latency_s)
            far, out = await asyncio.open_connection("127.0.0.1", self._server_port)
            with contextlib.closing(out):
                await asyncio.gather(
                    self._carry(near, out, self.up), self._carry(far, back, self.down)
                )

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Forward until the source ends; reading goes on while what was read is on its way."""
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                at, data = await on_its_way.get()
                await asyncio.sleep(max(0.0, at - self._loop.time()))
                if not data:
                    if sink.can_write_eof():
                        sink.write_eof()
                    return
                sink.write(data)
                await sink.drain()

        arriving = asyncio.create_task(arrive())
        with contextlib.suppress(ConnectionError):
            data = b"x"
            while data:
                data = await source.read(CHUNK_BYTES)
                on_its_way.put_nowait((direction.arrival(self._loop.time(), len(data)), data))
            await arriving
        arriving.cancel()
