"""Latency of the edge agent and of its peers over the in-process floor, interleaved in one run.

``python benchmarks/edge_latency.py [--models pod decoder] [--peers mosec fastapi ...] [--json F]``

For each peer, the floor (``InferenceSession.run`` in this process), the agent's transports and the
peer take turns of some hundred requests, so that whatever else the machine does falls on all of
them; ratios are to the floor of the same turns. The agent runs with ``wake_latency_us = 0``, which
keeps the machine's processors from sleeping, for the peers' benefit too; then once more without it:
on an idle virtual machine a sleeping client alone is woken 40 us late. Peers
are installed from PyPI into virtual environments under ``--cache``; one that cannot be installed or
started is named.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import edge_models
import numpy as np
import onnxruntime as ort
from peers import venvs
from peers.client import INPUTS, caller

from edge_agent.agent import EdgeAgent
from edge_agent.client import RemoteAgent
from edge_agent.config import AgentConfig

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "rbf-peers"
FLOOR = "floor: InferenceSession.run"
INPROCESS, UNIX, HTTP, JSON = (
    "EdgeAgent.predict, in process",
    "agent, Unix socket, OIP binary",
    "agent, HTTP, OIP binary",
    "agent, HTTP, OIP JSON",
)
Found = dict[str, list[np.ndarray]]


def time_calls(ask: Callable[[], Any], count: int) -> np.ndarray:
    """Return the latencies of so many calls, us."""
    clock = time.perf_counter_ns
    found = np.empty(count)
    before = clock()
    for i in range(count):
        ask()
        after = clock()
        found[i] = after - before
        before = after
    return found / 1e3


def interleave(contestants: dict[str, Callable[[], Any]], rounds: int, each: int) -> Found:
    """Let contestants take turns; return the latencies of each turn, us."""
    found: Found = {name: [] for name in contestants}
    names = list(contestants)
    gc.collect()
    gc.disable()
    try:
        for name in names:
            time_calls(contestants[name], 20)
        for turn in range(rounds):
            for name in names if turn % 2 else names[::-1]:
                calls = each if name != JSON else max(20, each // 5)
                found[name].append(time_calls(contestants[name], calls))
    finally:
        gc.enable()
    return found


@contextmanager
def serving(folder: Path, kind: str, *, awake: bool) -> Iterator[tuple[str, str, EdgeAgent]]:
    """Yield socket path and host:port of an agent process, and an agent in this process."""
    edge_models.write_release(folder / "repository", 1, kind)
    text = f'name = "{edge_models.NAME}"\nrepository = "repository"\n'
    text += 'root = "repository/metadata/1.root.json"\n'
    config = folder / "edge.toml"
    text += "wake_latency_us = 0\n" if awake else ""
    config.write_text(text + 'state = "state"\n')
    with (folder / "agent.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "serve", "--config", str(config)],
            cwd=HERE.parent,
            stderr=log,
        )
    inner = AgentConfig(
        name=edge_models.NAME,
        repository=folder / "repository",
        root=folder / "repository" / "metadata" / "1.root.json",
        state=folder / "inner",
    )
    unix = folder / "state" / "agent.sock"
    try:
        with RemoteAgent(f"unix:{unix}") as client, EdgeAgent(inner) as agent:
            client.wait_serving(1)
            agent.pull().result(60)
            address = json.loads((folder / "state" / "address.json").read_text())
            yield str(unix), address["http"].removeprefix("http://"), agent
    finally:
        process.terminate()
        process.wait(20)


def throughput(
    contestants: dict[str, tuple[str, str]], clients: int, seconds: float, passes: int, tmp: Path
) -> dict[str, float]:
    """Return requests per second of each contestant (kind, address) with several clients."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(passes):
        for name, (kind, address) in contestants.items():
            started = [
                subprocess.Popen(
                    [
                        sys.executable, HERE / "peers" / "client.py", kind, address, str(seconds),
                        str(tmp / f"client{i}.npy"),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                for i in range(clients)
            ]  # fmt: skip
            for process in started:
                process.stdout.readline()  # type: ignore[union-attr]
            for process in started:
                process.stdin.write(b"\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
            for process in started:
                process.communicate()
            count = sum(len(np.load(tmp / f"client{i}.npy")) for i in range(clients))
            found[name].append(count / seconds)
    return {name: float(np.median(rates)) for name, rates in found.items()}


def summary(turns: list[np.ndarray], floor: list[np.ndarray]) -> dict[str, float]:
    """Return percentiles (us), and ratio and difference of the medians to the floor."""
    values, base = np.concatenate(turns), np.concatenate(floor)
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
    at = float(np.median(base))
    return {
        "count": len(values), "p50": float(p50), "p99": float(p99), "p999": float(p999),
        "floor_p50": at, "ratio": float(p50) / at, "over_floor": float(p50) - at,
    }  # fmt: skip


def show(name: str, row: dict[str, float]) -> None:
    rate = f"{row['rate4']:8.0f}/s" if "rate4" in row else ""
    print(
        f"  {name:32s} {row['p50']:8.1f} {row['p99']:8.0f} {row['p999']:8.0f} us "
        f"{row['ratio']:7.2f} x floor  floor + {row['over_floor']:7.1f} us {rate}",
        flush=True,
    )


def measure_model(kind: str, options: argparse.Namespace, tmp: Path) -> dict[str, Any]:
    """Measure the agent and the peers on one model; print and return the rows."""
    data = edge_models.model(kind, 1)
    model = tmp / f"{kind}.onnx"
    model.write_bytes(data)
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = ort.InferenceSession(data, session_options, providers=["CPUExecutionProvider"])
    rows: dict[str, Any] = {}
    folder = tmp / kind
    with serving(folder, kind, awake=True) as (unix, http, agent):
        floor = lambda: session.run(None, {"inputs": INPUTS})  # noqa: E731
        own: dict[str, Callable[[], Any]] = {
            FLOOR: floor,
            INPROCESS: lambda: agent.predict(INPUTS),
            UNIX: caller("oip", unix),
            HTTP: caller("oip", http),
            JSON: caller("oip-json", http),
        }
        found = interleave(own, options.rounds, options.each)
        rows.update({name: summary(turns, found[FLOOR]) for name, turns in found.items()})
        rates = throughput(
            {UNIX: ("oip", unix), HTTP: ("oip", http)}, 4, options.seconds, options.passes, tmp
        )
        for name, rate in rates.items():
            rows[name]["rate4"] = rate
        print(
            f"\n{kind}: {len(data) / 1e6:.2f} MB\n  {'':32s}      p50      p99    p99.9    "
            "ratio of medians          4 clients",
            flush=True,
        )
        for name, row in rows.items():
            show(name, row)
        for name in options.peers:
            title = venvs.PEERS[name].title
            rows[title] = measure_peer(name, floor, http, model, options, tmp)
    with serving(tmp / f"{kind}-asleep", kind, awake=False) as (unix, http, _):
        asleep = {FLOOR: floor, UNIX: caller("oip", unix), HTTP: caller("oip", http)}
        found = interleave(asleep, options.rounds, options.each)
        print("  processors may sleep (no wake_latency_us):")
        for name in (UNIX, HTTP):
            row = rows[f"{name}, processors may sleep"] = summary(found[name], found[FLOOR])
            show(name, row)
    return rows


def first_answer(kind: str, address: str) -> Callable[[], int]:
    """Return a caller of a peer once it answers; several listen before their model is loaded.

    Raises
    ------
    RuntimeError, OSError, EOFError
        If it does not answer in time.
    """
    deadline = time.monotonic() + venvs.START_SECONDS
    while True:
        try:
            ask = caller(kind, address)
            ask()
        except (RuntimeError, OSError, EOFError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return ask


def measure_peer(
    name: str,
    floor: Callable[[], Any],
    http: str,
    model: Path,
    options: argparse.Namespace,
    tmp: Path,
) -> dict[str, Any]:
    peer = venvs.PEERS[name]
    problem = venvs.install(name, options.cache)
    if problem is None:
        try:
            with venvs.Running(name, options.cache, model, tmp / f"{name}.log") as running:
                address = f"127.0.0.1:{running.port}"
                ask = first_answer(peer.kind, address)
                contestants = {FLOOR: floor, HTTP: caller("oip", http), peer.title: ask}
                found = interleave(contestants, options.rounds, max(20, options.each // 3))
                row: dict[str, Any] = summary(found[peer.title], found[FLOOR])
                beside = summary(found[HTTP], found[FLOOR])
                row["agent_p50"], row["over_agent"] = beside["p50"], row["p50"] / beside["p50"]
                rates = throughput(
                    {HTTP: ("oip", http), peer.title: (peer.kind, address)},
                    4, options.seconds, options.passes, tmp,
                )  # fmt: skip
                row["rate4"], row["agent_rate4"] = rates[peer.title], rates[HTTP]
                row["version"] = venvs.version(name, options.cache)
            show(f"{peer.title} ({row['version']})"[:32], row)
            print(
                f"  {'':32s} {row['over_agent']:.2f} x the agent's HTTP beside it "
                f"({row['agent_p50']:.1f} us); {row['agent_rate4']:.0f}/s there",
                flush=True,
            )
        except (RuntimeError, OSError, EOFError, subprocess.SubprocessError) as error:
            problem = f"does not run: {error}"
        else:
            return row
    else:
        problem = f"cannot be installed: {problem}"
    print(f"  {peer.title:32s} {problem}", flush=True)
    return {"problem": problem}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(edge_models.GRIDS))
    parser.add_argument("--peers", nargs="*", default=list(venvs.PEERS), choices=venvs.PEERS)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--rounds", type=int, default=100, help="turns of each contestant")
    parser.add_argument("--each", type=int, default=150, help="requests a turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each throughput run")
    parser.add_argument("--passes", type=int, default=3, help="throughput runs")
    parser.add_argument("--quick", action="store_true", help="seconds, without peers; for CI")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if options.quick:
        options.peers = []
        options.rounds, options.each, options.seconds, options.passes = 5, 100, 0.3, 1
    options.cache = options.cache.resolve()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python "
        f"{platform.python_version()}, onnxruntime {ort.__version__}"
    )
    with tempfile.TemporaryDirectory(prefix="rbf-latency-") as tmp:
        results = {kind: measure_model(kind, options, Path(tmp)) for kind in options.models}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
