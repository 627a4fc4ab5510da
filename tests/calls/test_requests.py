"""Calls over the agent's socket: carried out once, answered as often as asked, through kills."""

import itertools
import json
import threading
import time

import numpy as np
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.calls import service
from edge_agent.calls.contract import new_request_id
from edge_agent.calls.settle import FILE, open_journal
from edge_agent.client import RemoteAgent
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import (
    AgentUnreachable,
    InvalidInput,
    NoSuchRelease,
    NoSuchRequest,
    NotReady,
    Overloaded,
    ProtocolError,
    RequestExpired,
    SpoolError,
)
from tests.edge.conftest import listening
from tests.edge.releases import make_release

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}


def rows(config):
    journal = open_journal(config)
    try:
        return {row.id: row for row in journal.rows()}
    finally:
        journal.close()


@pytest.fixture
def unix(agent):
    make_release(agent.config.repository, 1)
    agent.pull().result(10)
    with listening(agent), RemoteAgent(f"unix:{agent.config.socket_path}") as unix:
        yield unix


def test_a_prediction_is_remembered(agent, unix):
    made = unix.request_id()
    found = unix.predict(WEST, request_id=made)
    np.testing.assert_array_equal(found.wind, agent.predict(WEST).wind)
    answered = agent.counters.answered
    again = unix.predict(WEST, request_id=made)
    assert (again.wall_time, agent.counters.answered) == (found.wall_time, answered)
    assert unix.result(made)["wall_time"] == found.wall_time
    with pytest.raises(InvalidInput, match="another call"):
        unix.predict([5.0, 270.0], request_id=made)
    with pytest.raises(InvalidInput, match="version 7"):
        unix.predict(WEST, request_id="x")
    with pytest.raises(NoSuchRequest):
        unix.result(unix.request_id())


def test_commands_change_what_serves_once(agent, unix):
    make_release(agent.config.repository, 2)
    first = unix.request_id()
    assert [unix.pull(request_id=first) for _ in range(2)] == [2, 2]
    back = unix.request_id()
    assert [unix.rollback(request_id=back) for _ in range(3)] == [1, 1, 1]
    assert unix.rollback() == 2
    assert unix.rollback(request_id=back) == 1
    assert [s.reason for s in agent.swaps].count("rollback") == 2
    listed = unix.releases()
    assert listed["active"] == 2
    assert [(r["version"], r["state"]) for r in listed["releases"]] == [
        (2, "active"), (1, "previous")
    ]  # fmt: skip


def test_errors_are_remembered_too(agent, unix):
    made = unix.request_id()
    for _ in range(2):
        with pytest.raises(NoSuchRelease, match="no previous"):
            unix.rollback(request_id=made)
    make_release(agent.config.repository, 2)
    unix.pull()
    with pytest.raises(NoSuchRelease):
        unix.rollback(request_id=made)
    with pytest.raises(NoSuchRelease) as caught:
        unix.predict(WEST, version=9, request_id=unix.request_id())
    assert caught.value.version == 9
    with pytest.raises(InvalidInput) as caught:
        unix.predict([np.nan, 1.0], request_id=unix.request_id())
    put = lambda body: unix.request("PUT", f"/rbf/v1/requests/{unix.request_id()}", body).json()  # noqa: E731
    for arguments in (
        {"inputs": "x"},
        {"inputs": [[1, 2]], "version": "1"},
        {"columns": ["a"]},
        {},
    ):
        found = put(json.dumps({"command": "predict", "arguments": arguments}).encode())
        assert found["failure"]["kind"] == "InvalidInput"
    assert put(b'{"command": "format"}')["error"].startswith("no command 'format'")


def test_before_the_first_release(agent):
    with listening(agent), RemoteAgent(f"unix:{agent.config.socket_path}") as unix:
        assert unix.releases() == {"active": None, "held": None, "releases": []}
        with pytest.raises(NotReady):
            unix.predict(WEST, request_id=unix.request_id())
        assert unix.pull() is None


def test_over_tcp_nothing_changes(agent):
    make_release(agent.config.repository, 1)
    agent.pull().result(10)
    with listening(agent) as server, RemoteAgent(server.http) as tcp:
        with pytest.raises(ProtocolError, match="Unix socket alone"):
            tcp.pull()
        made = tcp.request_id()
        assert tcp.predict(WEST, request_id=made).version == 1
        assert tcp.result(made)["version"] == 1
        assert tcp.releases()["active"] == 1


def test_many_at_once_are_one(agent, unix, monkeypatch):
    make_release(agent.config.repository, 2)
    unix.pull()
    gate = threading.Event()
    agent.alone(lambda: gate.wait(20))
    made, found = unix.request_id(), []
    threads = [
        threading.Thread(target=lambda: found.append(unix.rollback(request_id=made)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while agent.config.state.joinpath(FILE).exists() is False:
        time.sleep(0.01)
    reply = unix.request("GET", f"/rbf/v1/requests/{made}")
    assert reply.status in (202, 404)
    gate.set()
    for thread in threads:
        thread.join()
    assert found == [1] * 4
    assert rows(agent.config)[made].executions == 1
    monkeypatch.setattr(service, "MAX_WAITING", 0)
    with pytest.raises(Overloaded):
        unix.pull()


def test_what_is_too_old_is_refused(config):
    config = config.model_copy(update={"calls_kept": 100, "calls_bytes": 2**20})
    make_release(config.repository, 1)
    with EdgeAgent(config) as agent, listening(agent):
        agent.pull().result(10)
        with RemoteAgent(f"unix:{config.socket_path}") as unix:
            old = unix.request_id()
            first = unix.request_id()
            unix.pull(request_id=first)
            for _ in range(101):
                unix.pull()
            for made in (first, old):
                with pytest.raises(RequestExpired, match="older than"):
                    unix.pull(request_id=made)


#: Before the state to restart from is on the disk, and after.
BEFORE = ("calls.begun", "promotion.recorded")
AFTER = ("promotion.committed", "promotion.swapped", "promotion.journalled:2",
         "calls.carried_out", "calls.ended")  # fmt: skip


@pytest.mark.parametrize("point", BEFORE + AFTER)
def test_a_rollback_that_is_killed_happens_once(launch, tmp_path, point):
    repository = tmp_path / "repository"
    make_release(repository, 1)
    agent = launch()
    agent.client.wait_serving(1, 20)
    make_release(repository, 2)
    agent.client.wait_serving(2, 20)
    agent.stop()
    agent = launch(failpoint=point)
    agent.client.wait_serving(2, 20)
    made = new_request_id(time.time())
    with pytest.raises(AgentUnreachable):
        agent.client.rollback(request_id=made)
    assert agent.wait() == -9
    agent = launch()
    agent.client.wait_serving(1, 20)
    assert [agent.client.rollback(request_id=made) for _ in range(2)] == [1, 1]
    status = agent.client.status()
    assert (status["active"], status["held"]) == (1, 2)
    swaps = [s["reason"] for s in status["swaps"]]
    assert swaps.count("rollback") <= 1  # the line about one may be lost, its effect never
    agent.stop()
    row = rows(AgentConfig.from_toml(agent.config))[made]
    assert (row.state, row.executions) == ("ended", 2 if point in BEFORE else 1)


@pytest.mark.parametrize("point", ["calls.begun", "calls.carried_out", "calls.ended"])
def test_a_prediction_that_is_killed_is_answered(launch, tmp_path, point):
    make_release(tmp_path / "repository", 1)
    agent = launch(failpoint=point)
    agent.client.wait_serving(1, 20)
    made = new_request_id(time.time())
    with pytest.raises(AgentUnreachable):
        agent.client.predict(WEST, request_id=made)
    agent.wait()
    agent = launch()
    agent.client.wait_serving(1, 20)
    found = [agent.client.predict(WEST, request_id=made).wall_time for _ in range(2)]
    assert found[0] == found[1]
    agent.stop()


def test_a_journal_that_is_damaged_stops_calls_and_not_serving(config):
    make_release(config.repository, 1)
    config.state.mkdir()
    (config.state / FILE).write_bytes(b"no database" * 1000)
    with EdgeAgent(config) as agent, listening(agent):
        agent.pull().result(10)
        with RemoteAgent(f"unix:{config.socket_path}") as unix:
            assert unix.predict(WEST).version == 1
            with pytest.raises(SpoolError):
                unix.pull()


def test_calls_that_nobody_settled_are_not_repeated(config, agent):
    journal = open_journal(config)
    made = new_request_id(agent.clock.now())
    from edge_agent.calls.contract import Call

    journal.begin(made, Call(command="rollback"), standing=b"", now=agent.clock.now())
    journal.close()
    with (
        listening(agent),
        RemoteAgent(f"unix:{config.socket_path}") as unix,
        pytest.raises(SpoolError, match="not settled"),
    ):
        unix.rollback(request_id=made)


def test_identifiers_grow_with_time():
    ids = [new_request_id(t) for t in (1.0, 2.0, 3.0)]
    assert all(a < b for a, b in itertools.pairwise(ids))
