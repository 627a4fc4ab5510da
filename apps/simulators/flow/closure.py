"""Turbulence and drag: coefficients that are renewed every few steps."""

from __future__ import annotations

import torch

from apps.simulators.flow.layout import Metrics
from apps.simulators.flow.problem import Problem


class Closure:
    """Eddy viscosity and drag of a flow.

    Eddy viscosity is Prandtl's mixing length, nu_t = l^2 |S|; the drag of canopy and ground is
    quadratic in the wind speed, a screen's follows K(U) = a/U + b on the velocity through it.
    """

    def __init__(self, metrics: Metrics, problem: Problem) -> None:
        m = self._m = metrics
        self._length2 = m.pack(problem.mixing_length[..., None] ** 2)
        self._canopy = m.pack(problem.canopy[..., None])
        self._ground = problem.ground_drag / float(m.width[2][0, 0, 0])
        self._screens = [
            (s.axis, s.index, m.pack(s.linear), m.pack(s.quadratic)) for s in problem.screens
        ]

    def viscosity(self, velocity: list[torch.Tensor]) -> torch.Tensor:
        """Return the eddy viscosity at cell centres, m (velocities are in units of the wind)."""
        m = self._m
        centre = [m.middle(f, a) for a, f in enumerate(velocity)]
        slope = [
            [
                m.diff(velocity[a] if a == d else m.faces(centre[a], d), d) / m.width[d]
                for d in range(3)
            ]
            for a in range(3)
        ]
        strain = slope[0][0] ** 2 + slope[1][1] ** 2 + slope[2][2] ** 2
        strain.mul_(2.0)
        for a, d in ((0, 1), (0, 2), (1, 2)):
            strain += slope[a][d].add_(slope[d][a]).square_()
        return strain.sqrt_().mul_(self._length2)

    def drag(self, velocity: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the drag coefficients at the interior faces of each component, 1/m."""
        m = self._m
        x, y, z = (m.middle(f, a) for a, f in enumerate(velocity))
        speed = x.square_().add_(y.square_()).add_(z.square_()).sqrt_()
        volume = speed * self._canopy
        volume[0] += self._ground * speed[0]
        total = [m.linear(volume, 0), m.linear(volume, 1), m.linear(speed * self._canopy, 2)]
        for axis, index, linear, quadratic in self._screens:
            through = m.cut(velocity[axis], axis, index, index + 1).abs()
            screen = m.cut(total[axis], axis, index - 1, index)
            screen += torch.addcmul(linear, quadratic, through)
        return total

    def conductances(self, nu: torch.Tensor) -> list[list[torch.Tensor | None]]:
        """Return nu over distance for `Transport.tendency`, by component and direction."""
        m = self._m
        at_x, at_y = m.faces(nu, 0), m.faces(nu, 1)
        xy, xz, yz = m.faces(at_x, 1), m.faces(at_x, 2), m.faces(at_y, 2)
        dx, dy = m.distance[0], m.distance[1]
        return [
            [nu / m.width[0], m.inner(xy, 0) / dy, None],
            [m.inner(xy, 1) / dx, nu / m.width[1], None],
            [m.inner(xz, 2) / dx, m.inner(yz, 2) / dy, None],
        ]

    def vertical(self, nu: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the coupling to the value below and above, 1/m, for each component.

        No stress through the ground but the drag's, and none through the top.
        """
        m = self._m
        width, distance = m.width[2], m.distance[2]
        pairs = []
        for a in (0, 1):
            edge = m.inner(m.faces(m.faces(nu, a), 2), a) / distance
            edge[0] = 0.0
            edge[-1] = 0.0
            pairs.append((edge[:-1] / width, edge[1:] / width))
        centre = nu / width
        pairs.append((centre[:-1] / distance[1:-1], centre[1:] / distance[1:-1]))
        return pairs

    def diffusion_rate(self, nu: torch.Tensor) -> torch.Tensor:
        """Return the largest rate of explicit diffusion of each case, 1/m."""
        m = self._m
        rate = 4.0 * nu * (1 / m.width[0] ** 2 + 1 / m.width[1] ** 2)
        return m.per_case(rate).amax(0)
