"""What the study is asked, and whether it is so: pure functions of its results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.study import serving
from benchmarks.study.arrivals import DELAYS
from benchmarks.study.bootstrap import Comparison, compare
from benchmarks.study.learning import Learning, beaten_from, rank_correlation
from benchmarks.study.study import Results, served
from benchmarks.study.truth import STEP_HOURS

#: What every way of serving is compared with.
REFERENCE = "0 h"
PLAIN_BASELINES = ("persistence", "constant ratio", "nearest simulation")
FROZEN = "first release, frozen"


@dataclass(frozen=True)
class Claim:
    """One question and its answer."""

    what: str
    found: str
    holds: bool

    def row(self) -> list[str]:
        return [self.what, self.found, "holds" if self.holds else "**does not hold**"]


@dataclass(frozen=True)
class Compared:
    """All ways on the same instants."""

    instants: np.ndarray
    """(n,) bool."""
    ways: dict[str, serving.Served]
    others: dict[str, np.ndarray]
    table: Comparison


def compared(results: Results) -> Compared:
    """Score every way and everything it is compared with on the same instants."""
    ways, others = served(results)
    errors = {name: way.error for name, way in ways.items()} | others
    instants = serving.scored_from(errors)
    table = compare({k: v[instants] for k, v in errors.items()}, REFERENCE, STEP_HOURS)
    return Compared(instants, ways, others, table)


def learning_claims(learning: Learning) -> list[Claim]:
    """Whether error falls from version to version, and which baselines it beats."""
    published = learning.published
    fall = rank_correlation(range(len(published)), [r.rmse for r in published])
    every = rank_correlation(range(len(learning.rows)), [r.rmse for r in learning.rows])
    against = rank_correlation(range(len(published)), [r.truth_rmse for r in published])
    claims = [
        Claim(
            "error of successive releases falls on the evaluation set (Spearman at most -0.9, "
            "8 releases or more)",
            f"{fall:.2f} over {len(published)} releases; {every:.2f} with refused candidates",
            fall <= -0.9 and len(published) >= 8,
        ),
        Claim(
            "the same against the fine truth",
            f"{against:.2f}; {published[0].truth_rmse:.3f} to {published[-1].truth_rmse:.3f} m/s, "
            f"of which the training grid is {learning.solver_gap:.3f}",
            against <= -0.9,
        ),
    ]
    for name, words in (("ratio", "constant ratio"), ("nearest", "nearest simulation")):
        version = beaten_from(learning.rows, name)
        found = f"from version {version} on" if version else "never for good"
        claims.append(Claim(f"{words} is beaten on the evaluation set", found, version is not None))
    coverage = published[-1].coverage
    claims.append(
        Claim(
            "90 % intervals cover 88 to 92 % of the evaluation set (last release)",
            f"{coverage:.1%}; against the fine truth {published[-1].truth_coverage:.1%}",
            0.88 <= coverage <= 0.92,
        )
    )
    return claims


def serving_claims(found: Compared) -> list[Claim]:
    """Whether updates matter, how much delay costs, and whether baselines are beaten."""
    against, rmse = found.table.against, found.table.rmse
    claims = [
        Claim(
            f"{name} is beaten over the two months by releases without delay",
            f"{rmse[name].value:.3f} against {rmse[REFERENCE].value:.3f} m/s, "
            f"difference {against[name]}",
            against[name].low > 0,
        )
        for name in (*PLAIN_BASELINES, FROZEN)
    ]
    names = [f"{d:g} h" for d in DELAYS]
    slack = [against[n].high - against[n].value for n in names]
    values = [against[n].value for n in names]
    claims.append(
        Claim(
            "error grows with delay, within the intervals",
            ", ".join(f"{n} +{v:.4f}" for n, v in zip(names, values, strict=True)),
            all(
                b >= a - max(s, t)
                for a, b, s, t in zip(values, values[1:], slack, slack[1:], strict=False)
            ),
        )
    )
    claims.append(
        Claim(
            "three days of delay cost something, and less than never updating",
            f"72 h {against['72 h']}; frozen {against[FROZEN]}",
            against["72 h"].low > 0 and values[-1] < against[FROZEN].value,
        )
    )
    return claims
