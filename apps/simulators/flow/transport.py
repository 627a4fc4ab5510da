"""Advection and explicit diffusion of momentum on the staggered grid."""

from __future__ import annotations

import numpy as np
import torch

from apps.simulators.flow.layout import DIM, Metrics
from apps.simulators.flow.problem import Problem

#: Keeps the limiter's quotient finite where the flow is uniform.
_TINY = 1e-30


class Transport:
    """Minus the divergence of the momentum flux; the vertical diffusion is the closure's.

    Advection is second-order upwind with van Leer's limiter (van Leer 1974, J. Comput. Phys. 14).
    """

    def __init__(self, metrics: Metrics, problem: Problem) -> None:
        self._m = metrics
        self._sides = {
            (a, d): self._side(problem, a, d) for a in range(3) for d in (0, 1) if a != d
        }

    def tendency(
        self, velocity: list[torch.Tensor], a: int, conductance: list[torch.Tensor | None]
    ) -> torch.Tensor:
        """Return dU/dt of component `a` at its interior faces.

        Parameters
        ----------
        velocity : list of three fields
            x, y and z components on all their faces.
        a : int
            Component.
        conductance : list of three fields or None
            Eddy viscosity over distance at the sides of the control volumes, per direction.
        """
        m = self._m
        own = m.inner(velocity[a], a)
        total: torch.Tensor | None = None
        for d in range(3):
            if d == a:
                ends = m.cut(velocity[a], a, 0, 1), m.cut(velocity[a], a, -1, 0)
                padded = torch.cat((ends[0], velocity[a], ends[1]), DIM[a])
                flux = self._flux(padded, m.middle(velocity[a], a), conductance[d], d)
                change = m.diff(flux, d).div_(m.inner(m.distance[d], d))
            else:
                low, high = self._ghosts(own, a, d)
                padded = torch.cat((low, low, own, high, high), DIM[d])
                flux = self._flux(padded, m.carried(velocity[d], a), conductance[d], d)
                change = m.diff(flux, d).div_(m.width[d])
            total = change if total is None else total.add_(change)
        assert total is not None  # noqa: S101 - three directions
        return total.neg_()

    def _flux(
        self,
        padded: torch.Tensor,
        carrier: torch.Tensor,
        conductance: torch.Tensor | None,
        axis: int,
    ) -> torch.Tensor:
        """Return the flux through each face; `padded` has two more values on either side."""
        m = self._m
        step = m.diff(padded, axis)
        below, above = m.cut(step, axis, 0, -1), m.cut(step, axis, 1, 0)
        # Half the harmonic mean of the slopes, zero at an extremum.
        slope = (below * above).clamp_(min=0.0).div_((below + above).add_(_TINY))
        left = m.cut(padded, axis, 1, -2) + m.cut(slope, axis, 0, -1)
        right = m.cut(padded, axis, 2, -1) - m.cut(slope, axis, 1, 0)
        # Twice as fast as torch.where, and the same bits.
        forward = carrier.clamp(min=0.0)
        flux = left.mul_(forward).addcmul_(right, carrier - forward)
        if conductance is not None:
            flux.addcmul_(conductance, m.cut(step, axis, 1, -1), value=-1.0)
        return flux

    def _ghosts(self, own: torch.Tensor, a: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values beyond both ends: given wind where it enters, else a copy."""
        first, last = self._m.cut(own, d, 0, 1), self._m.cut(own, d, -1, 0)
        if d == 2:
            return first, last
        (keep0, add0), (keep1, add1) = self._sides[a, d]
        return torch.addcmul(add0, keep0, first), torch.addcmul(add1, keep1, last)

    def _side(self, problem: Problem, a: int, d: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return (factor, summand) of the ghost values at the low and high end along `d`."""
        m = self._m
        along = 1 if d == 0 else m.cells[0] - (1 if a == 0 else 0)
        pairs = []
        for side in (2 * d, 2 * d + 1):
            into = m.pack(problem.into[side][None, None, None, :])
            wind = problem.entering(side)[a] if a < 2 else np.zeros((1, problem.size))
            profile = m.pack(wind[:, None, None, :])
            pairs.append((m.rows(1 - 2 * into, along), m.rows(2 * into * profile, along)))
        return pairs
