"""Soak: readings over MQTT while agent, broker and upstream are killed in random order.

``python benchmarks/soak.py --seconds 180 [--rate 200] [--kill-every 5] [--seed 1]`` prints the
counts and ends with status 1 unless every reading with a receipt is stored upstream, once, with the
value that was sent. Senders repeat until they have the agent's receipt. SIGKILL only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.observation import Reading, instant_us
from edge_agent.ingest.sender import Sender

ROOT = Path(__file__).resolve().parent.parent
SITE = "soak"
SENSORS = 20
PATHS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Parts:
    """The three processes, each started again as it was."""

    def __init__(self, folder: Path, repository: Path | None) -> None:
        self.folder = folder
        self.broker_port, self.upstream_port = free_port(), free_port()
        self.store = folder / "observations.sqlite"
        broker = shutil.which("mosquitto", path=PATHS)
        if broker is None:
            sys.exit("mosquitto is not installed: apt-get install mosquitto")
        (folder / "mosquitto.conf").write_text(
            f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            "persistence false\nmax_queued_messages 0\n"
        )
        source = repository or folder / "repository"
        (folder / "edge.toml").write_text(
            f'name = "{SITE}"\nrepository = "{source}"\nroot = "{source}/metadata/1.root.json"\n'
            f'state = "state"\n[mqtt]\nport = {self.broker_port}\n'
            f'[upstream]\nurl = "http://127.0.0.1:{self.upstream_port}/rbf/v1/observations"\n'
            "batch_rows = 500\nbatch_seconds = 2.0\nretry_max_seconds = 2.0\n"
        )
        python = sys.executable
        self.commands = {
            "broker": [broker, "-c", str(folder / "mosquitto.conf")],
            "agent": [python, "-m", "edge_agent", "serve", "--config", str(folder / "edge.toml")],
            "upstream": [
                python, "-m", "workflows.observations", "--store", str(self.store),
                "--listen", f"127.0.0.1:{self.upstream_port}",
            ],
        }  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.client = RemoteAgent(f"unix:{folder / 'state' / 'agent.sock'}", timeout=5.0)

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.commands[name], cwd=ROOT, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def backlog(self) -> int | None:
        """Return the readings that are not delivered, or none if the agent does not answer."""
        with contextlib.suppress(RbfError):
            upstream = self.client.status()["upstream"]
            return int(upstream["uncut"]) + int(upstream["batch_readings"])
        return None


async def offer(sender: Sender, rate: float, seconds: float) -> dict[tuple[str, int], float]:
    """Offer readings for a while; return what was offered: (sensor, data time in us) to value."""
    loop = asyncio.get_running_loop()
    began, offered = loop.time(), {}
    first = datetime.now(UTC)
    for n in range(round(rate * seconds)):
        wait = began + n / rate - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        time_ = first + timedelta(seconds=n / rate)
        sensor, value = f"s{n % SENSORS:02d}", round(5 + 3 * random.random(), 3)  # noqa: S311
        sender.offer(Reading(time_.isoformat(), sensor, "wind_speed", value, "m s-1"))
        offered[sensor, instant_us(time_)] = value
    return offered


async def disturb(
    parts: Parts, chance: random.Random, every: float, seconds: float
) -> dict[str, int]:
    """Kill something now and then and start it again; return how often what was killed."""
    kills = dict.fromkeys(parts.commands, 0)
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        await asyncio.sleep(min(chance.uniform(0.5, 1.5) * every, end - now))
        if time.monotonic() >= end:
            break
        # Sometimes two at once: each must do without either of the others.
        names = chance.sample(sorted(parts.commands), chance.choice((1, 1, 2)))
        for name in names:
            parts.kill(name)
            kills[name] += 1
        await asyncio.sleep(chance.uniform(0.0, 1.5))
        for name in names:
            parts.start(name)
    return kills


def stored(path: Path) -> tuple[dict[tuple[str, int], float], int, int]:
    """Return what upstream has, how many rows that is, and how many batches."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT sensor, instant, value FROM reading").fetchall()
        batches = db.execute("SELECT count(*) FROM batch").fetchone()[0]
    return {(s, t): v for s, t, v in rows}, len(rows), int(batches)


async def soak(parts: Parts, args: argparse.Namespace) -> int:
    chance = random.Random(args.seed)  # noqa: S311
    for name in parts.commands:
        parts.start(name)
    patience = time.monotonic() + 60.0
    while parts.backlog() is None:
        if time.monotonic() > patience or parts.processes["agent"].poll() is not None:
            sys.exit(f"the agent does not start; see {parts.folder}/agent.log")
        await asyncio.sleep(0.1)
    sender = Sender(SITE, "127.0.0.1", parts.broker_port, repeat_seconds=0.5)
    began = time.monotonic()
    async with sender.running():
        offered, kills = await asyncio.gather(
            offer(sender, args.rate, args.seconds),
            disturb(parts, chance, args.kill_every, args.seconds),
        )
        settled = await sender.settled(120.0)
    deadline = time.monotonic() + 120.0
    while parts.backlog() != 0 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    found, rows, batches = stored(parts.store)
    receipts = {
        (topic.split("/")[2], instant_us(datetime.fromisoformat(t)))
        for topic, t in sender.tally.receipts
    }
    lost = receipts - found.keys()
    wrong = [k for k in found if offered.get(k) != found[k]]
    print(f"{time.monotonic() - began:.0f} s at {args.rate:g} readings/s, seed {args.seed}")
    print("killed (SIGKILL)       ", ", ".join(f"{n} {k} times" for n, k in kills.items()))
    print(f"offered                 {len(offered)}, in {sender.tally.sent} messages")
    print(f"with a receipt          {len(receipts)}" + ("" if settled else "  (NOT ALL SETTLED)"))
    print(f"refused                 {len(sender.tally.refused)}")
    print(f"stored upstream         {rows} in {batches} batches")
    print(f"stored twice            {rows - len(found)}")
    print(f"receipt, but lost       {len(lost)}")
    print(f"stored without receipt  {len(found.keys() - receipts)}")
    print(f"stored with another value or never sent  {len(wrong)}")
    good = settled and not lost and not wrong and rows == len(found) == len(receipts)
    print("holds" if good else "DOES NOT HOLD")
    return 0 if good else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--kill-every", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repository", type=Path, help="release repository to serve from")
    parser.add_argument("--keep", type=Path, help="folder for states and logs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rbf-soak-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        parts = Parts(folder, args.repository)
        try:
            status = asyncio.run(soak(parts, args))
        finally:
            for process in parts.processes.values():
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                process.wait()
    sys.exit(status)


if __name__ == "__main__":
    main()
