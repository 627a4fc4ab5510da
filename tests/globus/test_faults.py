"""What breaks between a caller and the device costs time, never an answer, and repeats nothing."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from edge_agent.client import RemoteAgent, globus
from edge_agent.contracts.errors import EndpointOffline
from tests.edge.releases import expected_wind, make_release
from workflows.edge import wait_until

from .stack import once

CALLS = 4
#: Enough for whatever is broken to be mended and asked again.
TIMEOUT = 150.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(globus, "PATIENCE_SECONDS", 6.0)


@pytest.fixture
def whole(stack):
    """The stack, with its user endpoint and agent up; all faults are mended afterwards."""
    with stack.agent(timeout=TIMEOUT) as agent:
        agent.status()
    yield stack
    stack.web.faults.__init__()
    stack.endpoint_line.restore()
    stack.device.start()


class Asked:
    """Predictions under way, each with an identifier and a wind of its own."""

    def __init__(self, stack, agent, count=CALLS):
        self.stack = stack
        self.rows = [np.array([[2.0 + i, 30.0 * i]], np.float32) for i in range(count)]
        self.ids = [agent.request_id() for _ in self.rows]
        self._pool = ThreadPoolExecutor(count)
        self._futures = [
            self._pool.submit(agent.predict, row, request_id=request_id)
            for row, request_id in zip(self.rows, self.ids, strict=True)
        ]

    def check(self):
        """Every answer is right, and its call was carried out once."""
        found = [future.result(TIMEOUT + 60) for future in self._futures]
        self._pool.shutdown()
        calls = self.stack.device.calls()
        for row, request_id, prediction in zip(self.rows, self.ids, found, strict=True):
            np.testing.assert_allclose(prediction.wind, expected_wind(row), atol=1e-5)
            assert once(calls, request_id).result["wall_time"] == prediction.wall_time

    @property
    def carried_out(self):
        return {row.id for row in self.stack.device.calls() if row.state == "ended"} & set(self.ids)


def tasks_taken(stack):
    return sum(log.count("Preparing to execute task") for log in stack.device.logs())


@contextmanager
def held(stack, agent):
    """Ask; within, all calls are on the device and none is answered: the agent stands still."""
    agent._model()  # known before it does
    before = tasks_taken(stack)
    process = psutil.Process(stack.device.agent_pid())
    process.suspend()
    try:
        asked = Asked(stack, agent)
        assert wait_until(lambda: tasks_taken(stack) >= before + CALLS, 60.0)
        yield asked
    finally:
        process.resume()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_broker_gone_for_12_seconds(whole, how):
    with whole.agent(timeout=TIMEOUT) as agent:
        agent._model()
        whole.web.faults.delay = 1.0  # results are on their way when it goes
        asked = Asked(whole, agent)
        assert wait_until(lambda: bool(asked.carried_out), 60.0)
        getattr(whole.rabbit, how)()
        time.sleep(12)
        whole.rabbit.start()
        whole.web.faults.delay = 0.0
        asked.check()


def test_silent_cut_of_30_seconds(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        with held(whole, agent) as asked:
            whole.endpoint_line.freeze()
        assert wait_until(lambda: len(asked.carried_out) == CALLS, 60.0)
        time.sleep(30)
        whole.endpoint_line.restore()
        asked.check()


def test_web_service_down_and_back(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        agent._model()
        whole.web.faults.down = True
        asked = Asked(whole, agent)
        time.sleep(10)
        whole.web.faults.down = False
        asked.check()


def test_endpoint_ended_during_an_outage(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        with held(whole, agent) as asked:
            whole.endpoint_line.refuse()
        assert wait_until(lambda: len(asked.carried_out) == CALLS, 60.0)
        whole.device.signal(signal.SIGTERM)
        whole.endpoint_line.restore()
        asked.check()


def test_core_endpoint_killed(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        with held(whole, agent) as asked:
            whole.device.signal(signal.SIGKILL)
        asked.check()


@pytest.mark.parametrize("point", ["calls.begun", "promotion.committed", "calls.carried_out"])
def test_agent_killed_during_a_rollback(whole, point):
    device = whole.device
    with whole.agent(timeout=TIMEOUT) as agent:
        serving = agent.status()["active"]
        newest = 1 + max(release["version"] for release in agent.releases()["releases"])
        make_release(device.repository, newest)
        assert agent.pull() == newest
        device.kill_agent()
        device.start_agent(failpoint=point)
        before = device.agent_pid()
        made = agent.request_id()
        assert agent.rollback(request_id=made) == serving
        assert device.agent_pid() != before
        assert agent.rollback(request_id=made) == serving
        status = agent.status()
    assert (status["active"], status["held"]) == (serving, newest)
    row = next(row for row in device.calls() if row.id == made)
    assert (row.state, row.outcome.result) == ("ended", {"active": serving})
    assert row.executions == (2 if point == "calls.begun" else 1)  # begun, and killed before


def test_four_clients_at_once_against_a_dead_agent(whole):
    device = whole.device
    device.kill_agent()
    starts = device.starts()
    agents = [whole.agent(timeout=TIMEOUT) for _ in range(4)]
    try:
        asked = [Asked(whole, agent, count=1) for agent in agents]
        for one in asked:
            one.check()
    finally:
        for agent in agents:
            agent.close()
    assert device.starts() == starts + 1
    assert len(device.agents()) == 1


def test_results_lost_and_tasks_delivered_twice(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        agent._model()
        whole.web.faults.drop = CALLS
        asked = Asked(whole, agent)
        asked.check()
        whole.web.faults.duplicate = True
        Asked(whole, agent).check()


def test_an_answer_is_there_for_another_client(whole):
    with whole.agent(timeout=TIMEOUT) as agent:
        agent._model()
        made = agent.request_id()
        whole.web.faults.drop = 1
        with whole.agent(timeout=5.0) as short:
            short._known = agent._known
            with pytest.raises(EndpointOffline) as caught:
                short.predict([4.0, 270.0], request_id=made)
        assert caught.value.request_ids == [made]
        found = agent.result(made)
        assert found["wall_time"] == once(whole.device.calls(), made).result["wall_time"]
    with RemoteAgent(whole.device.socket) as direct:
        assert direct.result(made)["wall_time"] == found["wall_time"]
