"""Check what the quick campaign promises: python .ci/check_summary.py SUMMARY.json."""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Exit with the first promise that does not hold."""
    summary = json.loads(Path(path).read_text())
    releases, agent = summary["releases"], summary["agent"]
    checks = {
        "at least 2 releases": len(releases) >= 2,
        "at least 1000 answers": agent["answered"] >= 1000,
        "no failed answer": agent["failed"] == 0,
        "latencies measured": all(agent["latency_ms"][k] > 0 for k in ("p50", "p99", "max")),
        "every release swapped in": {s["version"] for s in summary["swaps"]}
        >= {r["version"] for r in releases[-1:]},
        "last release below the first": releases[-1]["rmse"] < releases[0]["rmse"],
        "last release below every baseline": all(
            releases[-1]["rmse"] < value for value in releases[-1]["baseline_rmse"].values()
        ),
        "at least three baselines": len(releases[-1]["baseline_rmse"]) >= 3,
    }
    for promise, holds in checks.items():
        sys.stdout.write(f"{'ok  ' if holds else 'FAIL'} {promise}\n")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main(sys.argv[1])
