"""What swapping releases does to live requests: tail with and without swaps, and memory.

``python benchmarks/swap_tail.py [--model decoder] [--swaps 50] [--requests 100000] [--repeats 5]``

Closed-loop clients (processes of their own) ask an agent over its Unix socket. Arms take turns:
without swaps, with swaps, without again; the two without give the ratio that no swap causes (A/A),
against which the ratio with swaps (A/B) is to be read. In the field releases are signed on another
machine; so here they are signed between the arms, and only come into sight during one. Every arm
sends the agent as many ``pull`` commands; without swaps they find nothing. Then memory: resident
size after 10 and after 200 swaps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import edge_models
import numpy as np
from peers.client import Http, caller

from edge_agent.client import RemoteAgent

HERE = Path(__file__).resolve().parent


def client(unix: str, count: int, pipe: Connection) -> None:
    """Ask `count` times in a closed loop each time the pipe says so; send the latencies back."""
    ask = caller("oip", unix)
    clock = time.perf_counter_ns
    while (go := pipe.recv()) is not None:
        least = count if go else 20
        failed = 0
        starts = np.empty(10 * count + 1000, np.int64)
        done = 0
        starts[0] = clock()
        # On until both the count is reached and the swaps are over.
        while done < least or (not pipe.poll() and done + 2 < len(starts)):
            try:
                ask()
            except (RuntimeError, OSError, EOFError):
                failed += 1
                ask = caller("oip", unix)
            done += 1
            starts[done] = clock()
        pipe.recv()
        pipe.send((np.diff(starts[: done + 1]), failed))
    pipe.send(None)


class Arm(NamedTuple):
    """One arm of one repeat."""

    latencies: np.ndarray
    """us."""
    failed: int
    swap_seconds: list[float]
    """From the command to the answer of each swap."""


class Bench:
    """An agent process, its repository and clients."""

    def __init__(self, tmp: Path, kind: str, clients: int, per_client: int) -> None:
        self.repository = tmp / "repository"
        self.kind = kind
        self.version = 1
        self._staged: dict[int, bytes] = {}
        edge_models.write_release(self.repository, 1, kind)
        config = tmp / "edge.toml"
        config.write_text(
            f'name = "{edge_models.NAME}"\nrepository = "repository"\n'
            'root = "repository/metadata/1.root.json"\nstate = "state"\n'
            "[promotion]\nshadow_predictions = 0\n"
        )
        self._log = (tmp / "agent.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "serve", "--config", str(config)],
            cwd=HERE.parent,
            stderr=self._log,
        )
        self.unix = str(tmp / "state" / "agent.sock")
        self.remote = RemoteAgent(f"unix:{self.unix}", timeout=60)
        self.remote.wait_serving(1)
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        for _ in range(clients):
            ours, theirs = context.Pipe()
            context.Process(
                target=client, args=(self.unix, per_client, theirs), daemon=True
            ).start()
            self._pipes.append(ours)

    def prepare(self, count: int) -> None:
        """Write and sign the next releases, out of sight."""
        following = range(self.version + 1, self.version + count + 1)
        self._staged = edge_models.stage(self.repository, following, self.kind)

    def swap(self) -> float:
        """Show the next release and have it swapped in; return how long it took, s."""
        self.version += 1
        edge_models.reveal(self.repository, self._staged[self.version])
        began = time.perf_counter()
        active = self.remote.pull()
        took = time.perf_counter() - began
        if active is None or active < self.version:
            msg = f"release {self.version} does not serve: {self.remote.status()['refused']}"
            raise RuntimeError(msg)
        return took

    def arm(self, swaps: int, spacing: float, *, without: int = 0) -> Arm:
        """Let the clients run, and swap meanwhile, or only ask for it."""
        for pipe in self._pipes:
            pipe.send(True)
        time.sleep(0.2)
        took = []
        for _ in range(swaps):
            took.append(self.swap())
            time.sleep(spacing)
        for _ in range(without):
            self.remote.pull()
            time.sleep(spacing)
        for pipe in self._pipes:
            pipe.send("stop")
        found = [pipe.recv() for pipe in self._pipes]
        return Arm(np.concatenate([f[0] for f in found]) / 1e3, sum(f[1] for f in found), took)

    def resident(self) -> int:
        """Return the agent's resident memory, bytes."""
        return int(self.remote.status()["rss_bytes"])

    def close(self) -> None:
        """End everything."""
        for pipe in self._pipes:
            pipe.send(None)
            pipe.recv()
        self.remote.close()
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


def describe(arm: Arm) -> dict[str, float]:
    """Return the numbers of an arm."""
    p50, p99, p999 = np.percentile(arm.latencies, (50, 99, 99.9))
    return {
        "requests": len(arm.latencies), "failed": arm.failed, "p50_us": float(p50),
        "p99_us": float(p99), "p999_us": float(p999), "longest_us": float(arm.latencies.max()),
    }  # fmt: skip


def memory(bench: Bench, swaps: int) -> dict[str, Any]:
    """Return the resident size over further swaps, while requests go on."""
    http: Http | Any = caller("oip", bench.unix)
    found: dict[str, Any] = {}
    for number in range(1, swaps + 1):
        bench.prepare(1)
        bench.swap()
        for _ in range(20):
            http()
        if number in (10, swaps):
            found[f"after_{number}"] = bench.resident()
    found["ratio"] = found[f"after_{swaps}"] / found["after_10"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="decoder", choices=edge_models.GRIDS)
    parser.add_argument("--swaps", type=int, default=50, help="in each arm that has them")
    parser.add_argument("--requests", type=int, default=100_000, help="of each arm")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--spacing", type=float, default=None, help="s between swaps")
    parser.add_argument("--memory-swaps", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="seconds; for CI")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.repeats, options.swaps, options.memory_swaps = 2000, 1, 5, 20
    results: dict[str, Any] = {"arms": []}
    print(f"{options.model}, {options.clients} clients, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="rbf-swap-") as tmp:
        bench = Bench(
            Path(tmp), options.model, options.clients, options.requests // options.clients
        )
        first = bench.arm(0, 0.0)
        seconds = first.latencies.sum() / 1e6 / options.clients
        spacing = options.spacing or max(0.05, seconds / max(1, options.swaps) - 0.03)
        for repeat in range(options.repeats):
            bench.prepare(options.swaps)
            before = bench.arm(0, spacing, without=options.swaps)
            during = bench.arm(options.swaps, spacing)
            after = bench.arm(0, spacing, without=options.swaps)
            rows = {k: describe(a) for k, a in zip("ABa", (before, during, after), strict=True)}
            quiet = np.concatenate([before.latencies, after.latencies])
            rows["A/A"] = rows["a"]["p999_us"] / rows["A"]["p999_us"]
            rows["A/B"] = rows["B"]["p999_us"] / float(np.percentile(quiet, 99.9))
            rows["swap_ms"] = float(np.median(during.swap_seconds)) * 1e3
            results["arms"].append(rows)
            for name, arm in (("without", "A"), ("swaps", "B"), ("without", "a")):
                row = rows[arm]
                print(
                    f"  {repeat + 1} {name:8s} {row['requests']:7d} requests "
                    f"{row['failed']} failed  p50 {row['p50_us']:6.0f}  "
                    f"p99 {row['p99_us']:6.0f}  p99.9 {row['p999_us']:7.0f}  "
                    f"longest {row['longest_us']:8.0f} us",
                    flush=True,
                )
            print(
                f"    p99.9 A/A {rows['A/A']:.2f}, with swaps / without {rows['A/B']:.2f}, "
                f"a swap takes {rows['swap_ms']:.0f} ms",
                flush=True,
            )
        ratios = [float(np.median([r[k] for r in results["arms"]])) for k in ("A/A", "A/B")]
        failed = sum(r[k]["failed"] for r in results["arms"] for k in "ABa")
        longest = [max(r[k]["longest_us"] for r in results["arms"]) / 1e3 for k in "AB"]
        print(
            f"median of {options.repeats}: p99.9 A/A {ratios[0]:.2f}, with swaps / without "
            f"{ratios[1]:.2f} (aim: 1.5); failed {failed}; longest {longest[1]:.1f} ms with swaps, "
            f"{longest[0]:.1f} ms without",
            flush=True,
        )
        results |= {"A/A": ratios[0], "A/B": ratios[1], "failed": failed}
        if options.memory_swaps:
            found = results["memory"] = memory(bench, options.memory_swaps)
            print(
                f"resident after 10 swaps {found['after_10'] / 2**20:.1f} MiB, after "
                f"{options.memory_swaps} {found[f'after_{options.memory_swaps}'] / 2**20:.1f} MiB: "
                f"{found['ratio']:.2f} x (aim: 1.2)"
            )
        bench.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
