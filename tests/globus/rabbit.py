"""A RabbitMQ of our own on loopback, as an ordinary user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from workflows.edge import wait_until

BIN = Path("/usr/lib/rabbitmq/bin")
START_SECONDS = 90.0


class Rabbit:
    """Debian's broker with its files in a folder; no plugins, nothing beyond loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, distribution, mapper = _free_ports(3)
        self._name = f"rbf{self.port}@localhost"
        folder.mkdir()
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "loopback_users.guest = true\n"
            "max_message_size = 67108864\n"
        )
        self._environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_HOME": "/usr/lib/rabbitmq",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "db"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"
            ),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, port: int | None = None) -> str:
        """Where it is, or would be behind a line's port."""
        # Six seconds of silence are the end of a connection; the hosted service's are unknown.
        return f"amqp://guest:guest@127.0.0.1:{port or self.port}/%2F?heartbeat=6"

    def start(self) -> None:
        with (self.folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [BIN / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if not wait_until(self._listens, START_SECONDS):
            tail = (self.folder / "output.txt").read_text()[-2000:]
            raise RuntimeError(f"RabbitMQ does not start: {tail}")

    def stop(self) -> None:
        """In order, as for an upgrade."""
        self._control("shutdown")
        self._ended()

    def kill(self) -> None:
        """With SIGKILL."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._ended()

    def close(self) -> None:
        self.kill()
        self._control("epmd")

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        self._process = None

    def _control(self, command: str) -> None:
        if command == "epmd":
            tool = ["/usr/bin/epmd", "-kill"]
        else:
            tool = [str(BIN / "rabbitmqctl"), "-n", self._name, command]
        subprocess.run(tool, env=self._environment, capture_output=True, timeout=60, check=False)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for sock in sockets:
        sock.close()
    return ports
