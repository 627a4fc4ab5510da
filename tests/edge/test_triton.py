"""The official client of the protocol, unchanged."""

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from .releases import NAME, make_release


def publish(agent, version):
    make_release(agent.config.repository, version)
    assert agent.pull().result(20) == version


@pytest.fixture
def client(served):
    publish(served[0], 1)
    with triton.InferenceServerClient(served[3]) as client:
        yield client


def infer(client, rows, *, binary, name="inputs", **options):
    tensor = triton.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return client.infer(NAME, [tensor], request_id="9", **options)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_gets_the_numbers_of_predict(served, client, binary_in, binary_out):
    rows = np.array([[4, 270], [20, 3]], np.float32)
    outputs = None
    if binary_out is not None:
        outputs = [
            triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("wind_std", "wind")
        ]
    found = infer(client, rows, binary=binary_in, outputs=outputs)
    expected = served[0].predict(rows)
    np.testing.assert_array_equal(found.as_numpy("wind"), expected.wind)
    np.testing.assert_array_equal(found.as_numpy("wind_std"), expected.wind_std)
    head = found.get_response()
    assert (head["model_version"], head["id"]) == ("1", "9")
    assert head["parameters"]["release_version"] == 1
    assert head["parameters"]["out_of_range"] is True
    assert head["parameters"]["out_of_range_rows"] == "1"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_may_compress(served, client, algorithm):
    rows = np.array([[4, 270]], np.float32)
    found = infer(
        client,
        rows,
        binary=True,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(found.as_numpy("wind"), served[0].predict(rows).wind)


def test_asks_for_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert not client.is_model_ready(NAME, "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(NAME)
    assert metadata["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 2]}]
    assert metadata["outputs"][0]["shape"] == [-1, 3, 2, 3, 4]
    assert metadata["versions"] == ["1"]


def test_gets_clear_errors(client):
    rows = np.array([[np.nan, 270]], np.float32)
    with pytest.raises(InferenceServerException, match="'wind_speed' of row 0 is not a finite"):
        infer(client, rows, binary=True)
    with pytest.raises(InferenceServerException, match="takes one tensor, 'inputs'"):
        infer(client, np.ones((1, 2), np.float32), binary=True, name="x")
    with pytest.raises(InferenceServerException, match="release 7 is not loaded"):
        infer(client, np.ones((1, 2), np.float32), binary=True, model_version="7")
