"""The graph of a trained POD + regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.surrogates.base import INPUT, WIND, WIND_STD

if TYPE_CHECKING:
    import onnx

    from apps.surrogates.pod_regression import PodRegression

#: Written low so that older ONNX Runtimes load it.
OPSET, IR_VERSION = 18, 8


def build(model: PodRegression) -> onnx.ModelProto:
    """Return the graph: inputs (batch, 2) in physical units to wind and its standard deviation."""
    from onnx import TensorProto, helper, numpy_helper

    from apps.surrogates.pod_regression import MINIMUM_STD

    basis = model.basis
    a, b = basis.speed_map
    count = model.parts[0].weights.shape[1]
    f32, i64 = np.float32, np.int64
    constants: dict[str, np.ndarray] = {
        "column_speed": np.array([0], i64),
        "column_direction": np.array([1], i64),
        "lowest": np.array(basis.lowest, f32),
        "highest": np.array(basis.highest, f32),
        "speed_scale": np.array(basis.speed_scale, f32),
        "speed_a": np.array(a, f32),
        "speed_b": np.array(b, f32),
        "minus_one": np.array(-1, f32),
        "one": np.array(1, f32),
        "degrees": np.arange(basis.degree + 1, dtype=f32)[None],
        "radian": np.array(-np.pi / 180, f32),
        "bearing": np.array(basis.bearing - 180.0, f32),
        "wavenumbers": basis.wavenumbers.astype(f32)[None],
        "phases": np.where(basis.sines, -np.pi / 2, 0.0).astype(f32)[None],
        "amplitudes": basis.amplitudes.astype(f32)[None],
        "axis_1": np.array([1], i64),
        "axis_2": np.array([2], i64),
        "start_0": np.array([0], i64),
        "start_1": np.array([1], i64),
        "end": np.array([count], i64),
        "shape_products": np.array([-1, basis.size], i64),
        "residual_std": np.sqrt(model.residual_variance)[None],
        "minimum_std": np.array(MINIMUM_STD, f32),
        "shape_field": np.array([-1, 3, *model.shape], i64),
    }
    last: dict[str, int] = {"axis": 2}
    regressions: list[tuple[str, list[str], str, dict[str, int]]] = []
    names, first = [], 0
    for part in model.parts:
        # Named after what does not change from release to release, and in shapes that only grow at
        # their ends: what a delta can start from. The runtime folds both steps that this costs.
        i, r = part.name, part.weights.shape[2]
        names.append(i)
        constants[f"functions_{i}"] = part.functions.astype(i64)
        constants[f"weights_{i}"] = part.weights
        constants[f"modes_{i}"] = model.modes[first : first + r]
        constants[f"rows_{i}"] = np.array([len(part.functions), -1], i64)
        constants[f"shape_{i}"] = np.array([-1, count, r], i64)
        first += r
        regressions += [
            ("Gather", ["products", f"functions_{i}"], f"part_{i}", {"axis": 1}),
            ("Reshape", [f"weights_{i}", f"rows_{i}"], f"matrix_{i}", {}),
            ("MatMul", [f"part_{i}", f"matrix_{i}"], f"flat_{i}", {}),
            ("Reshape", [f"flat_{i}", f"shape_{i}"], f"coefficients_{i}", {}),
        ]
    steps: list[tuple[str, list[str], str, dict[str, int]]] = [
        ("Gather", ["inputs", "column_speed"], "speed", {"axis": 1}),
        ("Clip", ["speed", "lowest", "highest"], "speed_held", {}),
        ("Add", ["speed_held", "speed_scale"], "speed_plus", {}),
        ("Div", ["speed_held", "speed_plus"], "speed_ratio", {}),
        ("Mul", ["speed_ratio", "speed_a"], "ratio_scaled", {}),
        ("Add", ["ratio_scaled", "speed_b"], "t_free", {}),
        ("Clip", ["t_free", "minus_one", "one"], "t", {}),
        ("Acos", ["t"], "arc", {}),
        ("Mul", ["arc", "degrees"], "arcs", {}),
        ("Cos", ["arcs"], "polynomials", {}),
        ("Gather", ["inputs", "column_direction"], "direction", {"axis": 1}),
        ("Sub", ["direction", "bearing"], "turned", {}),
        ("Mul", ["turned", "radian"], "phi", {}),
        ("Mul", ["phi", "wavenumbers"], "angles", {}),
        ("Add", ["angles", "phases"], "angles_shifted", {}),
        ("Cos", ["angles_shifted"], "waves", {}),
        ("Mul", ["waves", "amplitudes"], "harmonics", {}),
        ("Unsqueeze", ["harmonics", "axis_2"], "harmonics_3", {}),
        ("Unsqueeze", ["polynomials", "axis_1"], "polynomials_3", {}),
        ("Mul", ["harmonics_3", "polynomials_3"], "products_3", {}),
        ("Reshape", ["products_3", "shape_products"], "products", {}),
        *regressions,
        ("Concat", [f"coefficients_{i}" for i in names], "coefficients", last),
        ("Concat", [f"modes_{i}" for i in names], "modes", {"axis": 0}),
        ("MatMul", ["coefficients", "modes"], "fields", {}),
        ("Slice", ["fields", "start_0", "start_1", "axis_1"], "centre_3", {}),
        ("Squeeze", ["centre_3", "axis_1"], "centre", {}),
        ("Mul", ["centre", "speed"], "wind_flat", {}),
        ("Reshape", ["wind_flat", "shape_field"], WIND, {}),
        ("Slice", ["fields", "start_1", "end", "axis_1"], "deviations", {}),
        ("ReduceSumSquare", ["deviations", "axis_1"], "spread", {"keepdims": 0}),
        # Squared here: however a delta rounds it, the variance is not negative.
        ("Mul", ["residual_std", "residual_std"], "residual_variance", {}),
        ("Add", ["spread", "residual_variance"], "variance", {}),
        ("Sqrt", ["variance"], "std", {}),
        ("Mul", ["std", "speed"], "std_scaled", {}),
        ("Add", ["std_scaled", "minimum_std"], "std_flat", {}),
        ("Reshape", ["std_flat", "shape_field"], WIND_STD, {}),
    ]
    outputs = ["batch", 3, *model.shape]
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], name=out, **kw) for op, ins, out, kw in steps],
        "pod_regression",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, outputs)
            for name in (WIND, WIND_STD)
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
