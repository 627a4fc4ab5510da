"""A surrogate that knows that its solver is not the truth.

What a dearer solver or a finer grid still changes is of the size of what the step before changed,
cell by cell (the reasoning of grid convergence studies: Roache 1994, J. Fluids Eng. 116:405). That
share of the discrepancy between the two solvers is added to the standard deviation, in squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.surrogates.base import WIND, WIND_STD, Surrogate
from apps.surrogates.graph import Step, extended, renamed

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class WithSolverError:
    """A surrogate with a wider standard deviation; see `apps.surrogates.base.Surrogate`."""

    surrogate: Surrogate
    deviation: np.ndarray
    """(3, nz, ny, nx): what is added, over the wind speed."""

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return wind and standard deviation."""
        wind, std = self.surrogate.predict(inputs)
        added = inputs[:, 0, None, None, None, None] * self.deviation.astype(np.float32)
        return wind, np.sqrt(std**2 + added**2)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph."""
        shape = self.deviation.shape
        model = renamed(self.surrogate.to_onnx(), {WIND_STD: "own_std"})
        constants: dict[str, np.ndarray] = {
            "solver_deviation": self.deviation.astype(np.float32)[None],
            "solver_column": np.array([0], np.int64),
            "solver_speed_shape": np.array([-1, 1, 1, 1, 1], np.int64),
        }
        steps: list[Step] = [
            ("Gather", ["inputs", "solver_column"], "solver_speed", {"axis": 1}),
            ("Reshape", ["solver_speed", "solver_speed_shape"], "solver_speed_5", {}),
            ("Mul", ["solver_speed_5", "solver_deviation"], "solver_added", {}),
            ("Mul", ["solver_added", "solver_added"], "solver_variance", {}),
            ("Mul", ["own_std", "own_std"], "own_variance", {}),
            ("Add", ["own_variance", "solver_variance"], "whole_variance", {}),
            ("Sqrt", ["whole_variance"], WIND_STD, {}),
        ]
        columns = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        outputs = [(name, ("batch", *shape)) for name in (WIND, WIND_STD)]
        return extended(model, (), steps, constants, columns, outputs)

    def summary(self) -> dict[str, Any]:
        """Return what training chose, and the size of what is added."""
        size = float(np.sqrt((self.deviation**2).sum(axis=0).mean()))
        return self.surrogate.summary() | {"solver_error": size}

    def state(self) -> dict[str, np.ndarray]:
        """Return what a later training can start from."""
        return self.surrogate.state()
