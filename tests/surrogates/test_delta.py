"""The publisher's side: small where models are alike, right where they are not."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from apps.delta import make_delta, quantise
from apps.errors import PublishError
from apps.surrogates.export import canonical_bytes
from apps.tensors import float_tensors
from edge_agent.contracts.delta import ZERO, apply, bfloat16_values


def model(tensors: dict[str, np.ndarray], nodes: int = 1) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [f"y{i}"]) for i in range(nodes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [],
        [numpy_helper.from_array(v, k) for k, v in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return canonical_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def values(data: bytes) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load_from_string(data).graph.initializer}


def weights(seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "index": np.arange(9),
        "a": (scale * rng.standard_normal((120, 300))).astype(np.float32),
        "scalar": np.array(scale, np.float32),
        "b": (scale * rng.standard_normal((40, 50, 3))).astype(np.float32),
    }


def changed(base: dict[str, np.ndarray], by: float, seed: int = 1) -> dict[str, np.ndarray]:
    other = weights(seed)
    return {k: v if k == "index" else v + np.float32(by) * other[k] for k, v in base.items()}


def test_tensors_are_found_where_they_are():
    data = model(weights())
    found = {t.name: (t.shape, data[t.start : t.stop]) for t in float_tensors(data)}
    expected = {k: (v.shape, v.tobytes()) for k, v in weights().items() if k != "index"}
    assert found == expected


@pytest.mark.parametrize("data", [b"\x0f", b"\x3a\xff\xff\xff\xff\x0f", b"\x80", b"not a model"])
def test_what_is_no_model_is_said(data):
    with pytest.raises(PublishError, match="not an ONNX"):
        float_tensors(data)


def test_a_retrained_model_is_eight_times_smaller_and_what_it_makes_is_near():
    base, new = weights(), changed(weights(), 0.05)
    made = make_delta(model(base), model(new), 4)
    assert apply(model(base), made.delta) == made.model
    assert len(made.delta) < len(made.model) / 8
    for name, value in values(made.model).items():
        change = np.abs(new[name] - base[name]).max()
        # A step is a seventh of a block's largest change; rounding errs by half a step.
        assert np.abs(value - new[name]).max() <= 1.01 * change / 14
    assert np.array_equal(values(made.model)["scalar"], new["scalar"])


def test_an_equal_model_is_next_to_nothing():
    data = model(weights())
    made = make_delta(data, data, 4)
    assert made.model == data
    assert len(made.delta) < 200


def test_rounding_does_not_pile_up_over_releases():
    """The loop is closed: after ten releases the error is that of one."""
    served, target = model(weights()), weights()
    errors = []
    for release in range(10):
        target = changed(target, 0.02, seed=release + 2)
        served = make_delta(served, model(target), 4).model
        errors.append(np.abs(values(served)["a"] - target["a"]).std())
    assert max(errors) < 1.3 * errors[0]


def test_tensors_that_grew_keep_what_they_had():
    base, new = weights(), weights()
    new["a"] = np.concatenate([base["a"], 1e-3 * weights(7)["a"][:12]]).astype(np.float32)
    made = make_delta(model(base), model(new), 4)
    assert apply(model(base), made.delta) == made.model
    got = values(made.model)["a"]
    assert np.array_equal(got[:115], base["a"][:115])
    assert np.abs(got - new["a"]).max() < 1e-3
    assert len(made.delta) < len(made.model) / 15


def test_what_packs_well_is_exact_and_small_tensors_get_the_most_bits():
    base, new = weights(), changed(weights(), 0.05)
    rng = np.random.default_rng(3)
    base["signs"] = np.ones((4, 300), np.float32)
    new["signs"] = rng.choice([-1.0, 1.0], (4, 310)).astype(np.float32)
    base["bias"] = rng.standard_normal(300).astype(np.float32)
    new["bias"] = base["bias"] + rng.standard_normal(300).astype(np.float32)
    got = values(make_delta(model(base), model(new), 4).model)
    assert np.array_equal(got["signs"], new["signs"])
    change = np.abs(new["bias"] - base["bias"]).max()
    assert np.abs(got["bias"] - new["bias"]).max() < change / 250


def test_another_structure_is_rounded_as_it_is():
    base, new = weights(), weights(3)
    new["c"] = new.pop("a").reshape(-1)
    new["b"] = new["b"].astype(np.float64)
    new["d"] = np.full(40, np.nan, np.float32)
    base["d"] = np.ones(40, np.float32)
    for one, two in ((base, new), (new, base)):
        made = make_delta(model(one), model(two, nodes=3), 4)
        assert apply(model(one), made.delta) == made.model
        for name, value in values(made.model).items():
            exact = two[name].dtype != np.float32 or two[name].size < 16 or name == "d"
            step = 0 if exact else 1.01 * np.abs(two[name]).max() / 14
            assert np.allclose(value, two[name], rtol=0, atol=step, equal_nan=True)


def test_what_is_nearer_to_nought_than_to_the_base_is_rounded_as_it_is():
    base, new = weights(scale=100.0), weights(4)
    made = make_delta(model(base), model(new), 4)
    assert np.abs(values(made.model)["a"] - new["a"]).max() <= np.abs(new["a"]).max() / 13


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.integers(2, 8),
    n=st.integers(1, 700),
    exponent=st.integers(-44, 37),
)
def test_codes_stay_in_range_and_err_by_half_a_step(seed, bits, n, exponent):
    difference = np.random.default_rng(seed).standard_cauchy(n)
    difference = np.clip(difference, -9, 9) * 10.0**exponent
    codes, scales = quantise(difference, bits)
    assert np.abs(codes.astype(int) - ZERO).max() < 2 ** (bits - 1)
    step = np.repeat(bfloat16_values(scales).astype(float), 256)[:n]
    error = np.abs((codes.astype(int) - ZERO) * step - difference)
    assert (error <= 0.5001 * step + 127 * np.finfo(np.float32).tiny).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_two_models_are_the_delta_makes_what_it_says(data):
    def tensors():
        names = data.draw(st.lists(st.sampled_from("abcd"), unique=True))
        out = {}
        for name in names:
            shape = data.draw(st.lists(st.integers(0, 9), max_size=3))
            dtype = data.draw(st.sampled_from([np.float32, np.float32, np.int64]))
            seed = data.draw(st.integers(0, 99))
            out[name] = (9 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)
        return out

    base, new = model(tensors()), model(tensors(), nodes=data.draw(st.integers(1, 2)))
    made = make_delta(base, new, data.draw(st.integers(2, 8)))
    assert apply(base, made.delta) == made.model
    assert len(made.model) == len(new)
