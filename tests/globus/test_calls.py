"""One contract for the agent over socket, HTTP and the real endpoint; and the endpoint's own."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import (
    InvalidInput,
    NoSuchRelease,
    NoSuchRequest,
    NotReady,
    ProtocolError,
)
from edge_agent.contracts.site import Grid
from tests.edge.releases import expected_wind, make_release

from .stack import once

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}
WAYS = ("unix", "http", "globus")
MANY = np.column_stack([np.linspace(1, 12, 64), np.linspace(0, 350, 64)]).astype(np.float32)


@pytest.fixture(scope="module")
def agents(stack):
    """The same agent, every way."""
    with ExitStack() as closing:
        address = json.loads((stack.device.state / "address.json").read_text())
        yield {
            "unix": closing.enter_context(RemoteAgent(address["unix_socket"])),
            "http": closing.enter_context(RemoteAgent(address["http"])),
            "globus": closing.enter_context(stack.agent()),
        }


@pytest.fixture(params=WAYS)
def agent(agents, request):
    return agents[request.param]


def test_every_way_tells_the_same(agents, agent):
    assert agent.ready()
    direct = agents["unix"]
    for asked in (agent.status, direct.status):
        assert (asked()["site"], asked()["active"]) == ("test-house", 1)
    assert agent.releases() == direct.releases()
    assert agent.wait_serving(1, 5.0)["active"] == 1
    with pytest.raises(NotReady, match="does not serve version 99"):
        agent.wait_serving(99, 0.1)


@pytest.mark.parametrize("inputs", [WEST, [4.0, 270.0], MANY], ids=["names", "row", "rows"])
def test_every_way_predicts_the_same(agents, agent, inputs):
    found, expected = agent.predict(inputs), agents["unix"].predict(inputs)
    for name in ("wind", "wind_std", "out_of_range", "inputs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.version, found.interval_factor) == (expected.version, expected.interval_factor)
    np.testing.assert_allclose(found.wind, expected_wind(found.inputs), atol=1e-5)


def test_every_way_fails_the_same(agent):
    with pytest.raises(InvalidInput, match="not a finite"):
        agent.predict([np.nan, 270.0])
    with pytest.raises(InvalidInput, match="unknown input 'x'"):
        agent.predict({"x": 1.0})
    with pytest.raises(NoSuchRelease, match="release 7 is not"):
        agent.predict(WEST, version=7)
    with pytest.raises(NoSuchRequest):
        agent.result(agent.request_id())


def test_every_way_remembers(agents, agent):
    made = agent.request_id()
    found = agent.predict(WEST, request_id=made)
    for other in agents.values():
        assert other.result(made)["wall_time"] == found.wall_time
        assert other.predict(WEST, request_id=made).wall_time == found.wall_time
        with pytest.raises(InvalidInput, match="another call"):
            other.predict([5.0, 90.0], request_id=made)


def test_tcp_alone_changes_nothing(agents):
    for change in (agents["http"].pull, agents["http"].rollback):
        with pytest.raises(ProtocolError, match="Unix socket alone"):
            change()


def test_commands_through_the_endpoint(stack, agents):
    agent, direct = agents["globus"], agents["unix"]
    make_release(stack.device.repository, 2, bias=0.5)
    made = agent.request_id()
    assert agent.pull(request_id=made) == 2
    assert once(stack.device.calls(), made).result == {"active": 2}
    np.testing.assert_allclose(
        agent.predict(WEST).wind, expected_wind(np.array([[4.0, 270.0]]), 0.5), atol=1e-5
    )
    assert agent.predict(WEST, version=1).version == 1
    assert agent.rollback() == 1
    assert direct.status()["held"] == 2
    assert agent.promote(2) == 2
    with pytest.raises(NoSuchRelease):
        agent.promote(99)
    assert agent.rollback() == 1
    assert [r["version"] for r in agent.releases()["releases"]] == [2, 1]
    log = (stack.device.state / "journal.jsonl").read_text()
    assert "uid" in log or "pid" in log  # who asked


def test_a_batch_beyond_the_limit_goes_in_parts(stack, tmp_path):
    grid = Grid(
        x=tuple(np.linspace(1, 100, 48)),
        y=tuple(np.linspace(1, 50, 24)),
        z=tuple(np.linspace(0.5, 5, 10)),
    )
    make_release(tmp_path / "repository", 1, grid=grid)
    with (
        stack.device.serving(tmp_path / "repository", "test-house", tmp_path / "state"),
        stack.agent() as agent,
    ):
        agent.wait_serving(1, 60.0)
        made = agent.request_id()
        found = agent.predict(MANY, request_id=made)
        np.testing.assert_allclose(found.wind, expected_wind(MANY, grid=grid), atol=1e-4)
        parts = [row for row in stack.device.calls() if row.command == "predict"]
        assert len(parts) > 2
        assert all((row.state, row.executions) == ("ended", 1) for row in parts)
        # Asked again, nothing is computed again.
        assert agent.predict(MANY, request_id=made).wall_time == found.wall_time
        assert len(stack.device.calls()) == len(parts)
