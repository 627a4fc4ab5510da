"""A TCP line whose cable can be pulled: held without a reset, or reset."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine


class Line:
    """Forwards ``127.0.0.1:port`` to another port, on a thread of its own."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._open = asyncio.Event()
        self._refuse = False
        self._cut = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="line")
        self._thread.start()
        self.port = self._call(self._start())

    def freeze(self) -> None:
        """Silent cut: connections stay, nothing comes through; new ones hang too."""
        self._call(self._set(is_open=False))

    def lose(self) -> None:
        """End a silent cut as a router does that has forgotten the connections: what was held is
        lost, the old connections are reset, new ones work."""
        self._call(self._reset(refuse=False))

    def refuse(self) -> None:
        """Reset everything, and every new connection."""
        self._call(self._reset(refuse=True))

    def restore(self) -> None:
        """Forward again; what was held is delivered."""
        self._call(self._set(is_open=True))

    def close(self) -> None:
        self._call(self._reset(refuse=True))
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine) -> object:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> int:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _set(self, *, is_open: bool) -> None:
        self._refuse = False
        if is_open:
            self._open.set()
        else:
            self._open.clear()

    async def _reset(self, *, refuse: bool) -> None:
        self._refuse = refuse
        self._cut += 1
        for writer in list(self._writers):
            _abort(writer)
        self._writers.clear()
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self._cut
        await self._open.wait()
        try:
            if self._refuse or cut != self._cut:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            _abort(writer)
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(
            self._pump(reader, far_writer, cut), self._pump(far_reader, writer, cut)
        )
        self._writers -= {writer, far_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: int
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._open.wait()
                if cut != self._cut:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            await self._open.wait()
            writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
