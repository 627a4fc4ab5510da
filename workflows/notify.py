"""Tells an edge agent that there is a new release, and waits until it serves.

An ordinary Parsl app on a thread of the campaign's own process: a block of a batch system may have
no way out, and need not wait. The agent's own polling goes on without it.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import structlog

from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import AgentUnreachable, ProtocolError, RbfError
from workflows.ledger import Ledger

log = structlog.get_logger()

EXECUTOR = "edge"
#: Ledger events.
SERVES, SERVES_NOT = "serves", "serves_not"


class NotifyResult(NamedTuple):
    """What became of a release on the edge."""

    version: int
    """The release's."""
    serving_at: float | None
    """When it began to serve, s since the Unix epoch on the agent's clock; none if it does not."""
    seen_at: float
    """When that was seen here, on our clock."""
    reason: str
    """Why it does not serve; empty if it does."""


def notify(agent: RemoteAgent, version: int, timeout: float) -> NotifyResult:
    """Have the agent look for a release, and wait until it or a newer one serves.

    Parameters
    ----------
    agent : RemoteAgent
    version : int
    timeout : float, s

    Returns
    -------
    NotifyResult
        Also if the agent cannot be reached or refuses the release.
    """
    deadline = time.monotonic() + timeout
    trouble = ""
    status: dict[str, Any] | None = None
    try:
        agent.pull()
    except RbfError as error:  # it looks by itself
        trouble = _pull_trouble(error)
    while True:
        try:
            status = agent.status()
            reason = why_not(status, version)
        except AgentUnreachable as error:
            reason = str(error)
        except RbfError as error:
            return NotifyResult(version, None, time.time(), f"{type(error).__name__}: {error}")
        if status is not None and reason is None:
            return NotifyResult(version, began(status["swaps"], version), time.time(), "")
        if time.monotonic() >= deadline or (status is not None and refusal(status, version)):
            told = f"{reason}; {trouble}" if trouble else str(reason)
            return NotifyResult(version, None, time.time(), told)
        time.sleep(agent.poll_seconds)


def why_not(status: Mapping[str, Any], version: int) -> str | None:
    """Return why a release does not serve by an agent's status; none if it or a newer one does."""
    active = status["active"]
    if active is not None and active >= version:
        return None
    refused = refusal(status, version)
    if refused is not None:
        return f"refused: {refused}"
    if status.get("source_trouble"):
        return f"the agent cannot fetch it: {status['source_trouble']}"
    held = status.get("held")
    if held is not None and held >= version:
        return f"release {held} was rolled back, and stays out"
    if status.get("candidate") is not None:
        return f"release {status['candidate']} proves itself in the shadow of release {active}"
    return f"release {active} serves" if active is not None else "no release serves"


def refusal(status: Mapping[str, Any], version: int) -> str | None:
    """Return the reason for which an agent has refused a release, or none."""
    reasons: Iterable[Any] = (r["reason"] for r in status["refused"] if r["version"] == version)
    return next((str(reason) for reason in reasons), None)


def began(swaps: Iterable[Mapping[str, Any]], version: int) -> float | None:
    """Return when a release began to serve by an agent's swaps, s since the Unix epoch."""
    times = (float(s["swapped_at"]) for s in swaps if s["version"] == version)
    return next(times, None)


def serving_times(
    published: Mapping[int, float],
    swaps: Iterable[Mapping[str, Any]],
    events: Iterable[tuple[float, str, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return when each release began to serve, and why those that did not have not.

    Parameters
    ----------
    published : mapping from version to s since the Unix epoch
    swaps : iterable of mapping
        The agent's, as far back as it remembers.
    events : iterable of (time, kind, data)
        The ledger's of kinds `SERVES` and `SERVES_NOT`.
    """
    known = list(swaps)
    told = {int(data["version"]): (kind, data) for _, kind, data in events}
    rows = []
    for version, at in sorted(published.items()):
        kind, data = told.get(version, ("", {}))
        serving_at = began(known, version)
        if serving_at is None and kind == SERVES:
            serving_at = data.get("serving_at")
        seen = data.get("seen_at") if kind == SERVES else None
        rows.append(
            {
                "version": version,
                "seconds": None if serving_at is None else round(serving_at - at, 3),
                "seen_seconds": None if seen is None else round(seen - at, 3),
                "reason": str(data.get("reason", "")) if serving_at is None else "",
            }
        )
    return rows


def serving_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `serving_times` as a table of the report, HTML; nothing for no rows."""
    if not rows:
        return ""
    head = ("release", "serves after, s", "known here after, s", "why not")
    lines = ["".join(f"<th>{h}</th>" for h in head)]
    for row in rows:
        times = ("-" if row[k] is None else f"{row[k]:.2f}" for k in ("seconds", "seen_seconds"))
        cells = (str(row["version"]), *times, html.escape(row["reason"]))
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<h2>From publish to serving</h2><table>{body}</table><p class='note'>From the moment the"
        " repository points to a release until the agent answers from it, on the agent's clock; and"
        " until the campaign, which told the agent, knows.</p>"
    )


class Notifier:
    """Notifies the agent of each release, one after the other.

    Parameters
    ----------
    app : callable
        Version to the future of a `NotifyResult`.
    ledger : Ledger
    say : callable
        Takes a line for whoever watches.
    """

    def __init__(
        self,
        app: Callable[[int], Future[NotifyResult]],
        ledger: Ledger,
        say: Callable[[str], None],
    ) -> None:
        self._app = app
        self._ledger = ledger
        self._say = say
        self._waiting: dict[Future[NotifyResult], int] = {}

    def published(self, version: int) -> None:
        """Tell the agent of a release."""
        self._waiting[self._app(version)] = version

    def resume(self) -> None:
        """Tell it of the newest release, if nobody knows yet whether that serves."""
        versions = [c.version for c in self._ledger.candidates() if c.state == "published"]
        known = {data["version"] for _, _, data in self._ledger.events(SERVES, SERVES_NOT)}
        if versions and versions[-1] is not None and versions[-1] not in known:
            self.published(versions[-1])

    def collect(self, *, wait: bool = False) -> None:
        """Write down what has become of releases; with `wait`, of all of them."""
        for future, version in list(self._waiting.items()):
            if not wait and not future.done():
                continue
            del self._waiting[future]
            try:
                found = future.result()
            except Exception as error:  # whatever it is, the campaign goes on
                log.exception("the agent could not be told", version=version)
                found = NotifyResult(version, None, time.time(), f"{type(error).__name__}: {error}")
            self._write_down(found)

    def _write_down(self, found: NotifyResult) -> None:
        if found.reason:
            self._ledger.event(SERVES_NOT, version=found.version, reason=found.reason)
            self._say(f"release {found.version} does not serve: {found.reason}")
            return
        self._ledger.event(
            SERVES, version=found.version, serving_at=found.serving_at, seen_at=found.seen_at
        )
        self._say(f"release {found.version} serves")


def notify_app(agent: RemoteAgent, timeout: float) -> Callable[[int], Future[NotifyResult]]:
    """Return `notify` as an app on the loaded Parsl's executor `EXECUTOR`."""
    from parsl import python_app

    def rbf_notify(version: int) -> NotifyResult:
        return notify(agent, version, timeout)

    app: Callable[[int], Future[NotifyResult]] = python_app(
        rbf_notify, executors=[EXECUTOR], cache=False
    )
    return app


def _pull_trouble(error: RbfError) -> str:
    if isinstance(error, ProtocolError) and error.data.get("status") == 403:
        return "it looks by itself: over TCP it takes no command"
    return f"it could not be told: {error}"
