"""A device that loses power at any step of its disk, with its agent on the caller's thread.

A power cut is an exception that nothing catches, raised at the n-th operation that changes the
state folder; from then on nothing changes it any more, whatever unwinds. What was appended and not
yet flushed may be lost in part.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import edge_agent.slots
from edge_agent.agent import EdgeAgent
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import UpdateUnavailable
from edge_agent.contracts.model import sha256
from edge_agent.settings import PromotionSettings, UpdateSettings
from edge_agent.updates.transport import Body

from .owner import first_root
from .releases import NAME

SETTINGS = PromotionSettings(shadow_predictions=3, shadow_seconds=100.0, soak_seconds=100.0)


class PowerCut(BaseException):
    """The process is gone."""


class Disk:
    """The operations that change a folder, while it is installed."""

    def __init__(self, folder: Path) -> None:
        self.full = False
        self.left: int | None = None
        self.dead = False
        self.torn = 0
        """Bytes that the journal loses if the cut comes before they are flushed."""
        self._folder = str(folder)
        self._kept: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        for name in ("replace", "rename"):
            self._wrap(os, name, lambda args: (args[1], False))
        self._wrap(os, "link", lambda args: (args[1], True))
        for name in ("unlink", "remove", "rmdir"):
            self._wrap(os, name, self._removed)
        self._wrap(os, "mkdir", lambda args: (args[0], True))
        self._wrap(os, "fsync", self._flushed)
        for module in (io, builtins):
            self._wrap(module, "open", self._opened)

    def uninstall(self) -> None:
        for module, name, original in reversed(self._kept):
            setattr(module, name, original)
        self._kept.clear()

    def _wrap(self, module: Any, name: str, look: Callable[[tuple], Any]) -> None:
        original = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            found = look(args)
            if found is not None:
                self._touch(*found)
            result = original(*args, **kwargs)
            if name == "open" and found is not None:
                self._touch(*found, file=result)  # emptied, and nothing written yet
            return result

        setattr(module, name, wrapped)
        self._kept.append((module, name, original))

    def _touch(
        self, path: Any, needs_room: bool, descriptor: int | None = None, *, file: Any = None
    ) -> None:
        if not str(path).startswith(self._folder):
            return
        if self.left is not None and not self.dead:
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if descriptor is not None and str(path).endswith("journal.jsonl"):
                    size = os.fstat(descriptor).st_size
                    os.truncate(path, max(0, size - self.torn))
        if self.dead:
            if file is not None:
                file.close()
            raise PowerCut
        if self.full and needs_room:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def _removed(self, args: tuple) -> tuple:
        path = Path(args[0])
        # Trees are removed relative to an open folder; nothing but the agent's are, here.
        return (path if path.is_absolute() else Path(self._folder) / path, False)

    def _flushed(self, args: tuple) -> tuple:
        return (Path(f"/proc/self/fd/{args[0]}").readlink(), False, args[0])

    def _opened(self, args: tuple) -> tuple | None:
        mode = args[1] if len(args) > 1 else "r"
        return (args[0], True) if set(mode) & set("wax+") else None


class Clock:
    """Wall time that jumps, and monotonic time that does not."""

    def __init__(self, now: float) -> None:
        self.wall = now
        self.steady = 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Device:
    """The agent of one state folder, without threads; `boot` after each `PowerCut`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.config = AgentConfig(
            name=NAME,
            repository=folder / "repository",
            root=first_root(folder / "repository"),
            state=folder / "state",
            device="bench",
            keep_releases=3,
            warm_up_runs=0,
            latency_objective_ms=0.0,
            updates=UpdateSettings(retry_seconds=3600, retry_max_seconds=3600),
            promotion=SETTINGS,
        )
        self.config.state.mkdir()
        self.clock = clock
        self.disk = Disk(self.config.state)
        self.loaded: list[str] = []
        """sha256 of every model that was given to the engine."""
        self.online = True
        self.link_bytes: int | None = None
        """After so many bytes the link breaks; none: it holds."""
        self.agent: EdgeAgent
        self._load_model = edge_agent.slots.load_model

    def install(self) -> None:
        def load_model(data: bytes, *args: Any) -> Any:
            self.loaded.append(sha256(data))
            return self._load_model(data, *args)

        edge_agent.slots.load_model = load_model
        self.disk.install()

    def uninstall(self) -> None:
        self.disk.uninstall()
        edge_agent.slots.load_model = self._load_model

    def boot(self, *, cut_after: int | None = None) -> None:
        """Start from what is on the disk; with `cut_after`, the power fails again that soon."""
        self.disk.left, self.disk.dead = cut_after, False
        agent = EdgeAgent(self.config, clock=self.clock)
        agent.source._transport = Link(agent.source._transport, self)
        agent._restore()
        agent._changes._thread = threading.current_thread()  # its work runs here, at once
        self.agent = agent

    @property
    def promotion(self) -> Any:
        return self.agent._promotion

    def look(self) -> None:
        """What the poller does when its time has come."""
        self.agent._poller._look()

    def trial(self, seconds: float) -> None:
        """What the changes' thread does between commands, some time later."""
        self.clock.advance(seconds)
        self.agent._changes.trials.look(60.0)


class Link:
    """A transport that breaks when the device's link does."""

    def __init__(self, inner: Any, device: Device) -> None:
        self._inner, self._device = inner, device

    @contextmanager
    def open(self, path: str, *, offset: int = 0, seconds: float) -> Iterator[Body | None]:
        if not self._device.online:
            msg = "there is no network"
            raise UpdateUnavailable(msg, reason="unreachable")
        with self._inner.open(path, offset=offset, seconds=seconds) as body:
            yield body and Body(body.offset, self._bytes(body.chunks))

    def close(self) -> None:
        self._inner.close()

    def _bytes(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            left = self._device.link_bytes
            if left is None:
                yield chunk
                continue
            self._device.link_bytes = max(0, left - len(chunk))
            yield chunk[:left]
            if left < len(chunk):
                msg = "the link is broken"
                raise UpdateUnavailable(msg, reason="unreachable")
