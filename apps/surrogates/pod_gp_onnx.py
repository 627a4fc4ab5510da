"""The graph of a trained POD + Gaussian processes.

Covariances and all that is done with them are float64: where runs are near each other, what tells
them apart is lost in float32. ONNX Runtime has no arc cosine in float64, so polynomials are sums of
powers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apps.space import WIDE
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

    from apps.surrogates.pod_gp import PodGp

_F32, _F64, _I64 = np.float32, np.float64, np.int64
#: Types of tensors in ONNX.
_FLOAT, _DOUBLE = 1, 11


def build(model: PodGp) -> onnx.ModelProto:
    """Return the graph: inputs (batch, 2 + columns) to wind and its standard deviation."""
    from apps.surrogates.pod_regression import MINIMUM_STD

    graph = _Kernel(model)
    for process in model.processes:
        i = str(process.part)
        graph.constants |= {
            f"whiten_{i}": process.whiten,
            f"weights_{i}": process.weights,
            f"modes_{i}": process.modes,
            f"noise_{i}": np.array(process.noise, _F64),
            # Squared below: however a delta rounds it, the variance is not negative.
            f"deviation_{i}": np.sqrt(process.variance)[None],
        }
        graph.steps += [
            ("MatMul", [f"covariance_{i}", f"whiten_{i}"], f"white_{i}", {}),
            ("MatMul", [f"white_{i}", f"weights_{i}"], f"precise_{i}", {}),
            ("Cast", [f"precise_{i}"], f"coefficients_{i}", {"to": _FLOAT}),
            ("MatMul", [f"coefficients_{i}", f"modes_{i}"], f"field_{i}", {}),
            ("ReduceSumSquare", [f"white_{i}", "axis_1"], f"known_{i}", {"keepdims": 1}),
            ("Sub", [f"prior_{i}", f"known_{i}"], f"left_{i}", {}),
            ("Max", [f"left_{i}", "nought"], f"unknown_{i}", {}),
            ("Add", [f"unknown_{i}", f"noise_{i}"], f"share_{i}", {}),
            ("Cast", [f"share_{i}"], f"uncertain_{i}", {"to": _FLOAT}),
            ("Mul", [f"deviation_{i}", f"deviation_{i}"], f"variance_{i}", {}),
            ("MatMul", [f"uncertain_{i}", f"variance_{i}"], f"spread_{i}", {}),
        ]
    names = [str(p.part) for p in model.processes]
    graph.constants |= {
        "nought": np.array(0, _F64),
        "residual_std": np.sqrt(model.residual_variance)[None],
        "minimum_std": np.array(MINIMUM_STD, _F32),
        "shape_field": np.array([-1, 3, *model.shape], _I64),
    }
    graph.steps += [
        ("Cast", ["speed"], "speed_single", {"to": _FLOAT}),
        ("Sum", [f"field_{i}" for i in names], "field", {}),
        ("Mul", ["field", "speed_single"], "wind_flat", {}),
        ("Reshape", ["wind_flat", "shape_field"], WIND, {}),
        ("Mul", ["residual_std", "residual_std"], "residual_variance", {}),
        ("Sum", ["residual_variance", *(f"spread_{i}" for i in names)], "variance", {}),
        ("Sqrt", ["variance"], "std", {}),
        ("Mul", ["std", "speed_single"], "std_scaled", {}),
        ("Add", ["std_scaled", "minimum_std"], "std_flat", {}),
        ("Reshape", ["std_flat", "shape_field"], WIND_STD, {}),
    ]
    columns = 2 + len(model.kernel.space.columns)
    return surrogate_model("pod_gp", graph.steps, graph.constants, columns, model.shape)


def _monomials(degree: int) -> np.ndarray:
    """Return what makes Chebyshev polynomials of powers, (degree + 1, degree + 1)."""
    columns = [np.polynomial.chebyshev.cheb2poly(row) for row in np.eye(degree + 1)]
    return np.stack([np.pad(c, (0, degree + 1 - len(c))) for c in columns], axis=1)


class _Kernel:
    """Steps from ``inputs`` to ``covariance_i`` (batch, runs) and ``prior_i`` (batch, 1)."""

    def __init__(self, model: PodGp) -> None:
        self._model, self._kernel, self._runs = model, model.kernel, model.runs
        self.constants: dict[str, np.ndarray] = {
            **scenario_constants(self._kernel.basis, _F64),
            "axis_1": np.array([1], _I64),
            "chebyshev": _monomials(self._kernel.basis.degree),
        }
        del self.constants["degrees"]
        self.constants["powers"] = np.arange(self._kernel.basis.degree + 1.0)[None]
        self.steps: list[Step] = [
            ("Cast", ["inputs"], "precise", {"to": _DOUBLE}),
            *speed_steps("precise"),
            *self._polynomials("t", "polynomials"),
            *direction_steps("precise"),
        ]
        smooth = ["polynomials"] + [self._scalar(j) for j in range(len(self._kernel.space.scalars))]
        decays = self._kernel.decays(model.hyper)
        between, itself = [], []
        for name, runs, decay in zip(smooth, self._runs.polynomials, decays, strict=True):
            pair = self._product(name, name, runs, decay)
            between.append(pair[0])
            itself.append(pair[1])
        self._between, self._itself = self._multiplied(between), self._multiplied(itself)
        house, tear = self._kernel.spectra(model.hyper)
        totals = self._directions("house", house)
        if self._kernel.space.panels:
            self._tears()
            self._add_tears(totals, self._directions("torn", tear))
        for part, (covariance, prior) in enumerate(totals):
            self.steps += [
                ("Mul", [self._between, covariance], f"covariance_{part}", {}),
                ("Mul", [self._itself, prior], f"prior_{part}", {}),
            ]

    def _product(
        self, name: str, label: str, runs: np.ndarray, variances: np.ndarray
    ) -> tuple[str, str]:
        """Add sums over features of a step: with the runs', and with itself; return their names."""
        self.constants[f"{label}_runs"] = (runs * variances).T
        self.constants[f"{label}_variances"] = variances[:, None]
        self.steps += [
            ("MatMul", [name, f"{label}_runs"], f"{label}_between", {}),
            ("Mul", [name, name], f"{label}_squares", {}),
            ("MatMul", [f"{label}_squares", f"{label}_variances"], f"{label}_itself", {}),
        ]
        return f"{label}_between", f"{label}_itself"

    def _multiplied(self, names: list[str]) -> str:
        total = names[0]
        for name in names[1:]:
            self.steps.append(("Mul", [total, name], f"{total}_{name}", {}))
            total = f"{total}_{name}"
        return total

    @staticmethod
    def _polynomials(t: str, name: str) -> list[Step]:
        return [
            ("Pow", [t, "powers"], f"{name}_powers", {}),
            ("MatMul", [f"{name}_powers", "chebyshev"], name, {}),
        ]

    def _scalar(self, j: int) -> str:
        """Add the steps from a scalar's column to its polynomials; return their name."""
        scalar, (low, high) = self._kernel.space.scalars[j], self._kernel.limits[j]
        width = max(high - low, 1e-6)
        self.constants |= {
            f"column_scalar_{j}": np.array([2 + j], _I64),
            f"scalar_{j}_least": np.array(1e-6),
            f"scalar_{j}_a": np.array(2.0 / width),
            f"scalar_{j}_b": np.array(-(high + low) / width),
        }
        self.steps.append(("Gather", ["precise", f"column_scalar_{j}"], f"scalar_{j}", {"axis": 1}))
        source = f"scalar_{j}"
        if scalar.logarithmic:
            self.steps += [
                ("Max", [source, f"scalar_{j}_least"], f"scalar_{j}_held", {}),
                ("Log", [f"scalar_{j}_held"], f"scalar_{j}_log", {}),
            ]
            source = f"scalar_{j}_log"
        self.steps += [
            ("Mul", [source, f"scalar_{j}_a"], f"scalar_{j}_scaled", {}),
            ("Add", [f"scalar_{j}_scaled", f"scalar_{j}_b"], f"scalar_{j}_free", {}),
            ("Clip", [f"scalar_{j}_free", "minus_one", "one"], f"scalar_{j}_t", {}),
            *self._polynomials(f"scalar_{j}_t", f"scalar_{j}_polynomials"),
        ]
        return f"scalar_{j}_polynomials"

    def _directions(self, label: str, spectrum: np.ndarray) -> list[tuple[str, str]]:
        """Add the sums over functions of direction, by part; return the names of each."""
        found = []
        for part in range(len(self._kernel.parts)):
            which = self._kernel.behaving(self._kernel.wave_signs, part)
            found.append(
                self._some("harmonics", f"{label}_{part}", self._runs.waves, spectrum, which)
            )
        return found

    def _some(
        self, name: str, label: str, runs: np.ndarray, variances: np.ndarray, which: np.ndarray
    ) -> tuple[str, str]:
        self.constants[f"{label}_which"] = which.astype(_I64)
        self.steps.append(("Gather", [name, f"{label}_which"], label, {"axis": 1}))
        return self._product(label, label, runs[:, which], variances[which])

    def _tears(self) -> None:
        """Add the steps from the columns of a tear to its features."""
        t, first = self._kernel.tears, 2 + len(self._kernel.space.scalars)
        panels = len(t.starts)
        self.constants |= {
            **{f"column_tear_{j}": np.array([first + j], _I64) for j in range(3)},
            "panel_numbers": np.arange(1.0, panels + 1)[None],
            "half": np.array(0.5),
            "panel_starts": t.starts[None],
            "panel_lengths": t.lengths[None],
            "zero": np.array(0.0),
            "wide": np.array(WIDE),
            "tear_angles": (np.pi * np.arange(t.waves + 1))[None, None],
            "axis_2": np.array([2], _I64),
            "axes_1_3": np.array([1, 3], _I64),
            "axes_2_3": np.array([2, 3], _I64),
            "tear_powers_of": np.arange(1.0, t.powers + 1)[None],
            "tear_shape": np.array([-1, len(t.mixing)], _I64),
            "tear_mixing": t.mixing,
        }
        self.steps += [
            *(
                ("Gather", ["precise", f"column_tear_{j}"], f"tear_{j}", {"axis": 1})
                for j in range(3)
            ),
            ("Sub", ["tear_0", "panel_numbers"], "panel_away", {}),
            ("Abs", ["panel_away"], "panel_apart", {}),
            ("Less", ["panel_apart", "half"], "panel_is", {}),
            ("Cast", ["panel_is"], "panel_there", {"to": _DOUBLE}),
            ("Sub", ["tear_1", "panel_starts"], "tear_along", {}),
            ("Div", ["tear_along", "panel_lengths"], "tear_share", {}),
            ("Clip", ["tear_share", "zero", "one"], "tear_place", {}),
            ("Unsqueeze", ["tear_place", "axis_2"], "tear_place_3", {}),
            ("Mul", ["tear_place_3", "tear_angles"], "tear_arcs", {}),
            ("Cos", ["tear_arcs"], "tear_waves", {}),
            ("Div", ["tear_2", "wide"], "tear_wide", {}),
            ("Pow", ["tear_wide", "tear_powers_of"], "tear_powers", {}),
            ("Unsqueeze", ["panel_there", "axes_2_3"], "panel_there_4", {}),
            ("Unsqueeze", ["tear_powers", "axes_1_3"], "tear_powers_4", {}),
            ("Unsqueeze", ["tear_waves", "axis_2"], "tear_waves_4", {}),
            ("Mul", ["panel_there_4", "tear_powers_4"], "tear_sizes_4", {}),
            ("Mul", ["tear_sizes_4", "tear_waves_4"], "tear_functions_4", {}),
            ("Reshape", ["tear_functions_4", "tear_shape"], "tear_functions", {}),
            ("MatMul", ["tear_functions", "tear_mixing"], "tear_features", {}),
        ]

    def _add_tears(self, totals: list[tuple[str, str]], turning: list[tuple[str, str]]) -> None:
        """Add what a tear does to the totals of each part."""
        variances = self._kernel.tear_variances(self._model.hyper)
        parts = range(len(self._kernel.parts))
        torn = []
        for other in parts:
            which = self._kernel.behaving(self._kernel.tears.signs, other)
            torn.append(
                self._some("tear_features", f"tears_{other}", self._runs.tears, variances, which)
            )
        for part in parts:
            sums = []
            for kind in (0, 1):
                names = [totals[part][kind]]
                for other in parts:
                    factor = turning[self._kernel.companion(part, other)][kind]
                    name = f"tear_{part}_{other}_{kind}"
                    self.steps.append(("Mul", [factor, torn[other][kind]], name, {}))
                    names.append(name)
                self.steps.append(("Sum", names, f"total_{part}_{kind}", {}))
                sums.append(f"total_{part}_{kind}")
            totals[part] = (sums[0], sums[1])
