"""What the API promises beyond inference: index, OpenAPI, metrics, tokens, TLS, overload."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import schemathesis
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from edge_agent.agent import EdgeAgent
from edge_agent.api.openapi import openapi
from edge_agent.client import RemoteAgent, error_of
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import InvalidConfig, Overloaded, ProtocolError, Unauthorised

from .conftest import TOKEN, listening, wind
from .releases import INSIDE, NAME, STATE, make_release
from .test_transports import INFER, WEST, publish

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def served(agent):
    with listening(agent) as server, RemoteAgent(server.http) as tcp:
        yield agent, server, tcp


def infer_body(speed=4.0):
    tensor = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [speed, 270.0]}
    return json.dumps({"inputs": [tensor]}).encode()


class TestRepositoryIndex:
    def test_lists_loaded_and_refused_releases(self, served):
        agent, server, tcp = served
        with triton.InferenceServerClient(server.http.removeprefix("http://")) as client:
            assert client.get_model_repository_index() == []
            publish(agent, 1)
            publish(agent, 2)
            make_release(agent.config.repository, 3, golden_error=1.0)
            agent.pull().result(20)
            index = client.get_model_repository_index()
        assert [(e["name"], e["version"], e["state"]) for e in index] == [
            (NAME, "2", "READY"), (NAME, "1", "READY"), (NAME, "3", "UNAVAILABLE")
        ]  # fmt: skip
        assert "golden" in index[2]["reason"]
        ready = tcp.request("POST", "/v2/repository/index", b'{"ready": true}')
        assert [e["version"] for e in json.loads(ready.body)] == ["2", "1"]
        assert tcp.request("POST", "/v2/repository/index", b"[1]").status == 400


class TestOpenApi:
    def test_describes_every_path_and_no_other(self, served):
        _, server, tcp = served
        described = tcp.request("GET", "/openapi.json").json()
        assert described["openapi"].startswith("3.1")
        found = {
            (method.upper(), path)
            for path, operations in described["paths"].items()
            for method in operations
            if method != "parameters"
        }
        assert found == server.routes.endpoints()

    def test_says_that_a_token_is_needed(self):
        described = openapi("house", "1", token=True)
        assert described["security"] == [{"token": []}]
        for operations in described["paths"].values():
            for method, operation in operations.items():
                assert method == "parameters" or "401" in operation["responses"]

    def test_holds_for_generated_requests(self, served):
        """Schemathesis: no 500, documented statuses, answers that fit their schemas."""
        agent, server, _ = served
        publish(agent, 1, state=STATE, inside=INSIDE, limits={"distance": 3.0})
        schema = schemathesis.openapi.from_dict(openapi(NAME, "1", token=False))
        schema.config.base_url = server.http
        limits = settings(
            max_examples=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        for result in schema.get_all_operations():
            operation = result.ok()

            kinds = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

            @limits
            @given(case=kinds[0] | kinds[1])
            def check(case):
                case.validate_response(case.call(), checks=CHECKS)

            check()
        assert agent.counters.failed == 0


class TestMetrics:
    def test_begin_with_the_first_scrape_and_count(self, served):
        agent, _, tcp = served
        publish(agent, 1)
        tcp.predict(WEST)
        first = tcp.request("GET", "/metrics")
        assert first.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b'rbf_stage_duration_seconds_count{stage="decode"} 0\n' in first.body
        for _ in range(3):
            tcp.predict(WEST)
        tcp.request("POST", INFER, b"{")
        text = tcp.request("GET", "/metrics").body.decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert lines["rbf_answered_total"] == "4"
        assert lines["rbf_invalid_total"] == "1"
        assert lines["rbf_release_version"] == "1.0"
        for stage in ("queue", "decode", "inference", "encode"):
            label = f'stage="{stage}"'
            assert lines[f"rbf_stage_duration_seconds_count{{{label}}}"] == "3"
            assert lines[f'rbf_stage_duration_seconds_bucket{{{label},le="+Inf"}}'] == "3"
            assert 0 < float(lines[f"rbf_stage_duration_seconds_sum{{{label}}}"]) < 3

    def test_a_gauge_that_fails_hides_no_other(self, served):
        agent, _, tcp = served
        agent.gauges["good"] = ("Good.", lambda: 2)
        agent.gauges["bad"] = ("Bad.", lambda: 1 / 0)
        text = tcp.request("GET", "/metrics").body
        assert b"rbf_good 2.0\n" in text
        assert b"rbf_bad" not in text

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
    def test_promtool_accepts_them(self, served):
        agent, _, tcp = served
        publish(agent, 1)
        tcp.post_readings(wind("2016-06-01T00:00:00"))
        agent.counters.rejected['a"b\\c\n'] += 1
        for _ in range(2):
            tcp.predict(WEST)
            text = tcp.request("GET", "/metrics").body
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


class TestOverload:
    @pytest.fixture
    def config(self, config):
        return config.model_copy(update={"max_queue": 2})

    def test_requests_beyond_the_queue_are_refused_at_once(self, served):
        agent, server, tcp = served
        publish(agent, 1)
        tcp.predict(WEST)
        gate, entered = threading.Event(), threading.Event()

        def slow():
            entered.set()
            gate.wait(20)
            return {}

        agent.sections["slow"] = slow  # holds the loop while the others arrive
        clients = [RemoteAgent(server.http) for _ in range(6)]
        replies = []
        holder = threading.Thread(target=tcp.status)
        holder.start()
        assert entered.wait(20)
        threads = [
            threading.Thread(target=lambda c=c: replies.append(c.request("POST", INFER, BODY)))
            for c in clients
        ]
        for thread in threads:
            thread.start()
        let_them_arrive()
        gate.set()
        for thread in (*threads, holder):
            thread.join(20)
        statuses = sorted(r.status for r in replies)
        assert statuses == [200, 200, 503, 503, 503, 503]
        refused = next(r for r in replies if r.status == 503)
        assert isinstance(error_of(refused), Overloaded)
        assert refused.headers["Retry-After"] == "1"
        assert agent.counters.refused_overload == 4
        for client in clients:
            client.close()
        del agent.sections["slow"]
        assert tcp.request("POST", INFER, BODY).status == 200, "and it goes on"


BODY = infer_body()


def let_them_arrive():
    """The loop stands still: nothing says when the requests lie in the sockets."""
    time.sleep(0.3)


class TestTogether:
    def test_waiting_requests_get_their_own_answers(self, served):
        agent, server, tcp = served
        publish(agent, 1)
        gate, entered = threading.Event(), threading.Event()

        def slow():
            entered.set()
            gate.wait(20)
            return {}

        agent.sections["slow"] = slow
        holder = threading.Thread(target=tcp.status)
        holder.start()
        assert entered.wait(20)
        found = {}

        def ask(speed):
            with RemoteAgent(server.http) as client:
                found[speed] = client.request("POST", INFER, infer_body(speed))

        speeds = [1.0, 2.0, 3.0, 99.0, float("nan")]
        threads = [threading.Thread(target=ask, args=(s,)) for s in speeds]
        for thread in threads:
            thread.start()
        let_them_arrive()
        gate.set()
        for thread in (*threads, holder):
            thread.join(20)
        assert {s: r.status for s, r in found.items() if s == s} == dict.fromkeys(speeds[:4], 200)
        assert max(r.status for r in found.values()) == 400
        for speed in speeds[:4]:
            head = found[speed].json()
            wind_ = np.array(head["outputs"][0]["data"], np.float32)
            expected = agent.predict([speed, 270.0])
            np.testing.assert_allclose(wind_, expected.wind.ravel(), rtol=1e-5)
            assert head["parameters"]["out_of_range"] is (speed == 99.0)
        assert agent.counters.answered == 8
        assert agent.counters.batched == 4, "a linear model is worth running together"


ANYWHERE = "0.0.0.0"  # noqa: S104 - what the test is about


class TestBeyondLoopback:
    @pytest.fixture
    def config(self, config, certificate):
        return AgentConfig(
            **{
                **config.model_dump(),
                "host": ANYWHERE,
                "tls_certificate": certificate / "cert.pem",
                "tls_key": certificate / "key.pem",
                "token_file": certificate / "token",
            }
        )

    @pytest.fixture
    def address(self, agent):
        with listening(agent) as server:
            assert server.http.startswith("https://")
            yield server.http.replace(ANYWHERE, "127.0.0.1")

    def test_answers_over_tls_to_the_token_alone(self, agent, address, certificate):
        publish(agent, 1)
        ca = certificate / "cert.pem"
        with RemoteAgent(address, token=TOKEN, ca_file=ca) as client:
            for _ in range(3):
                found = client.predict(np.tile(np.float32([4, 270]), (200, 1)))
            np.testing.assert_array_equal(found.wind[0], agent.predict(WEST).wind[0])
        for token in (None, TOKEN + "x", ""):
            with RemoteAgent(address, token=token, ca_file=ca) as client:
                reply = client.request("GET", "/v2/health/live")
                assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
                with pytest.raises(Unauthorised):
                    client.status()
        assert agent.counters.refused_token == 6
        with RemoteAgent(f"unix:{agent.config.socket_path}") as unix:
            assert unix.predict(WEST).version == 1, "the Unix socket needs none"
        with (
            RemoteAgent(address, token=TOKEN, ca_file=ca) as client,
            pytest.raises(ProtocolError, match="Unix socket alone"),
        ):
            client.rollback()

    def test_the_command_line_shows_its_token(self, address, certificate):
        def status(token_file):
            return subprocess.run(
                [
                    sys.executable, "-m", "edge_agent", "status", "--json", "-a", address,
                    "--token-file", token_file, "--ca-file", certificate / "cert.pem",
                ],
                capture_output=True,
                text=True,
            )  # fmt: skip

        assert '"pid"' in status(certificate / "token").stdout
        wrong = certificate / "wrong"
        wrong.write_text("x" * 20)
        refused = status(wrong)
        assert refused.returncode == 2
        assert "token" in refused.stderr

    def test_survives_what_is_not_tls(self, address, certificate):
        port = int(address.rpartition(":")[2])
        for sent in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\xff\xff" + b"x" * 99,
            b"",
        ):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.settimeout(20)
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        context = ssl.create_default_context(cafile=certificate / "cert.pem")
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
        ):
            sock.settimeout(20)
            sock.sendall(b"NONSENSE\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400")

    def test_wants_all_three(self, config):
        for missing in ("tls_certificate", "tls_key", "token_file"):
            with pytest.raises(ValueError, match="tls"):
                AgentConfig(**{**config.model_dump(), missing: None})

    def test_wants_a_real_token_and_certificate(self, config, tmp_path):
        (tmp_path / "short").write_text("short")
        for change in ("token_file", "tls_key"):
            broken = config.model_copy(update={change: tmp_path / "short"})
            with (
                EdgeAgent(broken.model_copy(update={"state": tmp_path / change})) as agent,
                pytest.raises(InvalidConfig, match=change),
                listening(agent),
            ):
                pass


def test_a_slow_client_is_cut_off(config):
    fast = config.model_copy(update={"request_seconds": 0.3, "idle_seconds": 0.3})
    with EdgeAgent(fast) as agent, listening(agent) as server:
        host, port = server.http.removeprefix("http://").split(":")
        for sent in (
            b"",
            b"POST / HT",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
        ):
            with socket.create_connection((host, int(port))) as sock:
                sock.settimeout(20)
                sock.sendall(sent)
                assert sock.recv(100) == b""
