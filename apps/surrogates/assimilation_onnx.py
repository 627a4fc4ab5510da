"""The graph of `apps.surrogates.assimilation`, step for step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apps.surrogates.assimilation import FLOOR, Assimilation
from apps.surrogates.graph import Step
from edge_agent.contracts.features import SILENT

_F32, _I64 = np.float32, np.int64


def point_steps(
    a: Assimilation, inputs: str, output: str
) -> tuple[list[Step], dict[str, np.ndarray]]:
    """Return the steps from inputs (batch, columns + sensors) to the points' scenarios.

    `output` is (batch points, columns), the points of a row together.
    """
    n = a.columns
    constants: dict[str, np.ndarray] = {
        "taken_start": np.array([0], _I64),
        "taken_middle": np.array([n], _I64),
        "taken_stop": np.array([n + a.sensors], _I64),
        "taken_axis_1": np.array([1], _I64),
        "taken_factors": a.factors.astype(_F32)[None],
        "taken_shifts": a.shifts.astype(_F32)[None],
        "taken_rows": np.array([-1, n], _I64),
    }
    steps: list[Step] = [
        ("Slice", [inputs, "taken_start", "taken_middle", "taken_axis_1"], "taken_scenario", {}),
        ("Unsqueeze", ["taken_scenario", "taken_axis_1"], "taken_scenario_3", {}),
        ("Mul", ["taken_scenario_3", "taken_factors"], "taken_scaled", {}),
        ("Add", ["taken_scaled", "taken_shifts"], "taken_points", {}),
        ("Reshape", ["taken_points", "taken_rows"], output, {}),
    ]
    return steps, constants


def analysis_steps(
    a: Assimilation,
    shape: tuple[int, int, int],
    names: tuple[str, str, str],
    outputs: tuple[str, str, str],
) -> tuple[list[Step], dict[str, np.ndarray]]:
    """Return the steps from the points' answers to wind, deviation and innovation.

    Parameters
    ----------
    a : Assimilation
    shape : (int, int, int)
        (nz, ny, nx).
    names : (str, str, str)
        Of the inputs, and of the points' wind and deviation (batch points, 3, nz, ny, nx).
    outputs : (str, str, str)
        Of wind, deviation (batch, 3, nz, ny, nx) and innovation (batch,).
    """
    k, s, cells = a.points, a.sensors, int(np.prod(shape))
    constants: dict[str, np.ndarray] = {
        "taken_weights": a.weights.astype(_F32),
        "taken_cells": np.array([-1, 3, cells], _I64),
        "taken_by_point": np.array([-1, k, s], _I64),
        "taken_by_field": np.array([-1, k, 3 * cells], _I64),
        "taken_field": np.array([-1, 3, *shape], _I64),
        "taken_axis_2": np.array([2], _I64),
        "taken_floor": np.array(FLOOR, _F32),
        "taken_half": np.array(SILENT / 2, _F32),
        "taken_one": np.array(1.0, _F32),
        "taken_relative": np.array(a.errors.sensor_relative**2, _F32),
        "taken_absolute": np.array(a.errors.sensor_absolute, _F32),
        "taken_count": np.array(float(k), _F32),
        "taken_share": np.array(1.0 / k, _F32),
        "taken_moved_0": np.zeros((1, k, 1), _F32),
        "taken_mixing_0": np.eye(k, dtype=_F32)[None],
    }
    inputs, wind, std = names
    axes = {"keepdims": 1}
    steps: list[Step] = [
        ("Slice", [inputs, "taken_middle", "taken_stop", "taken_axis_1"], "taken_read", {}),
        ("Greater", ["taken_read", "taken_half"], "taken_is", {}),
        ("Cast", ["taken_is"], "taken_there", {"to": 1}),
        ("Max", ["taken_read", "taken_floor"], "taken_held", {}),
        ("Log", ["taken_held"], "taken_seen", {}),
        ("Reshape", [wind, "taken_cells"], "taken_wind", {}),
        ("Reshape", [std, "taken_cells"], "taken_std", {}),
        ("MatMul", ["taken_wind", "taken_weights"], "taken_vectors", {}),
        ("ReduceL2", ["taken_vectors", "taken_axis_1"], "taken_speeds", {"keepdims": 0}),
        ("Max", ["taken_speeds", "taken_floor"], "taken_blowing", {}),
        ("MatMul", ["taken_std", "taken_weights"], "taken_errors", {}),
        ("ReduceL2", ["taken_errors", "taken_axis_1"], "taken_own", {"keepdims": 0}),
        ("Div", ["taken_own", "taken_blowing"], "taken_ratio", {}),
        ("Mul", ["taken_ratio", "taken_ratio"], "taken_model_rows", {}),
        ("Reshape", ["taken_model_rows", "taken_by_point"], "taken_model_points", {}),
        ("ReduceMean", ["taken_model_points", "taken_axis_1"], "taken_model", {"keepdims": 0}),
        ("Log", ["taken_blowing"], "taken_logs", {}),
        ("Reshape", ["taken_logs", "taken_by_point"], "taken_expected", {}),
        ("ReduceMean", ["taken_expected", "taken_axis_1"], "taken_middle_3", axes),
        ("Sub", ["taken_expected", "taken_middle_3"], "taken_deviations", {}),
        ("Div", ["taken_absolute", "taken_held"], "taken_part", {}),
        ("Mul", ["taken_part", "taken_part"], "taken_part_squared", {}),
        ("Sum", ["taken_part_squared", "taken_relative", "taken_model"], "taken_noise", {}),
        *_sensor_steps(s, constants),
        ("ReduceMean", [f"taken_mixing_{s}", "taken_axis_1"], "taken_mixing_mean", axes),
        ("Sub", [f"taken_mixing_{s}", "taken_mixing_mean"], "taken_centred", {}),
        ("ReduceMean", [f"taken_moved_{s}", "taken_axis_1"], "taken_moved_mean", axes),
        ("Sub", [f"taken_moved_{s}", "taken_moved_mean"], "taken_moved_centred", {}),
        ("Add", ["taken_moved_centred", "taken_share"], "taken_shares", {}),
        ("Reshape", [wind, "taken_by_field"], "taken_fields", {}),
        ("Transpose", ["taken_shares"], "taken_shares_row", {"perm": [0, 2, 1]}),
        ("MatMul", ["taken_shares_row", "taken_fields"], "taken_answer", {}),
        ("Reshape", ["taken_answer", "taken_field"], outputs[0], {}),
        ("Transpose", ["taken_centred"], "taken_centred_t", {"perm": [0, 2, 1]}),
        ("MatMul", ["taken_centred_t", "taken_fields"], "taken_left", {}),
        ("Mul", ["taken_left", "taken_left"], "taken_left_squared", {}),
        ("ReduceMean", ["taken_left_squared", "taken_axis_1"], "taken_spread", {"keepdims": 0}),
        ("Reshape", [std, "taken_by_field"], "taken_std_fields", {}),
        ("Mul", ["taken_std_fields", "taken_std_fields"], "taken_variances", {}),
        ("ReduceMean", ["taken_variances", "taken_axis_1"], "taken_mean_variance", {"keepdims": 0}),
        ("Add", ["taken_mean_variance", "taken_spread"], "taken_variance", {}),
        ("Sqrt", ["taken_variance"], "taken_deviation", {}),
        ("Reshape", ["taken_deviation", "taken_field"], outputs[1], {}),
        ("Sum", [f"taken_square_{i}" for i in range(s)], "taken_squares", {}),
        ("ReduceSum", ["taken_there", "taken_axis_1"], "taken_readings", axes),
        ("Max", ["taken_readings", "taken_one"], "taken_readings_held", {}),
        ("Div", ["taken_squares", "taken_readings_held"], "taken_mean_square", {}),
        ("Squeeze", ["taken_mean_square", "taken_axis_1"], "taken_mean_square_1", {}),
        ("Sqrt", ["taken_mean_square_1"], outputs[2], {}),
    ]
    return steps, constants


def _sensor_steps(sensors: int, constants: dict[str, np.ndarray]) -> Sequence[Step]:
    """Return the update by one sensor after the other."""
    found: list[Step] = []
    rows = {"perm": [0, 2, 1]}
    axes = {"keepdims": 1}
    for i in range(sensors):
        constants[f"taken_sensor_{i}"] = np.array([i], _I64)

        def own(source: str, name: str, axis: int, i: int = i) -> Step:
            return ("Gather", [source, f"taken_sensor_{i}"], f"{name}_{i}", {"axis": axis})

        def three(name: str, i: int = i) -> Step:
            return ("Unsqueeze", [f"{name}_{i}", "taken_axis_2"], f"{name}_3_{i}", {})

        found += [
            own("taken_deviations", "taken_column", 2),
            ("Transpose", [f"taken_column_{i}"], f"taken_row_{i}", rows),
            ("MatMul", [f"taken_row_{i}", f"taken_mixing_{i}"], f"taken_ours_{i}", {}),
            ("Mul", [f"taken_ours_{i}", f"taken_ours_{i}"], f"taken_ours_squared_{i}", {}),
            ("ReduceMean", [f"taken_ours_squared_{i}", "taken_axis_2"], f"taken_known_{i}", axes),
            own("taken_noise", "taken_noise", 1),
            three("taken_noise"),
            ("Add", [f"taken_known_{i}", f"taken_noise_3_{i}"], f"taken_total_{i}", {}),
            own("taken_seen", "taken_seen", 1),
            three("taken_seen"),
            own("taken_middle_3", "taken_middle", 2),
            ("MatMul", [f"taken_row_{i}", f"taken_moved_{i}"], f"taken_shift_{i}", {}),
            ("Sub", [f"taken_seen_3_{i}", f"taken_middle_{i}"], f"taken_off_{i}", {}),
            ("Sub", [f"taken_off_{i}", f"taken_shift_{i}"], f"taken_away_{i}", {}),
            own("taken_there", "taken_there", 1),
            three("taken_there"),
            ("Div", [f"taken_there_3_{i}", f"taken_total_{i}"], f"taken_trust_{i}", {}),
            ("Transpose", [f"taken_ours_{i}"], f"taken_ours_t_{i}", rows),
            ("MatMul", [f"taken_mixing_{i}", f"taken_ours_t_{i}"], f"taken_cross_{i}", {}),
            ("Div", [f"taken_cross_{i}", "taken_count"], f"taken_covariance_{i}", {}),
            ("Mul", [f"taken_covariance_{i}", f"taken_trust_{i}"], f"taken_gain_{i}", {}),
            ("Mul", [f"taken_gain_{i}", f"taken_away_{i}"], f"taken_step_{i}", {}),
            ("Add", [f"taken_moved_{i}", f"taken_step_{i}"], f"taken_moved_{i + 1}", {}),
            ("Div", [f"taken_noise_3_{i}", f"taken_total_{i}"], f"taken_part_{i}", {}),
            ("Sqrt", [f"taken_part_{i}"], f"taken_root_{i}", {}),
            ("Add", [f"taken_root_{i}", "taken_one"], f"taken_more_{i}", {}),
            ("Div", [f"taken_gain_{i}", f"taken_more_{i}"], f"taken_shrink_{i}", {}),
            ("MatMul", [f"taken_shrink_{i}", f"taken_ours_{i}"], f"taken_less_{i}", {}),
            ("Sub", [f"taken_mixing_{i}", f"taken_less_{i}"], f"taken_mixing_{i + 1}", {}),
            ("Mul", [f"taken_away_{i}", f"taken_away_{i}"], f"taken_away_squared_{i}", {}),
            ("Mul", [f"taken_away_squared_{i}", f"taken_trust_{i}"], f"taken_square_3_{i}", {}),
            ("Squeeze", [f"taken_square_3_{i}", "taken_axis_2"], f"taken_square_{i}", {}),
        ]
    return found
