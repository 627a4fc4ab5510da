"""Round trips to an agent: its socket, HTTP, the plain Globus Compute Executor, and our client.

    python benchmarks/remote_calls.py [--json FILE]

One call, and 64 predictions: in one request each, but for the plain Executor, which sends 64 tasks.
The endpoint, the SDK and RabbitMQ are real; the hosted service is a stand-in on loopback, so its
network is missing: what is measured is what the software adds. Run by root it makes a network of
its own and becomes an ordinary user (`tests.globus.hermetic`). Calls through Globus Compute are
paced by the service's limit of 20 requests in 10 s and begin at random times: the endpoint and the
SDK each look for results twice a second, and whoever asks in step with them sees one phase only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import types
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BATCH = 64
#: Time between the beginnings of calls through the service, s: at least, and spread.
PACE, SPREAD = 0.6, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the table there, too")
    parser.add_argument("--calls", type=int, default=60, help="calls through Globus Compute")
    parser.add_argument("--direct", type=int, default=2000, help="calls over socket and HTTP")
    options = parser.parse_args()

    # Some wheels bring a package `tests` of their own, which would win over our folder.
    sys.modules["tests"] = types.ModuleType("tests")
    sys.modules["tests"].__path__ = [str(ROOT / "tests")]
    from tests.globus import hermetic

    hermetic.isolate()
    file = None if options.json is None else Path(options.json).open("w")  # noqa: SIM115
    hermetic.drop()
    from tests.globus.stack import CREDENTIALS, Stack, missing

    reason = missing()
    if reason is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= CREDENTIALS | {"GLOBUS_COMPUTE_USER_DIR": f"{folder}/client"}
        stack = Stack(Path(folder) / "stack")
        try:
            rows = measure(stack, options)
        finally:
            stack.close()
    show(rows, file)


def measure(stack: Any, options: argparse.Namespace) -> list[dict[str, Any]]:  # noqa: ANN401
    from globus_compute_sdk import Executor
    from globus_compute_sdk.serialize import ComputeSerializer, JSONData

    from edge_agent.calls.contract import VERSION
    from edge_agent.client import RemoteAgent
    from edge_agent.contracts.site import Grid
    from edge_agent.registration import read_functions
    from edge_agent.remote import registered_name
    from tests.edge.releases import make_release
    from tests.globus.stack import ENDPOINT

    # As many cells as the surrogates of the site in configs/sites have.
    grid = Grid(
        x=tuple(np.linspace(1, 100, 24)),
        y=tuple(np.linspace(1, 50, 12)),
        z=tuple(np.linspace(0.5, 5, 5)),
    )
    stack.prepare(lambda repository: make_release(repository, 1, grid=grid))
    one = np.array([[4.0, 270.0]], np.float32)
    many = np.column_stack([np.linspace(1, 12, BATCH), np.linspace(0, 350, BATCH)]).astype("f4")
    address = json.loads((stack.device.state / "address.json").read_text())
    rows: list[dict[str, Any]] = []

    def add(name: str, single: Callable[[], Any], batch: Callable[[], Any], calls: int) -> None:
        paced = calls == options.calls
        batches = calls if paced else calls // 10
        for what, call, count in (("one call", single, calls), ("64 batched", batch, batches)):
            times = timed(call, count, paced=paced)
            rows.append(row(name, what, times))
            print(line(rows[-1], rows), flush=True)

    print(f"{'':18} {'':11} {'p50 ms':>10} {'p99 ms':>10} {'n':>6}  of the socket's p50")
    for name, where in (("socket", address["unix_socket"]), ("HTTP", address["http"])):
        with RemoteAgent(where) as agent:
            add(
                name,
                lambda a=agent: a.predict(one),
                lambda a=agent: a.predict(many),
                options.direct,
            )
    functions = read_functions(stack.device.folder / "globus" / "rbf")
    function = functions[registered_name("predict")].id
    as_json = JSONData()
    with Executor(
        endpoint_id=ENDPOINT,
        api_burst_limit=8,
        api_burst_window_s=1,
        serializer=ComputeSerializer(strategy_data=as_json),
        result_serializers=[as_json],
    ) as executor:

        def plain(inputs: np.ndarray) -> None:
            futures = [
                executor.submit_to_registered_function(function, ({
                    "format": VERSION,
                    "id": RemoteAgent.request_id(),
                    "arguments": {"inputs": [values]},
                },))
                for values in inputs.tolist()
            ]  # fmt: skip
            wait(futures)
            if not all("result" in future.result() for future in futures):
                sys.exit("a call has failed")

        add("plain Executor", lambda: plain(one), lambda: plain(many), options.calls)
    with stack.agent() as agent:
        add("RemoteAgent", lambda: agent.predict(one), lambda: agent.predict(many), options.calls)
    return rows


def timed(call: Callable[[], Any], count: int, *, paced: bool) -> np.ndarray:
    """Return the times of calls, ms; the first one, which connects, is left out."""
    call()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        took = time.perf_counter() - began
        times.append(1e3 * took)
        if paced:
            time.sleep(max(0.0, PACE - took) + SPREAD * random.random())  # noqa: S311
    return np.array(times)


def row(name: str, what: str, times: np.ndarray) -> dict[str, Any]:
    p50, p99 = np.percentile(times, (50, 99))
    return {"way": name, "what": what, "n": len(times), "p50_ms": p50, "p99_ms": p99}


def line(found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    floor = next(r for r in rows if r["what"] == found["what"])
    return (
        f"{found['way']:18} {found['what']:11} {found['p50_ms']:10.2f} {found['p99_ms']:10.2f} "
        f"{found['n']:6d}  x {found['p50_ms'] / floor['p50_ms']:.1f}"
    )


def show(rows: list[dict[str, Any]], file: IO[str] | None) -> None:
    if file is not None:
        with file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
