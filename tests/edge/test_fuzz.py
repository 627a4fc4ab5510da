"""Whatever bytes a client sends, it is answered or cut off, and the next client is served."""

import json
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.agent import EdgeAgent
from edge_agent.client import RemoteAgent
from edge_agent.process import resident_bytes

from .conftest import listening
from .owner import first_root
from .releases import NAME, make_release
from .test_transports import INFER, WEST

INPUTS = np.array([[4, 270]], "<f4").tobytes()


def infer(head=None, *, length=None, split=None, data=INPUTS, headers=""):
    """An infer request, its lengths overstated or understated as asked."""
    tensor = {"name": "inputs", "shape": [1, 2], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = json.dumps({"inputs": [tensor | (head or {})]}).encode()
    body = text + data
    split = len(text) if split is None else split
    length = len(body) if length is None else length
    return (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Inference-Header-Content-Length: {split}\r\n{headers}\r\n"
    ).encode() + body


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
tensors = st.dictionaries(
    st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), values, max_size=2
)
requests = st.one_of(
    st.builds(infer, tensors),
    st.builds(
        infer,
        length=st.integers(0, 5000) | st.just(10**9) | st.just(10**15),
        split=st.integers(0, 5000) | st.just(10**12),
    ),
    st.builds(infer, data=st.binary(max_size=64)),
    st.builds(infer, headers=st.sampled_from([
        "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
        "Expect: 100-continue\r\n", "Content-Length: 3\r\n", "X: " + "y" * 2000 + "\r\n",
    ])),
    st.just(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
    st.just(b"GET /v2/health/live HTTP/1.0\r\n\r\n"),
)  # fmt: skip


@st.composite
def streams(draw):
    """Requests, some cut short, some with bytes changed or put in."""
    stream = bytearray(b"".join(draw(st.lists(requests, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(stream[: draw(st.integers(0, len(stream))) or None])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from edge_agent.config import AgentConfig

    folder = tmp_path_factory.mktemp("fuzz")
    config = AgentConfig(
        name=NAME,
        repository=folder / "repository",
        root=first_root(folder / "repository"),
        state=folder / "state",
        poll_seconds=3600,
        max_head_bytes=1024,
        max_body_bytes=4096,
    )
    with EdgeAgent(config) as agent:
        make_release(config.repository, 1)
        agent.pull().result(20)
        with listening(agent) as server:
            yield agent, server


def exchange(connect, pieces):
    """Send pieces, say that no more comes, and return what the server says until it closes."""
    with connect() as sock:
        sock.settimeout(20)
        try:
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        found = bytearray()
        while piece := sock.recv(65536):
            found += piece
        return bytes(found)


def connector(agent, server, unix):
    if not unix:
        host, port = server.http.removeprefix("http://").split(":")
        return lambda: socket.create_connection((host, int(port)))

    def connect():
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(agent.config.socket_path))
        return sock

    return connect


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stream=streams(), cut=st.integers(0, 400), unix=st.booleans())
def test_any_stream_is_answered_or_cut_off(served, stream, cut, unix):
    agent, server = served
    answer = exchange(connector(agent, server, unix), [stream[:cut], stream[cut:]])
    for part in answer.split(b"HTTP/1.1 ")[1:]:
        status = int(part[:3])
        assert status < 500, part[:300]
    assert agent.counters.failed == 0


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stream=st.binary(max_size=4000), unix=st.booleans())
def test_any_bytes_are_answered_or_cut_off(served, stream, unix):
    agent, server = served
    exchange(connector(agent, server, unix), [stream])
    assert agent.counters.failed == 0


def test_and_then_it_serves_with_the_memory_it_had(served):
    agent, server = served
    before = resident_bytes()
    connect = connector(agent, server, False)
    lying = infer(length=10**9)
    for _ in range(300):
        exchange(connect, [lying, b"x" * 100_000])
    with RemoteAgent(server.http) as client:
        assert client.predict(WEST).version == 1
    assert resident_bytes() - before < 20 * 2**20
    assert agent.counters.failed == 0
