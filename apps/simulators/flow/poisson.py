"""Exact Poisson solver on a rectilinear grid by fast diagonalisation.

Lynch, Rice and Thomas 1964, Numer. Math. 6: the one-dimensional operators are diagonalised once,
and each solve is three small matrix products forth and three back, whatever the stretching.
"""

from __future__ import annotations

import numpy as np
import torch


class Poisson:
    """Solves div grad p = r with zero normal gradient on all sides.

    Parameters
    ----------
    nodes : three arrays
        Cell edges along x, y, z, m.
    cases : int
        Innermost length of the fields.
    device : str
    """

    def __init__(self, nodes: tuple[np.ndarray, ...], cases: int, device: str) -> None:
        def tensor(a: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(a), dtype=torch.float32, device=device)

        modes = [_modes(n) for n in nodes]
        self._back = [tensor(m[0]) for m in modes]
        self._forth = [tensor(m[1]) for m in modes]
        x, y, z = (m[2] for m in modes)
        total = z[:, None, None] + y[:, None] + x
        # The constant mode: the pressure's level is free, it stays zero.
        total[np.abs(total) < 1e-12 * np.abs(total).max()] = np.inf
        self._inverse = tensor((1 / total).reshape(-1, 1, len(x)))
        self._cases = cases

    def solve(self, r: torch.Tensor) -> torch.Tensor:
        """Return p for r, both (nz, ny, nx * cases)."""
        nz, ny, row = r.shape
        x, y, z = self._forth
        r = torch.matmul(y, (z @ r.reshape(nz, -1)).view(nz, ny, row))
        # Cases apart while x is diagonalised: with them innermost the products are too narrow,
        # and take most of the step where the batch is small.
        apart = r.view(nz * ny, -1, self._cases).transpose(1, 2).contiguous()
        hat = torch.matmul(apart.view(-1, apart.shape[-1]), x.T).view_as(apart)
        hat.mul_(self._inverse)
        x, y, z = self._back
        apart = torch.matmul(hat.view(-1, hat.shape[-1]), x.T).view_as(hat)
        r = apart.transpose(1, 2).reshape(nz, ny, row)
        return (z @ torch.matmul(y, r).view(nz, -1)).view(nz, ny, row)


def _modes(nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return modes, their inverse and eigenvalues of the one-dimensional operator."""
    width = np.diff(nodes)
    n = len(width)
    flux = np.zeros((n, n))
    for i, distance in enumerate(0.5 * (width[1:] + width[:-1])):
        flux[i : i + 2, i : i + 2] += np.array([[-1.0, 1.0], [1.0, -1.0]]) / distance
    root = np.sqrt(width)
    # Symmetric after scaling by the square root of the widths.
    values, vectors = np.linalg.eigh(flux / root[:, None] / root)
    return vectors / root[:, None], (vectors * root[:, None]).T, values
