"""What systemd wants to know (sd_notify): ready, alive, stopping; nothing without systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Watchdog:
    """The notification socket.

    Parameters
    ----------
    environment : mapping, optional
        Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are; ours by default.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        path = found.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        ours = found.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = found.get("WATCHDOG_USEC", "") if ours and path else ""
        self.interval: float | None = int(period) / 1e6 / 3 if period.isdecimal() else None
        """Time between heartbeats, s; none if nobody waits for them."""
        self._socket: socket.socket | None = None
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)  # a full queue must not stop the loop

    def ready(self) -> None:
        """Say that the agent listens."""
        self._send("READY=1")

    def alive(self) -> None:
        """Say that the loop turns."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the agent ends."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return  # the service manager restarts us if it misses too many
