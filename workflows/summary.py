"""The campaign in figures: ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from edge_agent.contracts.storage import write_bytes
from workflows.ledger import ROLES, Ledger
from workflows.notify import SERVES, SERVES_NOT, serving_times
from workflows.service import ReplayLog, service, swap_pauses


def summarise(
    name: str,
    ledger: Ledger,
    log: ReplayLog,
    swaps: Sequence[Mapping[str, Any]],
    seconds: float,
    correction: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the figures of a campaign.

    Parameters
    ----------
    name : str
        Of the campaign.
    ledger : Ledger
    log : ReplayLog
        Complete.
    swaps : sequence of mapping
        The agent's records of its swaps.
    seconds : float
        Wall time of this run, s.
    correction : mapping, optional
        Of a campaign with two simulators: `workflows.fidelities.held_out_scores`.

    Returns
    -------
    dict
        See ``docs/campaign.md`` for every key.
    """
    rows = ledger.simulations()
    candidates = ledger.candidates()
    figures = service(log)
    spent = [row.seconds for row in rows if row.seconds]
    return {
        "campaign": name,
        "seconds": round(seconds, 3),
        "simulations": {
            "done": sum(row.state == "done" for row in rows),
            "failed": sum(row.state == "failed" for row in rows),
            "by_set": {
                role: sum(row.role == role and row.state == "done" for row in rows)
                for role in ROLES
            },
            "seconds_mean": round(sum(spent) / len(spent), 4) if spent else None,
            "failures": sorted({row.reason for row in rows if row.reason}),
        },
        "correction": correction,
        "states": [
            {
                "until": row.until,
                "screen_loss_factor": row.state.screen_loss_factor,
                "log_error": row.state.log_error,
                "torn": [t.panel for t in row.state.tears],
            }
            for row in ledger.states()
        ],
        "releases": [
            {
                "version": c.version,
                "published_at": _iso(c.result["published_at"]),
                "simulations": len(c.task["digests"]),
                "rmse": c.result["scores"]["evaluation"]["rmse"],
                "baseline_rmse": c.result["scores"]["evaluation"]["baselines"],
                "coverage": c.result["scores"]["evaluation"]["coverage"],
                "sensor_mae": c.result["scores"]["evaluation"]["sensor_mae"],
                **_bytes(c.result.get("serving")),
            }
            for c in candidates
            if c.state == "published"
        ],
        "refused": [
            {
                "simulations": len(c.task["digests"]),
                "rmse": c.result.get("scores", {}).get("evaluation", {}).get("rmse"),
                "state": c.state,
                "reasons": c.result.get("verdict", {}).get("reasons", [])
                or [c.result.get("reason", "")],
            }
            for c in candidates
            if c.state in ("refused", "failed")
        ],
        "agent": {
            "answered": figures.answered,
            "failed": figures.failed,
            "not_ready": figures.not_ready,
            "latency_ms": {"p50": figures.p50, "p99": figures.p99, "max": figures.longest},
            "staleness_seconds": figures.staleness,
        },
        "serving": serving_times(
            {
                int(c.version): c.result["published_at"]
                for c in candidates
                if c.state == "published" and c.version is not None
            },
            swaps,
            ledger.events(SERVES, SERVES_NOT),
        ),
        "swaps": swap_pauses(log, swaps),
    }


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Return the figures as a table for a terminal."""
    agent, serving = summary["agent"], summary["serving"]
    latency = agent["latency_ms"]
    table = Table(title=f"Campaign {summary['campaign']}", show_header=False)
    for name, value in (
        ("wall time", f"{summary['seconds']:.1f} s"),
        (
            "simulations",
            f"{summary['simulations']['done']} done, {summary['simulations']['failed']} failed",
        ),
        ("releases", f"{len(summary['releases'])} published, {len(summary['refused'])} refused"),
        (
            "publish to serving",
            ", ".join("-" if s["seconds"] is None else f"{s['seconds']:.2f}" for s in serving)
            + " s",
        ),
        ("model, or its delta", ", ".join(_size(r) for r in summary["releases"])),
        *_house(summary["states"]),
        ("answers", f"{agent['answered']} ({agent['failed']} failed)"),
        ("before the first release", f"{agent['not_ready']} readings kept"),
        (
            "latency p50 / p99 / max",
            " / ".join("-" if v is None else f"{v:.2f}" for v in latency.values()) + " ms",
        ),
        ("swap pauses", ", ".join(f"{s['pause_ms']:.1f}" for s in summary["swaps"]) + " ms"),
    ):
        table.add_row(name, value)
    return table


def _house(states: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not states:
        return []
    last = states[-1]
    torn = f", torn: {', '.join(last['torn'])}" if last["torn"] else ""
    text = f"{len(states)} estimates, the last {last['screen_loss_factor']:.2f}{torn}"
    return [("loss factor of the screens", text)]


def _bytes(serving: Mapping[str, Any] | None) -> dict[str, int | None]:
    """Return what a release weighs; a run of before there were deltas does not know."""
    known = serving or {}
    delta = known.get("delta") or {}
    return {"model_bytes": known.get("model_length"), "delta_bytes": delta.get("length")}


def _size(release: Mapping[str, Any]) -> str:
    whole, delta = release["model_bytes"], release["delta_bytes"]
    if whole is None:
        return "-"
    text = f"{whole / 1e3:.0f} kB"
    return text if delta is None else f"{delta / 1e3:.0f} of {text}"


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the figures, whole or not at all."""
    write_bytes(path, (json.dumps(summary, indent=2) + "\n").encode())


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
