"""The peers: how each is installed into a virtual environment of its own, and started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
COMMON = ("numpy<2.5", "onnxruntime")
INSTALL_SECONDS = 900
START_SECONDS = 90


@dataclass(frozen=True)
class Peer:
    """A server to compare with."""

    title: str
    packages: tuple[str, ...]
    script: str
    kind: str
    """Of request; see `client.caller`."""
    system_python: bool = False
    """PyTriton's stub loads the system's libpython."""
    binary: bool = True
    """Whether it answers in bytes."""


PEERS = {
    "mosec": Peer("mosec, bytes", ("mosec",), "s_mosec.py", "raw:/inference"),
    "fastapi": Peer("FastAPI, bytes", ("fastapi", "uvicorn[standard]"), "s_fastapi.py", "raw:/"),
    "litserve": Peer(
        "LitServe, JSON in, bytes out", ("litserve",), "s_litserve.py", "json-raw:/predict"
    ),
    "kserve": Peer("KServe SDK, OIP binary", ("kserve",), "s_kserve.py", "oip"),
    "mlserver": Peer(
        "MLServer, OIP JSON", ("mlserver", "setuptools<81"), "s_mlserver.py", "oip-json",
        binary=False,
    ),
    "pytriton": Peer(
        "PyTriton, OIP binary", ("nvidia-pytriton", "setuptools<81"), "s_pytriton.py", "oip",
        system_python=True,
    ),
    "ray": Peer("Ray Serve, bytes", ("ray[serve]",), "s_ray.py", "raw:/"),
}  # fmt: skip


def install(name: str, cache: Path) -> str | None:
    """Make a peer's environment unless it is there; return why it cannot be had, or none."""
    folder = cache / name
    done = folder / ".installed"
    if done.exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    peer = PEERS[name]
    python = "/usr/bin/python3" if peer.system_python else sys.executable
    try:
        subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run(
            [folder / "bin" / "pip", "install", "--quiet", *COMMON, *peer.packages],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return said[-1] if said else type(error).__name__
    done.touch()
    return None


def version(name: str, cache: Path) -> str:
    """Return the installed version of a peer's first package."""
    package = PEERS[name].packages[0].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    python = cache / name / "bin" / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


class Running:
    """A started peer; its processes are ended on exit.

    Raises
    ------
    RuntimeError
        If it does not listen in time; the message is the end of its log.
    """

    def __init__(self, name: str, cache: Path, model: Path, log: Path) -> None:
        peer = PEERS[name]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        folder = cache / name
        command = [str(folder / "bin" / "python"), str(HERE / peer.script)]
        if name == "mosec":
            command += ["--address", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        self._log = log
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={
                    **os.environ,
                    "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                    "PYTHONPATH": str(HERE),
                    "BENCH_MODEL": str(model),
                    "BENCH_PORT": str(self.port),
                    "RAY_USAGE_STATS_ENABLED": "0",
                    "OTEL_SDK_DISABLED": "true",
                },
            )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
            except OSError:
                time.sleep(0.2)
            else:
                time.sleep(2)  # several listen before their model is loaded
                return self
        self.__exit__()
        said = self._log.read_text(errors="replace").strip().splitlines()
        msg = said[-1][:200] if said else "it does not listen"
        raise RuntimeError(msg)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(8)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    cache_ = Path(sys.argv[1])
    for name_ in sys.argv[2:] or PEERS:
        print(name_, install(name_, cache_) or version(name_, cache_), flush=True)
