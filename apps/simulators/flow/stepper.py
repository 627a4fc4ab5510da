"""One time step: explicit advection, implicit vertical diffusion and drag, pressure projection.

The projection is incremental (van Kan 1986, SIAM J. Sci. Stat. Comput. 7), so the steady state does
not depend on the time step, and a screen's pressure jump is exact. Every case has its own step.
"""

from __future__ import annotations

import torch

from apps.simulators.flow.closure import Closure
from apps.simulators.flow.layout import Metrics
from apps.simulators.flow.poisson import Poisson
from apps.simulators.flow.problem import Problem
from apps.simulators.flow.transport import Transport

#: Renewed drag is averaged with the old one: frozen quadratic drag alone would oscillate.
_RELAX = 0.5


class Flow:
    """The state of a batch of cases, and how it advances.

    Attributes
    ----------
    velocity : list of three fields
        Normal velocities on the faces, in units of each case's wind speed.
    pressure : field
        Kinematic, in units of the wind speed squared.
    projected : list of three fields
        What the last projection took from the velocity at interior faces; zero in steady state.
    """

    def __init__(self, problem: Problem, device: str = "cpu") -> None:
        m = self.metrics = Metrics.of(problem.grid, problem.size, device)
        self._transport, self._closure = Transport(m, problem), Closure(m, problem)
        self._poisson = Poisson(problem.grid.nodes, problem.size, device)
        nx, ny, nz = m.cells
        n = m.cases

        def zeros(x: int, y: int, z: int) -> torch.Tensor:
            return torch.zeros((z, y, x * n), dtype=torch.float32, device=device)

        wind = [m.pack(problem.inflow[a][:, None, None, :]) for a in (0, 1)]
        normal = [m.pack(problem.entering(k)[k // 2][:, None, None, :]) for k in range(4)]
        self._entering = [m.rows(w, 1 if k < 2 else nx) for k, w in enumerate(normal)]
        start = m.pack(problem.start[..., None])
        self.velocity = [
            m.rows(wind[0], nx + 1) * m.faces(start, 0),
            m.rows(wind[1], nx) * m.faces(start, 1),
            zeros(nx, ny, nz + 1),
        ]
        self.pressure = zeros(nx, ny, nz)
        self._nu = zeros(nx, ny, nz)
        self._drag: list[torch.Tensor] = []
        self._passing: list[torch.Tensor] = []
        self.projected: list[torch.Tensor] = []
        self._open = [
            m.rows(m.pack(problem.out[side][None, None, None, :]), 1 if side < 2 else nx)
            for side in range(4)
        ]
        width = m.width
        self._area = [width[1] * width[2], width[0] * width[2]]
        area = sum(
            self._sum(self._open[side].expand(nz, ny if side < 2 else 1, -1), side // 2)
            for side in range(4)
        )
        # A closed box has no open side, and no net flow to share among them.
        self._open_area = area.clamp(min=1e-12)
        self._set_dt(torch.full((n,), 1e-3, dtype=torch.float32, device=device))

    def limit_dt(self, cfl: float) -> None:
        """Set each case's time step to its stability limit times `cfl`."""
        m = self.metrics
        total: torch.Tensor | None = None
        for a, field in enumerate(self.velocity):
            rate = m.middle(field.abs(), a) / m.width[a]
            total = rate if total is None else total.add_(rate)
        assert total is not None  # noqa: S101 - three components
        advection = m.per_case(total).amax(0) / cfl
        self._set_dt(1.0 / torch.maximum(advection, self._closure.diffusion_rate(self._nu)))

    def renew(self) -> None:
        """Renew eddy viscosity and drag."""
        self._nu = self._closure.viscosity(self.velocity)
        speed = self._closure.speed(self.velocity)
        self._passing = self._closure.passing(speed)
        fresh = self._closure.drag(self.velocity, speed)
        for old, new in zip(self._drag, fresh, strict=False):
            new.lerp_(old, 1 - _RELAX)
        self._drag = fresh

    def prepare(self) -> None:
        """Factorise the implicit part; after `renew`, `limit_dt` or `restore`."""
        self._conductance = self._closure.conductances(self._nu, self._passing)
        self._factors = [
            _factorise(drag, below, above, dt)
            for drag, (below, above), dt in zip(
                self._drag,
                self._closure.vertical(self._nu, self._passing),
                self._dt_rows,
                strict=True,
            )
        ]

    def step(self) -> None:
        """Advance by one time step."""
        m, velocity = self.metrics, self.velocity
        fresh = []
        for a in range(3):
            change = self._transport.tendency(velocity, a, self._conductance[a])
            change.sub_(m.diff(self.pressure, a).div_(m.inner(m.distance[a], a)))
            value = torch.addcmul(m.inner(velocity[a], a), change, self._dt_rows[a])
            fresh.append(_substitute(value, *self._factors[a]))
        for a in range(3):
            m.inner(velocity[a], a).copy_(fresh[a])
        self._sides()
        correction = self._poisson.solve(self.divergence())
        self.projected = [m.diff(correction, a).div_(m.inner(m.distance[a], a)) for a in range(3)]
        for a in range(3):
            m.inner(velocity[a], a).sub_(self.projected[a])
        self.pressure.addcmul_(correction, self._per_dt)

    @property
    def viscosity(self) -> torch.Tensor:
        """Viscosity at cell centres, m."""
        return self._nu

    def divergence(self) -> torch.Tensor:
        """Return the divergence at cell centres, 1/m."""
        m = self.metrics
        total = m.diff(self.velocity[0], 0).div_(m.width[0])
        for a in (1, 2):
            total.add_(m.diff(self.velocity[a], a).div_(m.width[a]))
        return total

    def imbalance(self) -> torch.Tensor:
        """Return the sum of |divergence| over the flow that enters the sides, per case."""
        m = self.metrics
        volume = m.width[0] * m.width[1] * m.width[2]
        lost = m.per_case(self.divergence().abs() * volume).double().sum(0)
        entering = 0.0
        for a in (0, 1):
            low, high = m.cut(self.velocity[a], a, 0, 1), m.cut(self.velocity[a], a, -1, 0)
            entering = entering + self._sum(low.clamp(min=0) - high.clamp(max=0), a)
        return lost / entering

    def fastest(self) -> torch.Tensor:
        """Return the largest velocity component of each case; NaN if any value is."""
        largest = [self.metrics.per_case(f.abs()).amax(0) for f in self.velocity]
        return torch.stack(largest).amax(0)

    def state(self) -> dict[str, torch.Tensor]:
        """Return all that `restore` needs to go on bit for bit."""
        u, v, w = self.velocity
        named = {"u": u, "v": v, "w": w, "p": self.pressure, "nu": self._nu, "dt": self._dt}
        named |= {f"drag_{k}": d for k, d in enumerate(self._drag)}
        return named | {f"passing_{k}": p for k, p in enumerate(self._passing)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take up the state of a flow of the same problem, from whatever device."""
        state = {name: value.to(self.metrics.device) for name, value in state.items()}
        self.velocity = [state["u"], state["v"], state["w"]]
        self.pressure, self._nu = state["p"], state["nu"]
        self._drag = [state[f"drag_{k}"] for k in range(3) if f"drag_{k}" in state]
        self._passing = [state[name] for name in sorted(state) if name.startswith("passing_")]
        self._set_dt(state["dt"])
        if self._drag:  # none before the first step
            self.prepare()

    @property
    def dt(self) -> torch.Tensor:
        """Each case's time step, m."""
        return self._dt

    def _set_dt(self, dt: torch.Tensor) -> None:
        m = self.metrics
        nx = m.cells[0]
        row = dt.reshape(1, 1, -1)
        self._dt = dt
        self._dt_rows = [m.rows(row, nx - 1), m.rows(row, nx), m.rows(row, nx)]
        self._per_dt = m.rows(1 / row, nx)

    def _sides(self) -> None:
        """Set the flow through the four sides, so that as much leaves as enters."""
        m = self.metrics
        net: torch.Tensor | float = 0.0
        ends = []
        for a in (0, 1):
            field, wind = self.velocity[a], self._entering[2 * a : 2 * a + 2]
            low, high = m.cut(field, a, 0, 1), m.cut(field, a, -1, 0)
            low.copy_(torch.lerp(wind[0], m.cut(field, a, 1, 2), self._open[2 * a]))
            high.copy_(torch.lerp(wind[1], m.cut(field, a, -2, -1), self._open[2 * a + 1]))
            net = net + self._sum(high - low, a)
            ends.append((low, high))
        excess = (net / self._open_area).float().reshape(1, 1, -1)
        for a, (low, high) in enumerate(ends):
            row = excess if a == 0 else m.rows(excess, m.cells[0])
            low.add_(row * self._open[2 * a])
            high.sub_(row * self._open[2 * a + 1])

    def _sum(self, side: torch.Tensor, a: int) -> torch.Tensor:
        """Return the integral over a side of the domain per case, in double precision."""
        return self.metrics.per_case(side * self._area[a]).double().sum(0)


def _factorise(
    drag: torch.Tensor, below: torch.Tensor, above: torch.Tensor, dt: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return Thomas's factors of 1 + dt (drag + vertical diffusion): pivot, forward, backward."""
    below, above = below * dt, above * dt
    pivot = (drag * dt).add_(below).add_(above).add_(1.0)
    forward, backward = torch.empty_like(pivot), torch.empty_like(pivot)
    pivot[0].reciprocal_()
    for k in range(1, len(pivot)):
        torch.mul(above[k - 1], pivot[k - 1], out=backward[k - 1])
        pivot[k].addcmul_(below[k], backward[k - 1], value=-1.0).reciprocal_()
        torch.mul(below[k], pivot[k], out=forward[k])
    return pivot, forward, backward


def _substitute(
    value: torch.Tensor, pivot: torch.Tensor, forward: torch.Tensor, backward: torch.Tensor
) -> torch.Tensor:
    """Solve the factorised system along z in place."""
    value.mul_(pivot)
    levels = value.unbind(0)
    for k in range(1, len(levels)):
        levels[k].addcmul_(forward[k], levels[k - 1])
    for k in range(len(levels) - 2, -1, -1):
        levels[k].addcmul_(backward[k], levels[k + 1])
    return value
