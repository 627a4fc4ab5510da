import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_agent.api.oip import decode_infer, encode_infer
from edge_agent.contracts.errors import InvalidInput, ProtocolError

OUTPUTS = ("wind", "wind_std")
arrays = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.just(2)), elements=st.floats(-1e6, 1e6, width=32)
)


def request(array, *, binary=False, outputs=None, asking=None, datatype="FP32", **changes):
    tensor = {"name": "inputs", "shape": list(array.shape), "datatype": datatype}
    data = array.astype({"FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes() if binary else b""
    if binary:
        tensor["parameters"] = {"binary_data_size": len(data)}
    else:
        tensor["data"] = array.tolist()
    head = {"id": "7", "inputs": [tensor | changes], "parameters": asking or {}}
    if outputs is not None:
        head["outputs"] = outputs
    text = json.dumps(head).encode()
    return text + data, str(len(text)) if binary else None


@given(arrays, st.booleans(), st.booleans(), st.sampled_from(["FP32", "FP64"]))
def test_round_trip(array, binary_in, binary_out, datatype):
    body, length = request(
        array, binary=binary_in, asking={"binary_data_output": binary_out}, datatype=datatype
    )
    asked = decode_infer(body, length, OUTPUTS)
    np.testing.assert_array_equal(asked.inputs, array)
    assert asked.inputs.dtype == np.float32
    pieces, header = encode_infer(
        "house", 3, asked, {"wind": array, "wind_std": array * 2}, {"release_version": 3}
    )
    answer = b"".join(pieces)
    head = json.loads(answer[:header])
    assert (head["model_name"], head["model_version"], head["id"]) == ("house", "3", "7")
    at = header
    for output, factor in zip(head["outputs"], (1, 2), strict=True):
        assert output["shape"] == list(array.shape)
        if binary_out:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(answer[at : at + size], "<f4")
            at += size
        else:
            values = np.array(output["data"], np.float32)
        np.testing.assert_array_equal(values.reshape(array.shape), array * np.float32(factor))
    assert header is None or at == len(answer)


@given(st.binary(max_size=200), st.none() | st.text(max_size=5))
def test_any_bytes_give_a_request_or_our_error(body, length):
    with pytest.raises((ProtocolError, InvalidInput)):
        decode_infer(body, length, OUTPUTS)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["binary_data_size", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)
keys = st.sampled_from(["shape", "datatype", "data", "parameters", "name"])


@given(st.dictionaries(keys, values, max_size=3), st.dictionaries(st.just("outputs"), values))
def test_any_json_gives_a_request_or_our_error(tensor, head):
    good = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    body = json.dumps({"inputs": [good | tensor], **head}).encode()
    try:
        asked = decode_infer(body, None, OUTPUTS)
    except (ProtocolError, InvalidInput):
        return
    assert asked.inputs.dtype == np.float32


def test_requested_outputs_are_a_subset_in_the_order_asked():
    array = np.ones((1, 2), np.float32)
    wanted = [{"name": "wind_std", "parameters": {"binary_data": True}}, {"name": "wind"}]
    asked = decode_infer(*request(array, outputs=wanted), OUTPUTS)
    assert [(o.name, o.binary) for o in asked.outputs] == [("wind_std", True), ("wind", False)]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"name": "other"}, InvalidInput, "'inputs'"),
        ({"datatype": "INT64"}, InvalidInput, "FP32, FP64"),
        ({"shape": [1, 3]}, InvalidInput, "do not fill"),
        ({"shape": [-1, 2]}, InvalidInput, "expected"),
        ({"data": [["1", "2"]]}, InvalidInput, "list of numbers"),
        ({"data": [True, False]}, InvalidInput, "list of numbers"),
        ({"data": [[1, 2], [3]]}, InvalidInput, "unequal"),
        ({"parameters": {"binary_data_size": 8}}, ProtocolError, "follow the header"),
    ],
)
def test_what_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        decode_infer(*request(np.ones((1, 2)), **changes), OUTPUTS)


def test_outputs_that_do_not_exist_or_repeat_are_refused():
    for names in (["pressure"], ["wind", "wind"]):
        with pytest.raises(InvalidInput):
            decode_infer(*request(np.ones((1, 2)), outputs=[{"name": n} for n in names]), OUTPUTS)


def test_binary_sizes_must_match():
    body, length = request(np.ones((1, 2)), binary=True)
    for broken in (body[:-1], body + b"x"):
        with pytest.raises(ProtocolError):
            decode_infer(broken, length, OUTPUTS)
    with pytest.raises(ProtocolError):
        decode_infer(body, str(len(body) + 1), OUTPUTS)
