"""How large the study is: the whole one, and a small one for CI."""

from __future__ import annotations

from dataclasses import dataclass, field

from apps.surrogates.base import FAMILIES
from benchmarks.study.following import Rules
from benchmarks.study.learning import SIZES


@dataclass(frozen=True)
class Setting:
    """Sizes that a machine's time decides on."""

    name: str
    rules: Rules = field(default_factory=Rules)
    sizes: tuple[int, ...] = SIZES
    """Training runs of the candidates."""
    family: str = "pod_gp"
    """Surrogate family of the releases."""
    others: tuple[str, ...] = ()
    """Other families, trained on the same runs."""
    other_sizes: tuple[int, ...] = (16, 64)
    """Training runs of their candidates."""
    served: tuple[str, ...] = ()
    """Of these, the families that also serve, beside the first, with a release now and then."""
    served_cycle_hours: float = 55.0
    """Between two of their releases: networks take seconds to train."""
    arms: bool = True
    """Whether to run the arms with other noise."""
    every: int = 1
    """Which of the truth's instants are used: each so manyth."""
    seed: int = 2026
    """Of the noise and the drawn waits."""


FULL = Setting(
    "full",
    others=tuple(name for name in FAMILIES if name != "pod_gp"),
    served=("pod_network",),
)
SMALL = Setting(
    "small",
    rules=Rules(cycle_hours=35.0, wanted=48, wanted_torn=24),
    sizes=SIZES[:13],
    arms=False,
    every=6,
)
SETTINGS = {s.name: s for s in (FULL, SMALL)}
