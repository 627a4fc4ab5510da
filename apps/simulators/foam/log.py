"""What simpleFoam says while it runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

_TIME = re.compile(r"^Time = (\d+)")
_RESIDUAL = re.compile(r"Solving for (\w+), Initial residual = (\S+),")
_CONTINUITY = re.compile(r"continuity errors : sum local = (\S+),")
_CONVERGED = re.compile(r"^SIMPLE solution converged")
#: Residuals of the pressure may be this much larger.
PRESSURE = 10.0


@dataclass
class Monitor:
    """Follows a run line by line."""

    iteration: int = 0
    """Last begun."""
    residuals: dict[str, float] = field(default_factory=dict)
    """Initial residual of each equation in the last iteration."""
    continuity: float = math.nan
    """Mean of |divergence| over the cells' volumes, 1/s, after the last pressure solution."""
    converged: bool = False
    """Whether the solver says so."""

    def line(self, text: str) -> bool:
        """Take a line of output; return whether an iteration has ended with it."""
        if found := _RESIDUAL.search(text):
            # The pressure may be solved several times; the first residual counts.
            self._note(found[1], _float(found[2]))
        elif found := _TIME.match(text):
            self.iteration = int(found[1])
            self._fresh = True
        elif found := _CONTINUITY.search(text):
            self.continuity = _float(found[1])
        elif _CONVERGED.match(text):
            self.converged = True
        return text.startswith("ExecutionTime")

    @property
    def residual(self) -> float:
        """The largest initial residual, the pressure's over ten; infinite before the first."""
        scaled = [v / PRESSURE if n == "p" else v for n, v in self.residuals.items()]
        return max(scaled, default=math.inf) if not any(map(math.isnan, scaled)) else math.nan

    def _note(self, name: str, value: float) -> None:
        if self._fresh:
            self.residuals = {}
            self._fresh = False
        self.residuals.setdefault(name, value)

    _fresh: bool = True


def _float(text: str) -> float:
    try:
        return float(text.rstrip(","))
    except ValueError:
        return math.nan
