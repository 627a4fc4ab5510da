"""What cannot work says so: one typed error, within the time given, with what to do."""

import subprocess
import sys
import time

import pytest
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

from edge_agent.client import RemoteAgent, compute
from edge_agent.contracts.errors import (
    ArgumentRefused,
    EndpointOffline,
    FunctionRefused,
    InvalidConfig,
    InvalidInput,
    PayloadTooLarge,
    ProtocolError,
    ServiceUnreachable,
    UnknownEndpoint,
)
from edge_agent.registration import read_config, read_functions
from edge_agent.remote import registered_name

from .stack import ENDPOINT

WEST = [4.0, 270.0]


@pytest.fixture
def functions(stack):
    """The registered functions by name."""
    known = read_functions(stack.device.folder / "globus" / "rbf")
    return {name: known[registered_name(name)].id for name in ("predict", "status")}


def test_a_function_that_is_not_allowed(stack):
    with stack.agent(functions={}) as agent, pytest.raises(FunctionRefused, match="register"):
        agent.status()
    # Registered by somebody, and not on the list: the service refuses, or else the endpoint does.
    source = "def rbf_other(request):\n    return {'result': {}}\n"
    with stack.agent() as agent:
        agent.status()
        other = agent._over._compute._service().register_source_code(source, "rbf_other")
    for unchecked in (False, True):
        stack.web.faults.unchecked = unchecked
        try:
            with (
                stack.agent(functions={"status": other}, timeout=60.0) as agent,
                pytest.raises(FunctionRefused, match="does not allow status"),
            ):
                agent.status()
        finally:
            stack.web.faults.unchecked = False


def test_an_argument_that_is_pickled(stack, functions, monkeypatch):
    from globus_compute_sdk.serialize import ComputeSerializer

    with stack.agent(functions=functions) as agent:
        with pytest.raises(InvalidInput, match="not plain JSON"):
            agent._over._ask("status", [{"format": 1, "arguments": {"x": object()}}])
        # A caller who pickles all the same is refused by the endpoint.
        made = compute.Compute._make_executor

        def pickling(self):
            executor = made(self)
            executor.serializer = ComputeSerializer()
            return executor

        monkeypatch.setattr(compute.Compute, "_make_executor", pickling)
        with pytest.raises(ArgumentRefused, match="JSON arguments alone"):
            agent.status()


@pytest.mark.usefixtures("stack")
def test_the_plain_executor_cannot_bring_code():
    with (
        Executor(endpoint_id=ENDPOINT, api_burst_limit=8, api_burst_window_s=1) as executor,
        pytest.raises(Exception, match=r"not permitted|FUNCTION_NOT_PERMITTED"),
    ):
        executor.submit(print, "hello").result(60)


def test_callers_bring_no_commands(functions, tmp_path):
    mark = tmp_path / "mark"
    with (
        Executor(
            endpoint_id=ENDPOINT,
            user_endpoint_config={"endpoint_setup": f"touch {mark}"},
            api_burst_limit=8,
            api_burst_window_s=1,
        ) as executor,
        pytest.raises(TaskExecutionFailed, match="Additional properties are not allowed"),
    ):
        executor.submit_to_registered_function(functions["status"], ({},)).result(60)
    assert not mark.exists()


def test_more_than_the_service_carries(stack):
    with stack.agent() as agent:
        agent._model()
        before = stack.web.submissions
        with pytest.raises(PayloadTooLarge, match="fewer predictions") as caught:
            agent.predict([WEST] * 800_000)
        assert caught.value.size > caught.value.limit
        assert stack.web.submissions == before


@pytest.mark.usefixtures("stack")
def test_an_endpoint_that_nobody_knows():
    unknown = "cccccccc-0000-4000-8000-000000000001"
    for functions in (None, {"status": "dddddddd-0000-4000-8000-000000000001"}):
        with (
            RemoteAgent(f"globus:{unknown}", timeout=30.0, functions=functions) as agent,
            pytest.raises(UnknownEndpoint, match=unknown),
        ):
            agent.status()
    with pytest.raises(InvalidConfig, match="UUID"):
        RemoteAgent("globus:mine")


def test_a_service_that_is_silent(stack, functions):
    stack.web.faults.silent = True
    try:
        began = time.monotonic()
        with stack.agent(functions=functions, timeout=6.0) as agent:
            with pytest.raises(ServiceUnreachable):
                agent.status()
            assert agent.ready() is False
        assert time.monotonic() - began < 60.0  # the SDK alone would wait for minutes
    finally:
        stack.web.faults.silent = False


def test_what_only_a_direct_line_can(stack):
    with stack.agent() as agent, pytest.raises(ProtocolError, match="socket or HTTP"):
        agent.readings()


def test_registering_again_changes_nothing(stack):
    folder = stack.device.folder / "globus" / "rbf"
    before = read_config(folder)
    said = stack.device.register()
    assert said.count("kept") == 7
    assert "registered" not in said
    assert "restart" not in said
    assert read_config(folder) == before
    assert len(before["allowed_functions"]) == 7


def test_an_answer_that_never_comes_keeps_no_program_from_ending(stack):
    program = (
        "import sys\n"
        "from edge_agent.client import RemoteAgent\n"
        "from edge_agent.contracts.errors import EndpointOffline\n"
        "try:\n"
        "    RemoteAgent(sys.argv[1], timeout=8.0).status()\n"
        "except EndpointOffline:\n"
        "    print('no answer')\n"
    )
    stack.web.faults.drop = 100
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, f"globus:{ENDPOINT}"],
            env=stack.device.environment
            | {"GLOBUS_COMPUTE_USER_DIR": str(stack.folder / "client")},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    finally:
        stack.web.faults.drop = 0
    assert (done.returncode, done.stdout) == (0, "no answer\n"), done.stderr


def test_an_endpoint_that_is_off(stack, functions):
    stack.device.stop()
    try:
        with (
            stack.agent(functions=functions, timeout=20.0) as agent,
            pytest.raises(EndpointOffline, match="is off: start it"),
        ):
            agent.status()
    finally:
        stack.device.start()
        stack.wait_online()
