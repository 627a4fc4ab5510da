"""A batch marched to steady state: time steps, convergence of each case, checkpoints.

A case ends on its own: its fields are taken when it has converged, and what its column of the batch
does afterwards is nobody's. So a case's result does not depend on its company.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from apps.simulators.flow.problem import Problem
from apps.simulators.flow.stepper import Flow
from edge_agent.contracts.storage import write_bytes

#: Sum over the directions of speed times step over cell width; 1.0 blows up.
CFL = 0.6
#: Steps between renewals of eddy viscosity and drag.
RENEW = 5
#: Steps between checks of convergence; a multiple of RENEW.
CHECK = 25
#: A case that has not converged by then ends.
MAX_STEPS = 3000
#: A velocity above this many wind speeds is no wind: the case has diverged.
FASTEST = 10.0
#: Interior speeds below this share of the wind count as noise in the residual.
_FLOOR = 0.02

Reason = Literal["converged", "steps", "diverged", "not_finite"]


@dataclass(frozen=True)
class End:
    """How a case ended."""

    case: int
    """Its place in the batch."""
    reason: Reason
    residual: float
    """Relative change of the wind in the house per flow-through, or the share of it that the last
    projection undid, whichever is larger; infinite before the second check."""
    imbalance: float
    """Sum of |divergence| over the flow entering the domain."""
    steps: int


class March:
    """Marches a batch; call `step` until `active` is empty.

    Parameters
    ----------
    problem : Problem
    tolerance : float
        Residual at which a case has converged.
    device : str
    """

    def __init__(self, problem: Problem, tolerance: float, device: str = "cpu") -> None:
        self.flow = Flow(problem, device)
        self.active = set(range(problem.size))
        self.residual = [math.inf] * problem.size
        self.steps = 0
        self._tolerance = tolerance
        grid = self.grid = problem.grid
        first, last = grid.house[0]
        self._length = float(grid.nodes[0][last] - grid.nodes[0][first])
        self._reference: list[torch.Tensor] | None = None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self) -> list[End]:
        """Take one time step and return the cases that ended with it."""
        if self.steps % RENEW == 0:
            self.flow.renew()
            if self.steps % CHECK == 0:
                # Half a step while the start's jump at the walls decays.
                self.flow.limit_dt(CFL if self.steps else 0.5 * CFL)
            self.flow.prepare()
        self.flow.step()
        self.steps += 1
        return self._check() if self.steps % CHECK == 0 else []

    def save(self, path: Path, note: dict[str, object]) -> None:
        """Write a checkpoint, whole or not at all, with a note of plain values."""
        state = {
            "flow": self.flow.state(),
            "reference": self._reference,
            "active": sorted(self.active),
            "residual": self.residual,
            "steps": self.steps,
            "note": note,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, state: dict[str, object]) -> None:
        """Go on from a checkpoint (`read_checkpoint`) of the same problem, bit for bit."""
        self.flow.restore(state["flow"])  # type: ignore[arg-type]
        reference: list[torch.Tensor] | None = state["reference"]  # type: ignore[assignment]
        if reference is not None:
            reference = [part.to(self.flow.metrics.device) for part in reference]
        self._reference = reference
        self.active = set(state["active"])  # type: ignore[call-overload]
        self.residual = list(state["residual"])  # type: ignore[call-overload]
        self.steps = int(state["steps"])  # type: ignore[call-overload]

    def _check(self) -> list[End]:
        flow, m = self.flow, self.flow.metrics
        now = self._inside(flow.velocity)
        if self._reference is not None:
            change = _norm2([a - b for a, b in zip(now, self._reference, strict=True)], m.cases)
            floor = _FLOOR**2 * sum(f.numel() for f in now[:2]) / m.cases
            size = _norm2(now, m.cases).clamp(min=floor)
            passes = CHECK * flow.dt.double() / self._length
            # Behind a dense screen the wind stands still long before its pressure is right; then
            # drag and projection still undo each other's work.
            undone = _norm2(self._inside(flow.projected, lost=1), m.cases)
            residual = torch.maximum((change / size).sqrt() / passes, (undone / size).sqrt())
            self.residual = [float(r) for r in residual]
        self._reference = now
        fastest, imbalance = flow.fastest(), flow.imbalance()
        ends = []
        for case in sorted(self.active):
            reason: Reason | None = None
            if not math.isfinite(fastest[case]):
                reason = "not_finite"
            elif fastest[case] > FASTEST:
                reason = "diverged"
            elif self.residual[case] < self._tolerance:
                reason = "converged"
            elif self.steps >= MAX_STEPS:
                reason = "steps"
            if reason:
                end = End(case, reason, self.residual[case], float(imbalance[case]), self.steps)
                ends.append(end)
        self.active -= {e.case for e in ends}
        return ends

    def _inside(self, fields: list[torch.Tensor], lost: int = 0) -> list[torch.Tensor]:
        """Return copies of the components in and on the house.

        The fields lack `lost` faces at either end of the domain.
        """
        m = self.flow.metrics
        parts = []
        for normal, field in enumerate(fields):
            part = field
            for axis, (first, last) in enumerate(self.grid.house):
                if axis == normal:
                    end = min(last + 1 - lost, m.cells[axis] + 1 - 2 * lost)
                    part = m.cut(part, axis, max(first - lost, 0), end)
                else:
                    part = m.cut(part, axis, first, last)
            parts.append(part.clone())
        return parts


def read_checkpoint(path: Path) -> dict[str, object] | None:
    """Return a checkpoint's content, or None if there is none that can be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # noqa: BLE001 - torch raises of all kinds on damaged files; start afresh
        return None
    return state if isinstance(state, dict) and "flow" in state else None


def _norm2(parts: list[torch.Tensor], cases: int) -> torch.Tensor:
    total = [p.square().reshape(-1, cases).double().sum(0) for p in parts]
    return torch.stack(total).sum(0)
