"""Whatever is lost between client and device, each call is answered, and carried out once."""

from concurrent.futures import CancelledError, Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.calls.contract import failure_of, new_request_id, prediction_json
from edge_agent.client import globus
from edge_agent.client.limits import RateLimit
from edge_agent.contracts.errors import (
    EndpointOffline,
    FunctionRefused,
    NoSuchRelease,
    PayloadTooLarge,
    ProtocolError,
    ServiceUnreachable,
)
from edge_agent.prediction import Prediction

ENDPOINT = "bbbbbbbb-0000-4000-8000-000000000001"
FAULTS = ("no service", "task lost", "result lost", "connection lost", "given up by another")


class Line:
    """Stands where `Compute` does: a device that remembers, behind a service with faults."""

    endpoint = ENDPOINT

    def __init__(self, faults=(), limit=10**9):
        self.limit = RateLimit(10**6, 10.0)
        self.faults = list(faults)
        self.outcomes = {}
        self.carried_out = []
        self.given_up = 0
        self.result_limit = limit

    def submit(self, _name, request, _timeout):
        fault = self.faults.pop(0) if self.faults else None
        future = Future()
        if fault == "no service":
            raise ServiceUnreachable("away")
        if fault != "task lost":
            outcome = self.device(request)
            if fault is None:
                future.set_result(outcome)
            elif fault == "connection lost":
                future.set_exception(ConnectionError("reset"))
            elif fault == "given up by another":
                future.set_exception(CancelledError())
        return self, future

    def device(self, request):
        made = request.get("id", "")
        if made not in self.outcomes:
            self.carried_out.append(made)
            self.outcomes[made] = self.answer(request)
        return self.outcomes[made]

    def answer(self, request):
        inputs = request.get("arguments", {}).get("inputs")
        if inputs is None:
            return {"result": {"active": len(self.carried_out)}}
        if len(inputs) * 100 > self.result_limit:
            size = len(inputs) * 100
            large = PayloadTooLarge("large", size=size, limit=self.result_limit)
            failed = failure_of(large)
            return {
                "failure": {"kind": failed.kind, "message": failed.message, "data": failed.data}
            }
        rows = np.array(inputs, np.float32)
        return {"result": prediction_json(prediction(rows))}

    def give_up(self, _executor):
        self.given_up += 1

    def online(self, _timeout):
        return False

    def close(self):
        pass


def prediction(rows):
    wind = np.repeat(rows[:, :1], 3, axis=1).reshape(-1, 3, 1, 1, 1)
    return Prediction(
        version=1, wind=wind, wind_std=wind, out_of_range=rows[:, 0] > 5, staleness_seconds=None,
        interval_factor=1.0, data_time=None, wall_time=1.0, inputs=rows,
    )  # fmt: skip


def over(line, timeout=20.0):
    transport = globus.GlobusTransport(ENDPOINT, timeout, {})
    transport._compute = line
    return transport


@pytest.fixture(autouse=True, scope="module")
def fast():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(globus, "PATIENCE_SECONDS", 0.005)
        patch.setattr(globus, "MAX_PATIENCE_SECONDS", 0.01)
        patch.setattr(globus, "PAUSE_SECONDS", 0.001)
        yield


@given(st.lists(st.sampled_from(FAULTS), max_size=6))
def test_a_command_is_carried_out_once(faults):
    line = Line(faults)
    made = new_request_id(1.7e9)
    assert over(line).call("rollback", {}, made) == {"active": 1}
    assert line.carried_out == [made]
    assert over(line).call("rollback", {}, made) == {"active": 1}
    assert line.carried_out == [made]


@given(st.lists(st.sampled_from(FAULTS), max_size=6), st.integers(1, 40), st.integers(1, 12))
def test_a_batch_is_whole_however_it_travels(faults, rows, most):
    line = Line(faults, limit=100 * most)
    inputs = np.column_stack([np.arange(rows), np.arange(rows)]).astype(np.float32)
    columns = ("wind_speed", "wind_from_direction")
    found = over(line).predict(inputs, columns, "x", version=None, request_id=None)
    np.testing.assert_array_equal(found.wind, prediction(inputs).wind)
    np.testing.assert_array_equal(found.out_of_range, inputs[:, 0] > 5)
    assert len(line.carried_out) == len(set(line.carried_out))


def test_what_never_comes_is_said_with_what_to_ask_again():
    line = Line(["task lost"] * 10_000)
    made = new_request_id(1.7e9)
    with pytest.raises(EndpointOffline, match="is off: start it") as caught:
        over(line, timeout=0.05).call("pull", {}, made)
    assert caught.value.request_ids == [made]
    assert line.given_up > 1
    line = Line(["no service"] * 10_000)
    with pytest.raises(ServiceUnreachable, match="away") as caught:
        over(line, timeout=0.05).call("pull", {}, made)
    assert caught.value.request_ids == [made]


def test_what_is_refused_is_not_asked_again():
    line = Line()
    line.answer = lambda _request: {
        "failure": {"kind": "NoSuchRelease", "message": "none", "data": {"version": 3}}
    }
    with pytest.raises(NoSuchRelease) as caught:
        over(line).call("promote", {"version": 3}, new_request_id(1.7e9))
    assert caught.value.version == 3
    line.answer = lambda _request: "nonsense"
    with pytest.raises(ProtocolError, match="no outcome"):
        over(line).call("pull", {}, new_request_id(1.7e9))
    line = Line()

    def refuse(*_):
        raise FunctionRefused("not allowed")

    line.submit = refuse
    with pytest.raises(FunctionRefused):
        over(line).status()


def test_a_result_that_is_not_there_yet_is_none():
    line = Line()
    line.answer = lambda _request: {"result": {"state": "begun"}}
    assert over(line).result(new_request_id(1.7e9)) is None
