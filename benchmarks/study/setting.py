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
    family: str = "pod_regression"
    """Surrogate family of the releases."""
    others: tuple[str, ...] = ()
    """Other families, trained on the same runs."""
    other_sizes: tuple[int, ...] = (16, 64)
    """Training runs of their candidates."""
    served: tuple[str, ...] = ()
    """Of these, the families that also serve, beside the first, with a release now and then."""
    served_cycle_hours: float = 55.0
    """Between two of their releases: networks take seconds to train."""
    factors: tuple[float, ...] = (0.71, 1.0, 1.41, 2.0, 2.83)
    """Of the estimator's table."""
    factors_torn: tuple[float, ...] = (1.0, 1.41, 2.0, 2.83)
    """Of the table with the known hole."""
    directions: int = 16
    """Of both tables."""
    speeds: tuple[float, ...] = (1.0, 3.0, 9.0)
    """Of both tables, m/s."""
    arms: bool = True
    """Whether to run the arms with other noise."""
    every: int = 1
    """Which of the truth's instants are used: each so manyth."""
    seed: int = 2026
    """Of the noise and the drawn waits."""


FULL = Setting(
    "full",
    others=tuple(name for name in FAMILIES if name != "pod_regression"),
    served=("pod_network",),
)
SMALL = Setting(
    "small",
    rules=Rules(cycle_hours=35.0, wanted=24, wanted_torn=24, a_cycle=8, fewest=16),
    sizes=SIZES[:13],
    factors=(0.71, 1.0, 2.0, 2.83),
    factors_torn=(1.0, 2.0),
    directions=8,
    speeds=(2.0, 8.0),
    arms=False,
    every=3,
)
SETTINGS = {s.name: s for s in (FULL, SMALL)}
