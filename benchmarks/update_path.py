"""What an update costs: bytes, the error that its delta adds, and time from publish to serving.

``python benchmarks/update_path.py [--families pod_regression ...] [--runs 68] [--json FILE]``

Releases are made as a campaign makes them (`benchmarks/release_chain.py`): growing training sets of
the embedded solver, warm starts, the gate, a signed repository behind a static HTTP server. Two
devices follow it, one on loopback, one behind a link of 101 ms latency each way and 15 Mb/s (the
published field link; `benchmarks/slow_link.py`). Traffic goes on while they update. A third arm is
a device that takes the full file of the same release over the same slow link.

Times are of one update each, on whatever else the machine does: read medians. Looks at the
repository come at once here; a device looks every ``poll_seconds``, so add half of that.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import logging
import os
import shutil
import statistics
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
import structlog
from release_chain import Chain, Made, growing
from slow_link import SlowLink

import apps.repository.repository
import apps.transport
import edge_agent.slots
import edge_agent.updates.fetch
import edge_agent.updates.poller
import edge_agent.updates.signed
from apps.surrogates.base import FAMILIES
from edge_agent.agent import EdgeAgent
from edge_agent.config import AgentConfig
from edge_agent.contracts.release import Release
from edge_agent.settings import PromotionSettings, UpdateSettings

P = ParamSpec("P")
T = TypeVar("T")

LATENCY_S, RATE = 0.101, 15e6 / 8
#: Live predictions that the shadow waits for; at `TRAFFIC` a second.
SHADOW, TRAFFIC = 20, 200.0

#: Step -> the function whose time it is. What runs in another step's time is taken off there.
STEPS = {
    "sign": (apps.repository.repository.Repository, "commit"),
    "refresh": (edge_agent.updates.signed.SignedSource, "index"),
    "fetch": (edge_agent.updates.poller.Fetcher, "fetch"),
    "download": (edge_agent.updates.fetch.Downloads, "get"),
    "rebuild": (edge_agent.updates.fetch, "apply"),
    "verify": (edge_agent.slots, "read_stored"),
    "load": (edge_agent.slots, "load_model"),
    "golden": (edge_agent.slots, "check_golden"),
    "swap": (edge_agent.slots.Slots, "swap"),
}
SHOWN = ("sign", "refresh", "download", "rebuild", "verify", "load", "golden", "shadow", "swap")


class Stopwatch:
    """Adds up the time spent in each step, s; while it is installed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.at: dict[str, float] = {}
        """When each step began last."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        originals = [(*where, getattr(*where), step) for step, where in STEPS.items()]
        for owner, name, function, step in originals:
            setattr(owner, name, self._timed(step, function))
        try:
            yield
        finally:
            for owner, name, function, _ in originals:
                setattr(owner, name, function)

    def clear(self) -> None:
        self.seconds, self.at = {}, {}

    def _timed(self, step: str, function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            began = self.at[step] = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[step] = self.seconds.get(step, 0.0) + spent

        return timed


class _Handler(http.server.SimpleHTTPRequestHandler):
    """As nginx serves files: what is not there does not end the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, _more: str | None = None) -> None:
        self.send_response(code, message)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def static_server(folder: Path) -> Iterator[int]:
    """Serve a folder over HTTP on loopback; yields the port."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Device:
    """An agent with traffic, that looks at the repository when it is told."""

    def __init__(self, state: Path, chain: Chain, port: int) -> None:
        self.agent = EdgeAgent(
            AgentConfig(
                name=chain.site.name,
                root=chain.repository / "metadata" / "1.root.json",
                state=state,
                poll_seconds=3600.0,
                updates=UpdateSettings(url=f"http://127.0.0.1:{port}", jitter=0.0),
                promotion=PromotionSettings(
                    shadow_predictions=SHADOW, shadow_seconds=5.0, soak_seconds=0.001
                ),
            )
        )
        self._served: dict[int, float] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._traffic = threading.Thread(target=self._ask, daemon=True)
        self.agent.after_swap = self._swapped

    def update(self, version: int) -> float:
        """Look now; return the time until `version` serves, s."""
        began = time.perf_counter()
        self.agent.pull().result()
        with self._changed:
            if not self._changed.wait_for(lambda: version in self._served, timeout=60.0):
                raise SystemExit(f"release {version} does not serve: {self.agent.status()}")
        return self._served[version] - began

    def _swapped(self) -> None:
        with self._changed:
            version = self.agent.loaded[0].version
            self._served.setdefault(version, time.perf_counter())
            self._changed.notify_all()

    def _ask(self) -> None:
        rng = np.random.default_rng(0)
        while not self._stop.wait(1 / TRAFFIC):
            if self.agent.ready:
                speed, direction = rng.uniform(1.0, 12.0), rng.uniform(0.0, 360.0)
                self.agent.predict({"wind_speed": speed, "wind_from_direction": direction})

    def __enter__(self) -> Self:
        self.agent.start()
        self._traffic.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._traffic.join()
        self.agent.close()


def follow(chain: Chain, sizes: list[int], tmp: Path) -> list[dict[str, Any]]:
    """Publish a chain of releases to devices; return a row for each."""
    watch, rows = Stopwatch(), []
    with ExitStack() as stack:
        stack.enter_context(watch.installed())
        port = stack.enter_context(static_server(chain.repository))
        link = stack.enter_context(SlowLink(port, latency_s=LATENCY_S, bytes_per_s=RATE))
        near = stack.enter_context(Device(tmp / "near", chain, port))
        far = stack.enter_context(Device(tmp / "far", chain, link.port))
        whole = stack.enter_context(Device(tmp / "whole", chain, link.port))
        for runs in sizes:
            made = chain.train(runs)
            if not made.accepted:
                print(f"  {runs} runs: refused by the gate: {'; '.join(made.reasons)}", flush=True)
                continue
            watch.clear()
            began = time.perf_counter()
            result = chain.publish()
            publish_s = time.perf_counter() - began
            row = describe(chain, made, chain.release(result)) | {"publish_s": publish_s}
            row["sign_s"] = watch.seconds["sign"]
            for name, device in (("loopback", near), ("link", far), ("link_full", whole)):
                watch.clear()
                carried = link.down.carried
                with without_deltas(name == "link_full"):
                    seconds = device.update(result.version)
                row[name] = {"to_serving_s": seconds, "steps_s": steps(watch)}
                if name != "loopback":
                    row[name]["bytes"] = link.down.carried - carried
            rows.append(row)
            print(line(row), flush=True)
    return rows


@contextmanager
def without_deltas(wanted: bool) -> Iterator[None]:
    """Make the fetcher take full files, if that is wanted."""
    fetcher = edge_agent.updates.fetch.Fetcher
    original = fetcher._saved
    if wanted:
        fetcher._saved = lambda *_: 0  # type: ignore[method-assign]
    try:
        yield
    finally:
        fetcher._saved = original  # type: ignore[method-assign]


def steps(watch: Stopwatch) -> dict[str, float]:
    """Return the time of each step, s; what is inside another is not counted twice."""
    found = {k: watch.seconds.get(k, 0.0) for k in SHOWN if k not in {"sign", "shadow"}}
    if "golden" in watch.at and "swap" in watch.at:
        found["shadow"] = max(0.0, watch.at["swap"] - watch.at["golden"] - found["golden"])
    return found


def describe(chain: Chain, made: Made, release: Release) -> dict[str, Any]:
    """Return what a release weighs, and what its delta costs."""
    delta, model = made.serving.delta, apps.transport.serving_model(made.folder)
    golden = [release.golden.inputs, *release.golden.outputs.values()]
    return {
        "version": release.version,
        "simulations": made.simulations,
        "train_s": made.train_seconds,
        "selection_rmse": made.selection,
        "bytes": {
            "full": len(model),
            "compressed": len(zlib.compress(model, 9)),
            "delta": None if delta is None else delta.length,
            "golden": sum(t.length for t in golden),
        },
        "bits": None if delta is None else delta.bits,
        "ratio": None if delta is None else len(model) / delta.length,
        "rmse_added": None if delta is None else delta.loss,
        "std_change": None if delta is None else delta.std_change,
        "output_error": None if delta is None else output_error(chain, made, model),
        "whole_because": made.serving.whole_because,
    }


def output_error(chain: Chain, made: Made, model: bytes) -> float:
    """Return |rebuilt - trained| / |trained| of the wind over an even cover of inputs."""
    from apps.surrogates.export import run_onnx

    low, high = chain.campaign.scenarios.wind_speed
    share = np.arange(64) * np.array([[0.7548776662], [0.5698402910]]) % 1.0
    inputs = np.stack([low + (high - low) * share[0], 360.0 * share[1]], axis=1)
    trained, rebuilt = (
        run_onnx(data, inputs.astype(np.float32))[0]
        for data in ((made.folder / apps.transport.MODEL).read_bytes(), model)
    )
    return float(np.linalg.norm(rebuilt - trained) / np.linalg.norm(trained))


HEAD = (
    f"{'':>3}{'runs':>5}{'RMSE':>9} | {'full':>9}{'zlib':>9}{'delta':>8}{'bits':>5}{'ratio':>6}"
    f"{'RMSE +':>8}{'std':>7}{'output':>8} | {'loopback':>9}{'link':>7}{'(full':>7}) s"
)


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    size = row["bytes"]
    if row["bits"] is None:
        delta = f"{'-':>8}{'-':>5}{'-':>6}{'-':>8}{'-':>7}{'-':>8}"
    else:
        delta = (
            f"{size['delta']:>8}{row['bits']:>5}{row['ratio']:>6.1f}"
            f"{row['rmse_added']:>8.2%}{row['std_change']:>7.1%}{row['output_error']:>8.0e}"
        )
    times = [row[k]["to_serving_s"] for k in ("loopback", "link", "link_full")]
    because = f"  whole: {row['whole_because']}" if row["bits"] is None else ""
    return (
        f"{row['version']:>3}{row['simulations']:>5}{row['selection_rmse']:>9.4f} | "
        f"{size['full']:>9}{size['compressed']:>9}{delta} | "
        f"{times[0]:>9.3f}{times[1]:>7.2f}{times[2]:>7.2f} {because}"
    )


def step_table(rows: list[dict[str, Any]]) -> str:
    """Return medians of each step over the updates that came as a delta, ms."""
    updates = [r for r in rows if r["bits"] is not None]
    if not updates:
        return "no update came as a delta"
    lines = [f"{'ms (median)':>14}" + "".join(f"{name:>10}" for name in SHOWN)]
    for arm in ("loopback", "link", "link_full"):
        taken = [r[arm]["steps_s"] | {"sign": r["sign_s"]} for r in updates]
        values = [statistics.median(t.get(name, 0.0) for t in taken) * 1e3 for name in SHOWN]
        lines.append(f"{arm:>14}" + "".join(f"{value:>10.2f}" for value in values))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--runs", type=int, default=68, help="most training runs")
    parser.add_argument("--first", type=int, default=12, help="training runs of the first release")
    parser.add_argument(
        "--settings", type=json.loads, default={}, help="settings by family, JSON: fewer steps"
    )
    parser.add_argument("--store", type=Path, help="keep simulations in this folder")
    parser.add_argument("--json", type=Path, help="write the same here")
    args = parser.parse_args()
    os.environ.setdefault("RBF_PASSPHRASE", "benchmark")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tmp = Path(tempfile.mkdtemp(prefix="rbf-update-path-"))
    store = args.store or tmp / "simulations"
    store.mkdir(parents=True, exist_ok=True)
    results = {}
    try:
        for family in args.families:
            print(f"\n{family}\n{HEAD}", flush=True)
            chain = Chain(tmp / family, store, family, args.settings.get(family, {}))
            rows = follow(chain, list(growing(args.first, 1.4, args.runs)), tmp / f"{family}-edge")
            results[family] = rows
            print(step_table(rows), flush=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    print(
        "\nRMSE: on the selection set, m/s. RMSE +, std: what rounding did to it and to the "
        "standard deviation.\noutput: |rebuilt - trained| / |trained|. Times: from the look at the "
        f"repository to serving, the shadow of\n{SHADOW} predictions included; (full: the same "
        "release as a full file. A release also brings its manifest\nand golden examples."
    )
    if args.json:
        args.json.write_text(
            json.dumps({"latency_s": LATENCY_S, "rate": RATE, "families": results})
        )


if __name__ == "__main__":
    main()
