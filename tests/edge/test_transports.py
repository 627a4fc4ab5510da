"""One contract for the agent in process, over HTTP and over its Unix socket; and each one's own."""

import http.client
import json
import socket
import threading
from contextlib import ExitStack

import numpy as np
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.api.server import listen_unix
from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import (
    AgentUnreachable,
    InvalidConfig,
    InvalidInput,
    InvalidReading,
    NoSuchRelease,
    NotReady,
    ProtocolError,
    SpoolError,
)
from edge_agent.contracts.observation import Reading

from .conftest import listening, wait_until, wind
from .releases import NAME, make_release

WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}
INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture(params=["in-process", "http", "unix"])
def caller(request, served):
    agent, tcp, unix, _ = served
    return {"in-process": agent, "http": tcp, "unix": unix}[request.param]


def publish(agent, version, **options):
    make_release(agent.config.repository, version, **options)
    assert agent.pull().result(20) == version


class TestEveryTransport:
    def test_gives_the_same_prediction(self, served, caller):
        agent = served[0]
        publish(agent, 1, bias=1.0)
        publish(agent, 2, bias=2.0)
        agent.keep_readings(agent.check_readings(wind("2016-06-01T01:00:00"))[0]).result(20)
        rows = np.array([[4, 270], [20, 10], [1, 1]], np.float32)
        for inputs, version in ((rows, None), (rows, 1), (WEST, None)):
            found = caller.predict(inputs, version=version)
            expected = agent.predict(inputs, version=version)
            np.testing.assert_array_equal(found.wind, expected.wind)
            np.testing.assert_array_equal(found.wind_std, expected.wind_std)
            np.testing.assert_array_equal(found.out_of_range, expected.out_of_range)
            np.testing.assert_array_equal(found.inputs, expected.inputs)
            for name in ("version", "staleness_seconds", "interval_factor", "data_time"):
                assert getattr(found, name) == getattr(expected, name)
        assert found.staleness_seconds == 3600.0

    @pytest.mark.parametrize(
        "inputs", [[np.nan, 1.0], [1.0], WEST | {"pressure": 1.0}, {"wind_speed": 1.0}]
    )
    def test_refuses_bad_inputs(self, served, caller, inputs):
        publish(served[0], 1)
        with pytest.raises(InvalidInput):
            caller.predict(inputs)

    def test_knows_no_other_version(self, served, caller):
        publish(served[0], 1)
        with pytest.raises(NoSuchRelease, match="loaded: 1"):
            caller.predict(WEST, version=9)

    def test_is_not_ready_before_the_first_release(self, caller):
        assert caller.status()["ready"] is False
        with pytest.raises(NotReady):
            caller.predict(WEST)


def test_refusals_come_from_the_server_too(served):
    """NaN and shapes are refused there, whatever a client checks."""
    agent, tcp, _, _ = served
    publish(agent, 1)

    def infer(**tensor):
        good = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [4, 270]}
        return tcp.request("POST", INFER, json.dumps({"inputs": [good | tensor]}).encode())

    assert infer().status == 200
    nan = np.array([np.nan, 1], "<f4").tobytes()
    head = {"name": "inputs", "shape": [1, 2], "datatype": "FP32"}
    head = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": 8}}]}).encode()
    reply = tcp.request(
        "POST", INFER, head + nan, {"Inference-Header-Content-Length": str(len(head))}
    )
    assert (reply.status, reply.headers["RBF-Error"]) == (400, "InvalidInput")
    assert list(reply.json()) == ["error"]
    for bad in ({"data": [1e300, 1]}, {"shape": [1, 3]}, {"name": "x"}, {"shape": [2, 1]}):
        assert infer(**bad).status == 400
    wrong = {"columns": "wind_from_direction,wind_speed"}
    body = {"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [4, 2]}]}
    reply = tcp.request("POST", INFER, json.dumps(body | {"parameters": wrong}).encode())
    assert reply.status == 400
    assert agent.counters.failed == 0


def test_readings_are_answered_kept_and_read_back(served):
    agent, tcp, unix, _ = served
    publish(agent, 1)
    answer = tcp.post_readings(wind("2016-06-01T01:00:00", 5.0, 270.0))
    assert answer["version"] == 1
    assert answer["kept"] == 2
    assert answer["staleness_seconds"] == 3600.0
    assert answer["data_time"] == "2016-06-01T01:00:00"
    assert set(answer["sensors"]) == {"middle", "corner"}
    expected = agent.predict_readings(wind("2016-06-01T01:00:00", 5.0, 270.0))
    assert answer["sensors"]["corner"] == expected.sensors["corner"]._asdict()
    wait_until(lambda: agent.counters.readings_accepted == 2)
    rows = unix.readings()
    assert [(r["quantity"], r["value"]) for r in rows] == [
        ("wind_speed", 5.0), ("wind_from_direction", 270.0)
    ]  # fmt: skip
    assert unix.readings(after=rows[0]["sequence"], limit=1) == rows[1:]
    reply = tcp.request("GET", f"/rbf/v1/readings?after={rows[-1]['sequence']}")
    assert reply.json() == {"readings": [], "next": rows[-1]["sequence"]}


def test_readings_before_the_first_release_are_on_disk_when_the_503_comes(served):
    agent, tcp, _, _ = served
    with pytest.raises(NotReady, match="2 readings kept") as caught:
        tcp.post_readings(wind("2016-06-01T01:00:00"))
    assert caught.value.kept == 2
    assert len(agent.readings()) == 2
    assert tcp.request("GET", "/v2/health/live").status == 200
    assert tcp.request("GET", "/v2/health/ready").status == 503
    assert not tcp.ready()
    publish(agent, 1)
    assert tcp.ready()


def test_good_readings_beside_bad_ones_are_kept(served):
    agent, tcp, _, _ = served
    publish(agent, 1)
    speed, direction = wind("2016-06-01T01:00:00")
    with pytest.raises(InvalidReading, match="1 good readings were kept") as caught:
        tcp.post_readings([speed, direction._replace(value=400.0)])
    assert caught.value.kept == 1
    with pytest.raises(InvalidReading, match=r"malformed reading.*\(and 1 more\)"):
        tcp.post_readings([speed._replace(value="x"), direction._replace(unit="rad")])
    rejected = agent.status()["counters"]["rejected"]
    assert rejected == {"range": 1, "unit": 1, "format": 1}
    for body in (b"", b"[]", b"{}", b'{"readings": []}', b"\xff", b'{"readings": 3}'):
        assert tcp.request("POST", "/rbf/v1/readings", body).status == 400


def test_readings_that_no_model_needs_are_kept_without_an_answer(served):
    agent, tcp, _, _ = served
    publish(agent, 1)
    warm = Reading("2016-06-01T01:00:00", "inside", "air_temperature", 20.0, "degC")
    assert tcp.post_readings([warm]) == {"kept": 1}
    with pytest.raises(InvalidInput, match="is missing") as caught:
        tcp.post_readings(wind("2016-06-01T01:00:00")[:1])
    assert caught.value.kept == 1


def test_a_full_spool_refuses_readings(served, monkeypatch):
    agent, tcp, _, _ = served

    def full(_readings):
        raise SpoolError("send again later", reason="full")

    monkeypatch.setattr(agent._spool, "append", full)
    with pytest.raises(SpoolError):
        tcp.post_readings(wind("2016-06-01T01:00:00"))


def test_state_changes_over_the_unix_socket_alone(served):
    agent, tcp, unix, _ = served
    make_release(agent.config.repository, 1)
    for command in (tcp.pull, tcp.rollback):
        with pytest.raises(ProtocolError, match="Unix socket alone") as caught:
            command()
        assert caught.value.status == 403
    assert unix.pull() == 1
    with pytest.raises(NoSuchRelease):
        unix.rollback()
    make_release(agent.config.repository, 2)
    assert unix.pull() == 2
    assert unix.rollback() == 1
    assert tcp.status()["held"] == 2
    assert unix.wait_serving(1, timeout=1)["active"] == 1
    with pytest.raises(NotReady, match="last seen: 1"):
        unix.wait_serving(2, timeout=0.1)
    assert agent.config.socket_path.stat().st_mode & 0o777 == 0o660


def test_what_is_not_there(served):
    _, tcp, _, _ = served
    assert tcp.request("GET", "/nothing").status == 404
    assert tcp.request("GET", "/v2/models/other").status == 404
    assert tcp.request("GET", f"/v2/models/{NAME}/versions/x/infer").status == 404
    reply = tcp.request("GET", INFER)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert tcp.request("GET", "/rbf/v1/readings?after=-1").status == 400


def test_status_is_whole(served):
    agent, tcp, unix, _ = served
    publish(agent, 1)
    tcp.predict(WEST)
    unix.post_readings(wind("2016-06-01T01:00:00"))
    status = tcp.status()
    assert status["latency_ms"]["count"] == 2
    assert status["latency_ms"]["p50"] <= status["latency_ms"]["max"]
    assert status["counters"]["answered"] == 2
    assert status["last_data_time"] == "2016-06-01T01:00:00"
    assert status["rss_bytes"] > 10**6
    swap = status["swaps"][0]
    assert swap["loading_started_at"] <= swap["swapped_at"] <= swap["finished_at"]


class TestServer:
    def test_answers_pipelined_requests_in_order(self, served):
        agent, _, unix, _ = served
        body = b'{"readings": [{"time": "2016-06-01T00:00:00", "sensor": "mast", '
        body += b'"quantity": "wind_speed", "value": 1, "unit": "m s-1"}]}'
        post = b"POST /rbf/v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(agent.config.socket_path))
            sock.sendall(
                post % (len(body), body) + get + b"\r\n" + get + b"Connection: close\r\n\r\n"
            )
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        statuses = [int(p.split(b" ")[0]) for p in answer.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [503, 200, 200]
        assert unix.status()["counters"]["readings_accepted"] == 1

    def test_answers_a_broken_request_and_closes(self, served):
        with socket.create_connection(served[3].split(":")) as sock:
            sock.settimeout(20)
            sock.sendall(b"NONSENSE\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in answer

    def test_refuses_bodies_too_large(self, served):
        connection = http.client.HTTPConnection(served[3], timeout=20)
        connection.putrequest("POST", INFER)
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()

    def test_serves_large_answers_to_slow_readers(self, served):
        publish(served[0], 1)
        rows = np.tile(np.array([[4, 270]], np.float32), (256, 1))
        host, port = served[3].split(":")
        body = json.dumps(
            {"inputs": [{
                "name": "inputs", "shape": [256, 2], "datatype": "FP32", "data": rows.tolist()
            }]}
        ).encode()  # fmt: skip
        post = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s"
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(20)
            sock.connect((host, int(port)))
            one = post % (INFER.encode(), len(body), b"", body)
            last = post % (INFER.encode(), len(body), b"Connection: close\r\n", body)
            sender = threading.Thread(target=sock.sendall, args=(one * 9 + last,))
            sender.start()
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            sender.join()
        assert answer.count(b"HTTP/1.1 200 OK") == 10

    def test_limits_connections(self, config):
        with EdgeAgent(config.model_copy(update={"max_connections": 2})) as agent:  # noqa: SIM117
            with listening(agent) as server, ExitStack() as stack:
                clients = [stack.enter_context(RemoteAgent(server.http)) for _ in range(3)]
                assert [c.request("GET", "/v2/health/live").status for c in clients] == [
                    200, 200, 503
                ]  # fmt: skip

    def test_replaces_a_dead_agents_socket_and_no_living_ones(self, agent):
        path = agent.config.socket_path
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        dead.close()
        with listening(agent), pytest.raises(InvalidConfig, match="another process listens"):
            listen_unix(path)
        assert not path.exists()


class TestClient:
    def test_survives_a_server_that_restarts(self, agent):
        with RemoteAgent(f"unix:{agent.config.socket_path}") as client:
            for _ in range(2):
                with listening(agent):
                    assert client.status()["site"] == NAME
            with pytest.raises(AgentUnreachable, match="is it running"):
                client.status()
            assert client.ready() is False

    def test_is_shared_by_threads(self, served):
        agent, tcp, _, _ = served
        publish(agent, 1)
        problems = []

        def work(speed):
            try:
                for _ in range(30):
                    assert tcp.predict([speed, 270.0]).inputs[0, 0] == np.float32(speed)
            except BaseException as error:  # noqa: BLE001 - shown below
                problems.append(error)

        threads = [threading.Thread(target=work, args=(s,)) for s in (1.0, 2.0, 3.0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems

    @pytest.mark.parametrize("address", ["", "unix:", "ftp://x", "http://", "http://h:x", "a/b"])
    def test_wants_an_address(self, address):
        with pytest.raises(InvalidConfig, match="unix:/path"):
            RemoteAgent(address)
