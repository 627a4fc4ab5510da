"""Runs tests in a network of their own: ``python tests/globus/hermetic.py [pytest's arguments]``.

The SDK looks for a local service on port 5000, and an endpoint that root runs becomes one for many
users. So root gets a network, a mount and a process namespace of its own, makes an ordinary user
(``rbf-test``), lets it see the clone and the environment wherever they lie, and becomes it. Where
there are no namespaces to be had, or to whoever is not root, port 5000 must be free.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = "rbf-test"
INSIDE = "RBF_HERMETIC"


def main() -> None:
    isolate()
    drop()
    # The SDK leaves its connections to the collector.
    options = ["-p", "no:cacheprovider", "-W", "ignore::ResourceWarning"]
    arguments = sys.argv[1:] or [str(Path(__file__).parent)]
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options, *arguments])


def isolate() -> None:
    """As root: run this program again, in namespaces of its own. Otherwise nothing."""
    if os.geteuid() != 0 or INSIDE in os.environ:
        return
    if not any(entry.pw_name == USER for entry in pwd.getpwall()):
        command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
        subprocess.run([*command, "--shell", "/usr/sbin/nologin", USER], check=True)
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], check=False).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


def drop() -> None:
    """As root: go on as an ordinary user. Otherwise nothing.

    What goes on is a child: the first process of a namespace has orphans to reap.
    """
    if os.geteuid() != 0:
        return
    if INSIDE in os.environ:
        loopback_up()
        python = Path(sys.executable).resolve().parents[1]
        open_ways({ROOT, Path(sys.prefix), Path(sys.base_prefix).resolve(), python})
    home = Path(tempfile.mkdtemp(prefix="rbf-test-", dir="/tmp"))
    child = os.fork()
    if child:
        status = reaped(child)
        shutil.rmtree(home, ignore_errors=True)
        sys.exit(status)
    become(USER, home)


def loopback_up() -> None:
    """``ip link set lo up``, without iproute2."""
    up_and_running = 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh", b"lo", up_and_running))  # SIOCSIFFLAGS


def open_ways(paths: set[Path]) -> None:
    """Make paths reachable that lie in folders closed to others, such as /root.

    Only in this mount namespace: an empty folder is put over the closed one, and in it only what
    is needed is shown again.
    """
    closed: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        gate = next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)
        if gate is not None:
            closed.setdefault(gate, []).append(path)
    for gate, behind in closed.items():
        shown = [p for p in behind if not any(p != q and p.is_relative_to(q) for q in behind)]
        held = [Path(tempfile.mkdtemp(dir="/run")) for _ in shown]
        for path, place in zip(shown, held, strict=True):
            mount("--bind", path, place)
        mount("-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", gate)
        for path, place in zip(shown, held, strict=True):
            path.mkdir(parents=True)
            mount("--bind", place, path)
            subprocess.run(["umount", place], check=True)
            place.rmdir()


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def become(name: str, home: Path) -> None:
    """Give up root for ever."""
    user = pwd.getpwnam(name)
    os.chown(home, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    for path in (ROOT / "pyproject.toml", Path(sys.executable)):
        if not os.access(path, os.R_OK):
            sys.exit(f"{path} cannot be read by the user {name}: chmod -R go+rX {path.parent}")
    os.environ |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
    }


def reaped(child: int) -> int:
    """Return a child's exit status; orphans end here, too."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
