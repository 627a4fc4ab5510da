"""A release that takes the state of the house and its interior sensors, and says how sure it is."""

import json

import numpy as np
import pytest
import tritonclient.http as triton

from edge_agent import __main__ as command_line
from edge_agent.api.codec import Request
from edge_agent.api.infer import Inference
from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.features import SILENT

from .releases import (
    INSIDE,
    NAME,
    STATE,
    expected_diagnostics,
    expected_wind,
    make_release,
)

LIMITS = {"distance": 3.0, "innovation": 2.5}
TIME = "2016-06-01T00:10:00"
WEST = {"wind_speed": 4.0, "wind_from_direction": 270.0}
#: The same row in full: wind, state, sensors.
WHOLE = np.float32([[4, 270, *STATE.values(), SILENT, SILENT]])
NAMES = ["wind_speed", "wind_from_direction", *STATE, "middle_wind_speed", "corner_wind_speed"]
INFER = f"/v2/models/{NAME}/infer"


def publish(agent, version=1, **options):
    options = {"state": STATE, "inside": INSIDE, "limits": LIMITS} | options
    made = make_release(agent.config.repository, version, **options)
    assert agent.pull().result(20) == version
    return made


@pytest.fixture
def serving(agent):
    publish(agent)
    return agent


@pytest.fixture(params=["in-process", "http", "unix", "call"])
def predict(request, served):
    """`predict` of an agent that serves, and its ways in; a call is what Globus Compute brings."""
    agent, tcp, unix, _ = served
    publish(agent)
    if request.param == "call":
        return lambda inputs: unix.predict(inputs, request_id=unix.request_id())
    return {"in-process": agent, "http": tcp, "unix": unix}[request.param].predict


class TestLeftOut:
    @pytest.mark.parametrize(
        "inputs",
        [
            WEST,
            [4.0, 270.0],
            np.float32([[4, 270]]),
            WEST | {"screen_loss_factor": 1.4, "corner_wind_speed": SILENT},
            WHOLE,
        ],
        ids=["by name", "row", "singles", "some by name", "all"],
    )
    def test_defaults_are_taken_wherever_the_caller_is(self, predict, inputs):
        found = predict(inputs)
        np.testing.assert_array_equal(found.inputs, WHOLE)
        np.testing.assert_allclose(found.wind, expected_wind(WHOLE), atol=1e-4)
        assert found.out_of_range.tolist() == [False]

    def test_what_is_given_is_used(self, predict):
        rows = np.repeat(WHOLE, 2, axis=0)
        rows[:, 2], rows[:, 5] = (2.0, 3.0), (0.25, SILENT)
        given = {
            "wind_speed": rows[:, 0],
            "wind_from_direction": rows[:, 1],
            "screen_loss_factor": rows[:, 2],
            "corner_wind_speed": rows[:, 5],
        }
        found = predict(given)
        np.testing.assert_array_equal(found.inputs, rows)
        np.testing.assert_allclose(found.wind, expected_wind(rows), atol=1e-4)

    def test_what_has_no_default_must_be_given(self, predict):
        with pytest.raises(InvalidInput, match=r"direction' is missing.*may be left out"):
            predict({"wind_speed": 4.0, "screen_loss_factor": 1.0})
        with pytest.raises(InvalidInput, match=r"\(batch, 6\).*or \(batch, 2\)"):
            predict([4.0, 270.0, 1.0])

    def test_a_client_takes_the_state_of_the_release_that_answers(self, served):
        agent, tcp, _, _ = served
        publish(agent)
        tcp.predict(WEST)
        publish(agent, 2, state=STATE | {"screen_loss_factor": 2.0})
        assert tcp.predict(WEST).inputs[0, 2] == 2.0, "and not the one that it knew first"

    def test_a_client_learns_that_a_new_release_takes_more(self, served):
        agent, tcp, _, _ = served
        make_release(agent.config.repository, 1)
        agent.pull().result(20)
        tcp.predict(WEST)
        publish(agent, 2)
        assert tcp.predict(WEST).inputs.shape == (1, 6)
        assert tcp.predict(WEST | {"tear_width": 2.0}).inputs[0, 3] == 2.0
        assert tcp.predict(WHOLE).version == 2


class TestDiagnostics:
    def test_come_with_each_row_and_beyond_their_limits_flag_it(self, predict):
        rows = np.repeat(WHOLE, 5, axis=0)
        rows[1, 0] = 10.5  # distance 3.08
        rows[2, 4:] = 0.5, 2.25  # innovation 2.75
        rows[3, 0] = 0.5  # distance is NaN
        rows[4, 0] = 10.0  # distance 3: at its limit
        with np.errstate(invalid="ignore"):
            expected = expected_diagnostics(rows, 2)
        found = predict(rows)
        assert found.out_of_range.tolist() == [False, True, True, True, False]
        assert list(found.diagnostics) == ["distance", "innovation"]
        for name, values in found.diagnostics.items():
            assert (values.shape, values.dtype) == ((5,), np.float32)
            np.testing.assert_allclose(values, expected[name], rtol=1e-6)
        for row, outside in zip(rows, found.out_of_range, strict=True):
            assert predict(row).out_of_range.tolist() == [outside], "alone as in company"

    def test_are_absent_where_there_are_none(self, served):
        agent, tcp, _, _ = served
        make_release(agent.config.repository, 1)
        agent.pull().result(20)
        assert agent.predict(WEST).diagnostics == tcp.predict(WEST).diagnostics == {}

    def test_without_a_limit_are_only_told(self, agent):
        publish(agent, limits={})
        found = agent.predict({"wind_speed": 14.0, "wind_from_direction": 1.0})
        assert found.diagnostics["distance"][0] == pytest.approx(13**0.5)
        assert not found.out_of_range[0]

    def test_are_among_the_golden_examples(self, agent):
        made = make_release(
            agent.config.repository, 1, inside=INSIDE, limits=LIMITS, diagnostic_error=0.01
        )
        assert agent.pull().result(20) is None
        assert "golden distance" in agent.refused[0]["reason"]
        assert set(made.release.golden.outputs) == {"wind", "wind_std", "distance", "innovation"}

    def test_wait_together_with_other_requests(self, served, monkeypatch):
        agent = served[0]
        publish(agent)
        jobs = []
        inference = Inference(agent)
        for speed in (4.0, 10.5, 6.0):
            tensor = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [speed, 9.0]}
            body = json.dumps({"inputs": [tensor]}).encode()
            request = Request("POST", INFER, "", {}, keep_alive=True, body=body)
            jobs.append(inference.decode(request, None))
        monkeypatch.setattr("edge_agent.api.infer.batch_size", lambda n, _cost, _limit: n)
        answers = [json.loads(b"".join(r.body)) for r in inference.together(jobs)]
        assert agent.counters.batched == 3
        for speed, answer in zip((4.0, 10.5, 6.0), answers, strict=True):
            outputs = {o["name"]: o for o in answer["outputs"]}
            assert outputs["distance"]["shape"] == [1]
            assert outputs["distance"]["data"] == [pytest.approx((speed - 1) ** 0.5)]
            assert answer["parameters"]["out_of_range"] is (speed == 10.5)


class TestProtocol:
    @pytest.fixture
    def client(self, served):
        publish(served[0])
        with triton.InferenceServerClient(served[3]) as client:
            yield client

    def test_metadata_say_all_columns_and_the_axes_of_each_output(self, client):
        found = client.get_model_metadata(NAME)
        assert found["inputs"][0]["shape"] == [-1, 6]
        assert {o["name"]: o["shape"] for o in found["outputs"]} == {
            "wind": [-1, 3, 2, 3, 4],
            "wind_std": [-1, 3, 2, 3, 4],
            "distance": [-1],
            "innovation": [-1],
        }

    @pytest.mark.parametrize("binary", [True, False])
    @pytest.mark.parametrize("width", [2, 6])
    def test_either_width_is_taken_and_all_outputs_come(self, served, client, binary, width):
        rows = np.repeat(WHOLE, 2, axis=0)
        tensor = triton.InferInput("inputs", [2, width], "FP32")
        tensor.set_data_from_numpy(np.ascontiguousarray(rows[:, :width]), binary_data=binary)
        found = client.infer(NAME, [tensor])
        expected = served[0].predict(rows)
        for name in ("wind", "wind_std"):
            np.testing.assert_array_equal(found.as_numpy(name), getattr(expected, name))
        for name, values in expected.diagnostics.items():
            np.testing.assert_array_equal(found.as_numpy(name), values)
        told = found.get_response()["parameters"].get("columns")
        assert told == (
            None
            if width == 6
            else "wind_speed,wind_from_direction,screen_loss_factor=1.4,tear_width=0.0,"
            "middle_wind_speed=-1.0,corner_wind_speed=-1.0"
        )

    def test_a_diagnostic_alone_may_be_asked_for(self, client):
        tensor = triton.InferInput("inputs", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.float32([[5, 270]]))
        wanted = [triton.InferRequestedOutput("distance")]
        found = client.infer(NAME, [tensor], outputs=wanted)
        assert found.as_numpy("distance").tolist() == [2.0]
        assert found.as_numpy("wind") is None

    @pytest.mark.parametrize(
        ("columns", "status"),
        [
            (NAMES, 200),
            (NAMES[:2], 200),
            ([*NAMES[:2], NAMES[4]], 200),
            (NAMES[:1], 400),
            (NAMES[1::-1], 400),
            ([*NAMES[:2], "pressure"], 400),
        ],
    )
    def test_the_parameter_columns_names_what_the_tensor_holds(self, served, columns, status):
        agent, tcp, _, _ = served
        publish(agent)
        row = [4.0, 270.0, 0.5][: len(columns)] if len(columns) < 6 else WHOLE[0].tolist()
        tensor = {"name": "inputs", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        body = {"inputs": [tensor], "parameters": {"columns": ",".join(columns)}}
        reply = tcp.request("POST", INFER, json.dumps(body).encode())
        assert reply.status == status
        if status == 200 and len(columns) == 3:
            whole = WHOLE.copy()
            whole[0, 4] = 0.5
            data = reply.json()["outputs"][0]["data"]
            np.testing.assert_allclose(data, expected_wind(whole).ravel(), atol=1e-4)

    def test_columns_must_fit_the_tensor(self, served):
        agent, tcp, _, _ = served
        publish(agent)
        tensor = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [4, 270]}
        for names in (NAMES, NAMES[:3]):
            body = {"inputs": [tensor], "parameters": {"columns": ",".join(names)}}
            reply = tcp.request("POST", INFER, json.dumps(body).encode())
            assert reply.status == 400

    def test_the_status_says_what_may_be_left_out(self, serving):
        found = serving.status()
        assert found["columns"] == NAMES
        assert found["defaults"] == {
            "screen_loss_factor": 1.4,
            "tear_width": 0.0,
            "middle_wind_speed": -1.0,
            "corner_wind_speed": -1.0,
        }


class TestCommandLine:
    @pytest.fixture
    def run(self, served, capsys, monkeypatch):
        publish(served[0])
        address = f"unix:{served[0].config.socket_path}"
        given = ["--wind-speed", "4", "--wind-from-direction", "270", "-a", address]

        def run(*arguments):
            monkeypatch.setattr("sys.argv", ["edge-agent", "predict", *given, *arguments])
            with pytest.raises(SystemExit) as ended:
                command_line.main()
            return ended.value.code, *capsys.readouterr()

        return run

    def test_takes_further_inputs_and_shows_diagnostics(self, run):
        whole = WHOLE.copy()
        whole[0, 2], whole[0, 5] = 2.0, 0.5
        more = ["--input", "screen_loss_factor=2", "--input", "corner_wind_speed=0.5"]
        status, out, _ = run("--json", *more)
        found = json.loads(out)
        assert status == 0
        np.testing.assert_allclose(found["wind"], expected_wind(whole)[0], atol=1e-4)
        assert found["diagnostics"] == {"distance": pytest.approx(3**0.5), "innovation": 0.0}
        assert run()[1].strip().endswith("distance 1.73, innovation 0.00")
        assert (
            run("--input", "corner_wind_speed=9")[1]
            .strip()
            .endswith("innovation 8.00  (outside the trained range)")
        )

    @pytest.mark.parametrize("text", ["screen_loss_factor", "screen_loss_factor=thick", "=1"])
    def test_says_what_is_wrong(self, run, text):
        status, _, err = run("--input", text)
        assert status == 2
        assert "NAME=VALUE" in err or "unknown input ''" in err
