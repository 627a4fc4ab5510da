"""Progress for a person: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workflows.decisions import REFERENCE, Tally
from workflows.ledger import CandidateRow, Role
from workflows.service import Service

LINE_SECONDS = 5.0

#: Roles that only a campaign with two simulators has.
SECOND: tuple[Role, ...] = (*REFERENCE, "paired")


@dataclass(frozen=True)
class Snapshot:
    """Where the campaign stands, for display."""

    name: str
    elapsed: float
    """Wall time since the start, s."""
    tallies: Mapping[Role, Tally]
    running: Mapping[str, int]
    """Cases or candidates in flight by stage."""
    candidates: list[CandidateRow]
    agent: Mapping[str, Any] | None
    """The agent's status; none if it does not answer."""
    service: Service
    notes: list[str] = field(default_factory=list)

    @property
    def serving(self) -> int | None:
        """Version that the agent serves."""
        return (self.agent or {}).get("active")


class View(Protocol):
    """Shows progress."""

    def update(self, snapshot: Snapshot) -> None:
        """Show where the campaign stands."""
        ...

    def say(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class LiveView:
    """A table that redraws itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def update(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._live.update(render(snapshot))

    def say(self, text: str) -> None:
        """Print above the table."""
        self._console.print(text, highlight=False)

    def close(self) -> None:
        """Remove the table."""
        self._live.stop()


class LineView:
    """A line every few seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, snapshot: Snapshot) -> None:
        """Print a line if the last is some seconds old."""
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            self.say(one_line(snapshot))

    def say(self, text: str) -> None:
        """Print."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to restore."""


def make_view(*, plain: bool) -> View:
    """Return a live view if standard output is a terminal and `plain` is not asked for."""
    console = Console()
    return LineView() if plain or not console.is_terminal else LiveView(console)


def one_line(snapshot: Snapshot) -> str:
    """Return a snapshot as one line."""
    total = Tally(
        *(
            sum(getattr(t, name) for t in snapshot.tallies.values())
            for name in ("planned", "done", "failed")
        )
    )
    running = snapshot.running.get("simulate", 0)
    stages = [f"{s} running" for s in ("train", "validate", "publish") if s in snapshot.running]
    service = snapshot.service
    parts = [
        f"{snapshot.elapsed:6.1f} s",
        (
            f"simulations {total.done} done, {running} running, "
            f"{max(0, total.planned - running)} queued, {total.failed} failed"
        ),
        *stages,
        f"serving {'release ' + str(snapshot.serving) if snapshot.serving else 'nothing yet'}",
        f"{service.answered} answers, {service.failed} failed",
    ]
    if service.p50 is not None:
        parts.append(f"p50 {service.p50:.2f} ms, p99 {service.p99:.2f} ms")
    if service.staleness is not None:
        parts.append(f"staleness {service.staleness / 3600:.1f} h")
    return " | ".join(parts)


def render(snapshot: Snapshot) -> Group:
    """Return a snapshot as tables."""
    simulations = Table(title="Simulations", expand=True)
    for column in ("set", "queued", "running", "done", "failed"):
        simulations.add_column(column, justify="left" if column == "set" else "right")
    running = snapshot.running.get("simulate", 0)
    for role, tally in snapshot.tallies.items():
        if role in SECOND and tally == Tally():
            continue
        # Cases run in the order planned, so the frozen sets' are the first in flight.
        here = min(running, tally.planned)
        running -= here
        simulations.add_row(
            role, str(tally.planned - here), str(here), str(tally.done), str(tally.failed)
        )
    agent = Table(title="Edge agent", expand=True, show_header=False)
    service = snapshot.service
    for name, value in (
        ("serves", f"release {snapshot.serving}" if snapshot.serving else "nothing yet"),
        ("answers", f"{service.answered} ({service.failed} failed)"),
        ("latency p50 / p99", _latency(service)),
        ("staleness", "-" if service.staleness is None else f"{service.staleness / 3600:.1f} h"),
    ):
        agent.add_row(name, value)
    side_by_side = Table.grid(expand=True)
    side_by_side.add_row(simulations, agent)
    stages = ", ".join(s for s in ("train", "validate", "publish") if s in snapshot.running)
    title = f"{snapshot.name}  {snapshot.elapsed:.0f} s" + (f"  [{stages}]" if stages else "")
    return Group(
        Panel(Group(side_by_side, candidate_table(snapshot.candidates)), title=Text(title))
    )


def candidate_table(candidates: list[CandidateRow]) -> Table:
    """Return the candidates with their scores as a table."""
    table = Table(
        title="Candidates: RMSE on the evaluation set, m/s",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        expand=True,
    )
    baselines = sorted({name for c in candidates for name in _evaluation(c).get("baselines", {})})
    for column in ("#", "release", "runs", "rmse", *baselines, "coverage", "state"):
        # Words wrap where underscores would be cut.
        heading, state = column.replace("_", " "), column == "state"
        table.add_column(heading, justify="left" if state else "right", no_wrap=state)
    for candidate in candidates:
        scores = _evaluation(candidate)
        table.add_row(
            str(candidate.number),
            str(candidate.version or "-"),
            str(len(candidate.task["digests"])),
            _figure(scores.get("rmse")),
            *(_figure(scores.get("baselines", {}).get(name)) for name in baselines),
            _figure(scores.get("coverage")),
            candidate.state,
        )
    return table


def _evaluation(candidate: CandidateRow) -> dict[str, Any]:
    scores: dict[str, Any] = candidate.result.get("scores", {}).get("evaluation", {})
    return scores


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _latency(service: Service) -> str:
    return "-" if service.p50 is None else f"{service.p50:.2f} / {service.p99:.2f} ms"
