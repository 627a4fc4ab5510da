"""How fields lie in memory, and differences and means between cells and faces.

A field is (z, y, x * case): the case runs fastest and shares an axis with x. Every slice along any
axis then keeps long contiguous rows, which on small grids is a factor of several in speed, and no
operation mixes cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from apps.simulators.flow.grid import SolverGrid

#: Tensor dimension of the axes x, y, z.
DIM = (2, 1, 0)


@dataclass(frozen=True)
class Metrics:
    """Widths of the grid as tensors that broadcast, for a batch of cases."""

    cases: int
    cells: tuple[int, int, int]
    width: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Cell widths along x, y, z, m."""
    distance: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Distances of cell centres at the n + 1 faces, m; at the ends a cell width (mirror)."""
    near: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    """Weight of the lower cell in a linear mean at interior faces."""
    device: str

    @classmethod
    def of(cls, grid: SolverGrid, cases: int, device: str) -> Metrics:
        """Return the metrics of a grid."""

        def tensor(values: np.ndarray, axis: int) -> torch.Tensor:
            if axis == 0:
                values = np.repeat(values, cases)
            shape = [1, 1, 1]
            shape[DIM[axis]] = -1
            return torch.as_tensor(values, dtype=torch.float32, device=device).reshape(shape)

        width, distance, near = [], [], []
        for axis, nodes in enumerate(grid.nodes):
            d = np.diff(nodes)
            width.append(tensor(d, axis))
            inner = 0.5 * (d[1:] + d[:-1])
            distance.append(tensor(np.concatenate([d[:1], inner, d[-1:]]), axis))
            near.append(tensor(d[1:] / (d[1:] + d[:-1]), axis))
        return cls(cases, grid.cells, _three(width), _three(distance), _three(near), device)

    def stride(self, axis: int) -> int:
        """Return by how much the tensor index grows from cell to cell."""
        return self.cases if axis == 0 else 1

    def cut(self, field: torch.Tensor, axis: int, start: int, stop: int) -> torch.Tensor:
        """Return the cells or faces start to stop along an axis.

        As in a Python slice, negative numbers count from the end; a stop of 0 is the end.
        """
        step, dim = self.stride(axis), DIM[axis]
        length = field.shape[dim]
        begin = start * step if start >= 0 else length + start * step
        end = stop * step if stop > 0 else length + stop * step
        return field.narrow(dim, begin, end - begin)

    def inner(self, field: torch.Tensor, axis: int) -> torch.Tensor:
        """Return all but the first and the last along an axis."""
        return self.cut(field, axis, 1, -1)

    def diff(self, field: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the differences of neighbours along an axis."""
        return self.cut(field, axis, 1, 0) - self.cut(field, axis, 0, -1)

    def middle(self, faces: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the means of neighbours: from faces to cell centres."""
        return (self.cut(faces, axis, 1, 0) + self.cut(faces, axis, 0, -1)).mul_(0.5)

    def linear(self, cells: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the linear interpolation from cell centres to interior faces."""
        return torch.lerp(
            self.cut(cells, axis, 1, 0), self.cut(cells, axis, 0, -1), self.near[axis]
        )

    def faces(self, cells: torch.Tensor, axis: int) -> torch.Tensor:
        """Return values at all faces: linear inside, copied at the ends."""
        ends = self.cut(cells, axis, 0, 1), self.cut(cells, axis, -1, 0)
        return torch.cat((ends[0], self.linear(cells, axis), ends[1]), DIM[axis])

    def carried(self, flow: torch.Tensor, axis: int) -> torch.Tensor:
        """Return the velocity through the sides of control volumes about interior faces.

        Weighted by width, so that a control volume made of two half cells loses no mass.
        """
        return torch.lerp(self.cut(flow, axis, 0, -1), self.cut(flow, axis, 1, 0), self.near[axis])

    def rows(self, per_case: torch.Tensor, n: int) -> torch.Tensor:
        """Return a value per case, shaped (..., cases), repeated along n cells of x."""
        return per_case.repeat(*([1] * (per_case.dim() - 1)), n)

    def per_case(self, field: torch.Tensor) -> torch.Tensor:
        """Return a field as (everything else, cases)."""
        return field.reshape(-1, self.cases)

    def pack(self, array: np.ndarray) -> torch.Tensor:
        """Return a (z, y, x, case) array as a field."""
        array = np.broadcast_to(array, (*array.shape[:3], self.cases))
        shape = (*array.shape[:2], array.shape[2] * self.cases)
        return torch.tensor(array.reshape(shape), dtype=torch.float32, device=self.device)

    def unpack(self, field: torch.Tensor, case: int) -> np.ndarray:
        """Return one case of a field as a (z, y, x) array."""
        values = field.reshape(*field.shape[:2], -1, self.cases)[..., case]
        return np.array(values.cpu().numpy())


def _three(
    values: list[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return values[0], values[1], values[2]
