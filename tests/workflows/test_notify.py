"""Telling an agent of releases: what it answers becomes what the report says."""

import time
from concurrent.futures import Future

import pytest

from edge_agent.contracts.errors import (
    AgentUnreachable,
    EndpointOffline,
    ProtocolError,
    UnknownEndpoint,
)
from workflows.notify import (
    SERVES,
    SERVES_NOT,
    Notifier,
    NotifyResult,
    notify,
    serving_table,
    serving_times,
)


class Agent:
    """Answers with one status after the other; the last one stays."""

    poll_seconds = 0.001

    def __init__(self, *statuses, pull=None):
        self.statuses = list(statuses)
        self.pull_error = pull
        self.pulls = 0

    def pull(self):
        self.pulls += 1
        if self.pull_error is not None:
            raise self.pull_error

    def status(self):
        found = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(found, Exception):
            raise found
        return found


def status(active, *, refused=(), swaps=(), **more):
    return {
        "active": active,
        "refused": [{"version": v, "reason": r} for v, r in refused],
        "swaps": [{"version": v, "swapped_at": at} for v, at in swaps],
        "held": None,
        "source_trouble": None,
        **more,
    }


def test_a_release_that_serves():
    agent = Agent(status(1), AgentUnreachable("away"), status(2, swaps=[(1, 5.0), (2, 9.0)]))
    found = notify(agent, 2, 20.0)
    assert (found.version, found.serving_at, found.reason, agent.pulls) == (2, 9.0, "", 1)


def test_a_newer_release_will_do():
    assert notify(Agent(status(3, swaps=[(3, 9.0)])), 2, 20.0).reason == ""


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (status(1, refused=[(2, "GoldenMismatch: no")]), "refused: GoldenMismatch: no"),
        (status(1, held=2), "release 2 was rolled back"),
        (status(1, source_trouble="no network"), "cannot fetch it: no network"),
        (status(1, candidate=2), "in the shadow of release 1"),
        (status(None), "no release serves"),
        (EndpointOffline("it is off"), "it is off"),
        (UnknownEndpoint("no such endpoint"), "UnknownEndpoint: no such endpoint"),
    ],
)
def test_why_a_release_does_not_serve(seen, why):
    found = notify(Agent(seen), 2, 0.01)
    assert found.serving_at is None
    assert why in found.reason


def test_an_agent_that_takes_no_commands_looks_by_itself():
    refused = ProtocolError("over the Unix socket alone", status=403)
    assert notify(Agent(status(2), pull=refused), 2, 1.0).reason == ""
    assert "it looks by itself" in notify(Agent(status(1), pull=refused), 2, 0.01).reason


class Ledger:
    def __init__(self):
        self.written = []

    def event(self, kind, **data):
        self.written.append((time.time(), kind, data))

    def events(self, *kinds):
        return [e for e in self.written if e[1] in kinds]

    def candidates(self):
        return []


def test_what_became_of_each_is_written_down():
    ledger, said = Ledger(), []
    futures = {1: Future(), 2: Future(), 3: Future()}
    notifier = Notifier(futures.__getitem__, ledger, said.append)
    for version in futures:
        notifier.published(version)
    notifier.collect()
    assert ledger.written == []
    futures[1].set_result(NotifyResult(1, 12.0, 13.0, ""))
    notifier.collect()
    futures[2].set_result(NotifyResult(2, None, 30.0, "off"))
    futures[3].set_exception(RuntimeError("broken"))
    notifier.collect(wait=True)
    kinds = [(kind, data["version"]) for _, kind, data in ledger.written]
    assert kinds == [(SERVES, 1), (SERVES_NOT, 2), (SERVES_NOT, 3)]
    assert said == [
        "release 1 serves",
        "release 2 does not serve: off",
        "release 3 does not serve: RuntimeError: broken",
    ]
    published = {1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0}
    swaps = [{"version": 4, "swapped_at": 41.5}]
    rows = serving_times(published, swaps, ledger.events(SERVES, SERVES_NOT))
    assert [(r["version"], r["seconds"], r["seen_seconds"]) for r in rows] == [
        (1, 2.0, 3.0), (2, None, None), (3, None, None), (4, 1.5, None)
    ]  # fmt: skip
    assert [r["reason"] for r in rows] == ["", "off", "RuntimeError: broken", ""]
    assert "<td>2.00</td>" in serving_table(rows)
    assert serving_table([]) == ""
