"""Turbulence and drag: coefficients that are renewed every few steps."""

from __future__ import annotations

import torch

from apps.simulators.flow.layout import Metrics
from apps.simulators.flow.problem import Problem

#: A screen lets 1.1 / sqrt(1 + K) of the motion along it pass (Taylor and Batchelor 1949, Q. J.
#: Mech. Appl. Math. 2; Laws and Livesey 1978, Annu. Rev. Fluid Mech. 10), all of it where K < 0.2.
_PASSING = 1.1
#: Keeps a/U finite where the air stands still; in units of the wind.
_STILL = 1e-6


class Closure:
    """Eddy viscosity and drag of a flow.

    Eddy viscosity is Prandtl's mixing length, nu_t = l^2 |S|, less across a screen, which stops
    eddies; the drag of canopy and ground is quadratic in the wind speed, a screen's follows
    K(U) = a/U + b on the velocity through it.
    """

    def __init__(self, metrics: Metrics, problem: Problem) -> None:
        m = self._m = metrics
        self._length2 = m.pack(problem.mixing_length[..., None] ** 2)
        self._canopy = m.pack(problem.canopy[..., None])
        self._viscosity = problem.viscosity
        self._ground = problem.ground_drag / float(m.width[2][0, 0, 0])
        self._screens = [
            (s.axis, s.index, m.pack(s.linear), m.pack(s.quadratic)) for s in problem.screens
        ]
        # Molecules pass a screen as if it were not there.
        self._eddies = bool(problem.mixing_length.any())

    def viscosity(self, velocity: list[torch.Tensor]) -> torch.Tensor:
        """Return the viscosity at cell centres, m (velocities are in units of the wind)."""
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
        return strain.sqrt_().mul_(self._length2).add_(self._viscosity)

    def speed(self, velocity: list[torch.Tensor]) -> torch.Tensor:
        """Return the wind speed at cell centres."""
        x, y, z = (self._m.middle(f, a) for a, f in enumerate(velocity))
        return x.square_().add_(y.square_()).add_(z.square_()).sqrt_()

    def passing(self, speed: torch.Tensor) -> list[torch.Tensor]:
        """Return the share of the eddies' exchange that each screen lets pass, on its plane.

        K is taken at the speed of the air beside the screen: eddies pass it also where the mean
        flow does not.
        """
        m = self._m
        shares = []
        for axis, index, linear, quadratic in self._screens if self._eddies else ():
            beside = m.cut(m.linear(speed, axis), axis, index - 1, index).clamp(min=_STILL)
            distance = m.cut(m.distance[axis], axis, index, index + 1)
            loss = (linear / beside).add_(quadratic).mul_(2.0 * distance)
            shares.append(loss.add_(1.0).rsqrt_().mul_(_PASSING).clamp_(max=1.0))
        return shares

    def drag(self, velocity: list[torch.Tensor], speed: torch.Tensor) -> list[torch.Tensor]:
        """Return the drag coefficients at the interior faces of each component, 1/m."""
        m = self._m
        volume = speed * self._canopy
        volume[0] += self._ground * speed[0]
        total = [m.linear(volume, 0), m.linear(volume, 1), m.linear(speed * self._canopy, 2)]
        for axis, index, linear, quadratic in self._screens:
            through = m.cut(velocity[axis], axis, index, index + 1).abs()
            screen = m.cut(total[axis], axis, index - 1, index)
            screen += torch.addcmul(linear, quadratic, through)
        return total

    def conductances(
        self, nu: torch.Tensor, passing: list[torch.Tensor]
    ) -> list[list[torch.Tensor | None]]:
        """Return nu over distance for `Transport.tendency`, by component and direction."""
        m = self._m
        at_x, at_y = m.faces(nu, 0), m.faces(nu, 1)
        xy, xz, yz = m.faces(at_x, 1), m.faces(at_x, 2), m.faces(at_y, 2)
        dx, dy = m.distance[0], m.distance[1]
        across: list[list[torch.Tensor | None]] = [
            [nu / m.width[0], m.inner(xy, 0) / dy, None],
            [m.inner(xy, 1) / dx, nu / m.width[1], None],
            [m.inner(xz, 2) / dx, m.inner(yz, 2) / dy, None],
        ]
        for a in range(3):
            for axis in (0, 1):
                edge = across[a][axis]
                if edge is not None and axis != a:
                    self._shield(edge, a, axis, passing)
        return across

    def vertical(
        self, nu: torch.Tensor, passing: list[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the coupling to the value below and above, 1/m, for each component.

        No stress through the ground but the drag's, and none through the top.
        """
        m = self._m
        width, distance = m.width[2], m.distance[2]
        pairs = []
        for a in (0, 1):
            edge = m.inner(m.faces(m.faces(nu, a), 2), a) / distance
            self._shield(edge, a, 2, passing)
            edge[0] = 0.0
            edge[-1] = 0.0
            pairs.append((edge[:-1] / width, edge[1:] / width))
        centre = nu / width
        pairs.append((centre[:-1] / distance[1:-1], centre[1:] / distance[1:-1]))
        return pairs

    def _shield(self, edge: torch.Tensor, a: int, axis: int, passing: list[torch.Tensor]) -> None:
        """Multiply, in place, the exchange of component `a` along `axis` by what screens pass."""
        m = self._m
        for (normal, index, *_), share in zip(self._screens, passing, strict=False):
            if normal == axis:
                plane = m.cut(edge, axis, index, index + 1)
                plane.mul_(m.linear(share, a))

    def diffusion_rate(self, nu: torch.Tensor) -> torch.Tensor:
        """Return the largest rate of explicit diffusion of each case, 1/m."""
        m = self._m
        rate = 4.0 * nu * (1 / m.width[0] ** 2 + 1 / m.width[1] ** 2)
        return m.per_case(rate).amax(0)
