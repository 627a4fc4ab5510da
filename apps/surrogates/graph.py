"""Graphs made by hand: steps, constants, and the steps that several families begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from apps.surrogates.base import INPUT, WIND, WIND_STD
from apps.surrogates.spectral import TensorBasis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

#: Written low so that older ONNX Runtimes load it.
OPSET, IR_VERSION = 18, 8

#: Operator, inputs, output, attributes.
Step = tuple[str, list[str], str, dict[str, Any]]


def scenario_constants(basis: TensorBasis, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return what `speed_steps` and `direction_steps` need, in a precision."""
    a, b = basis.speed_map
    return {
        "column_speed": np.array([0], np.int64),
        "column_direction": np.array([1], np.int64),
        "lowest": np.array(basis.lowest, dtype),
        "highest": np.array(basis.highest, dtype),
        "speed_scale": np.array(basis.speed_scale, dtype),
        "speed_a": np.array(a, dtype),
        "speed_b": np.array(b, dtype),
        "minus_one": np.array(-1, dtype),
        "one": np.array(1, dtype),
        "degrees": np.arange(basis.degree + 1, dtype=dtype)[None],
        "radian": np.array(-np.pi / 180, dtype),
        "bearing": np.array(basis.bearing - 180.0, dtype),
        "wavenumbers": basis.wavenumbers.astype(dtype)[None],
        "phases": np.where(basis.sines, -np.pi / 2, 0.0).astype(dtype)[None],
        "amplitudes": basis.amplitudes.astype(dtype)[None],
    }


def speed_steps(inputs: str = INPUT) -> list[Step]:
    """Return the steps from the inputs to ``speed`` and its coordinate ``t``, (batch, 1)."""
    return [
        ("Gather", [inputs, "column_speed"], "speed", {"axis": 1}),
        ("Clip", ["speed", "lowest", "highest"], "speed_held", {}),
        ("Add", ["speed_held", "speed_scale"], "speed_plus", {}),
        ("Div", ["speed_held", "speed_plus"], "speed_ratio", {}),
        ("Mul", ["speed_ratio", "speed_a"], "ratio_scaled", {}),
        ("Add", ["ratio_scaled", "speed_b"], "t_free", {}),
        ("Clip", ["t_free", "minus_one", "one"], "t", {}),
    ]


def direction_steps(inputs: str = INPUT) -> list[Step]:
    """Return the steps from the inputs to ``harmonics``, (batch, functions of direction)."""
    return [
        ("Gather", [inputs, "column_direction"], "direction", {"axis": 1}),
        ("Sub", ["direction", "bearing"], "turned", {}),
        ("Mul", ["turned", "radian"], "phi", {}),
        ("Mul", ["phi", "wavenumbers"], "angles", {}),
        ("Add", ["angles", "phases"], "angles_shifted", {}),
        ("Cos", ["angles_shifted"], "waves", {}),
        ("Mul", ["waves", "amplitudes"], "harmonics", {}),
    ]


def surrogate_model(
    name: str,
    steps: Sequence[Step],
    constants: Mapping[str, np.ndarray],
    columns: int,
    shape: tuple[int, int, int],
) -> onnx.ModelProto:
    """Return the model of a surrogate: ``inputs`` (batch, columns) to wind and deviation.

    Parameters
    ----------
    name : str
        Of the graph.
    steps : sequence of Step
    constants : mapping of arrays
    columns : int
        Of the input.
    shape : (int, int, int)
        (nz, ny, nx).
    """
    from onnx import TensorProto, helper, numpy_helper

    outputs = ["batch", 3, *shape]
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], name=out, **kw) for op, ins, out, kw in steps],
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, outputs) for n in (WIND, WIND_STD)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Return a model whose nodes call some tensors by other names; its inputs and outputs stay."""
    result = type(model)()
    result.CopyFrom(model)
    for node in result.graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    return result


def extended(
    model: onnx.ModelProto,
    before: Sequence[Step],
    behind: Sequence[Step],
    constants: Mapping[str, np.ndarray],
    columns: int,
    outputs: Sequence[tuple[str, tuple[str | int, ...]]],
) -> onnx.ModelProto:
    """Return a model with steps before and behind it.

    Parameters
    ----------
    model : onnx.ModelProto
    before, behind : sequence of Step
    constants : mapping of arrays
        That they need.
    columns : int
        Of the input.
    outputs : sequence of (str, tuple)
        Name and axes of each output.
    """
    from onnx import TensorProto, helper, numpy_helper

    result = type(model)()
    result.CopyFrom(model)
    graph = result.graph

    def nodes(steps: Sequence[Step]) -> list[onnx.NodeProto]:
        # Nodes of the surrogate may be named after their outputs.
        return [
            helper.make_node(op, ins, [out], name=f"served_{out}", **kw)
            for op, ins, out, kw in steps
        ]

    own = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes(before), *own, *nodes(behind)])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", columns]))
    graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, list(dims)) for n, dims in outputs
    )
    # What the exporter says of shapes in between may name the old batch.
    del graph.value_info[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()
    )
    return result
