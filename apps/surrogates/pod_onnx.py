"""The graph of a trained POD + regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.surrogates.base import WIND, WIND_STD
from apps.surrogates.graph import (
    Step,
    direction_steps,
    scenario_constants,
    speed_steps,
    surrogate_model,
)

if TYPE_CHECKING:
    import onnx

    from apps.surrogates.pod_regression import PodRegression


def build(model: PodRegression) -> onnx.ModelProto:
    """Return the graph: inputs (batch, 2) in physical units to wind and its standard deviation."""
    from apps.surrogates.pod_regression import MINIMUM_STD

    basis = model.basis
    count = model.parts[0].weights.shape[1]
    f32, i64 = np.float32, np.int64
    constants: dict[str, np.ndarray] = {
        **scenario_constants(basis),
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
    regressions: list[Step] = []
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
    steps: list[Step] = [
        *speed_steps(),
        ("Acos", ["t"], "arc", {}),
        ("Mul", ["arc", "degrees"], "arcs", {}),
        ("Cos", ["arcs"], "polynomials", {}),
        *direction_steps(),
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
    return surrogate_model("pod_regression", steps, constants, 2, model.shape)
