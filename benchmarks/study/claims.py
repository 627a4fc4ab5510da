"""What the study is asked, and whether it is so: pure functions of its results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.study import moving, serving
from benchmarks.study.arrivals import DELAYS
from benchmarks.study.bootstrap import Comparison, Interval, compare
from benchmarks.study.learning import Learning, beaten_from, rank_correlation
from benchmarks.study.study import SENSORS, Results, served
from benchmarks.study.truth import STEP_HOURS

#: What every way of serving is compared with.
REFERENCE = "0 h"
PLAIN_BASELINES = ("persistence", "constant ratio", "nearest simulation")
FROZEN = "first release, frozen"
#: Releases that a rank correlation is asked of.
ENOUGH = 8


@dataclass(frozen=True)
class Claim:
    """One question and its answer."""

    name: str
    """Short; unique."""
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
    """Against the fine truth."""
    own: Comparison
    """Against the dear solver in the true state."""
    seeing: dict[str, Interval]
    """What interior sensors as inputs add to the error of each way, m/s, fine truth."""


def compared(results: Results) -> Compared:
    """Score every way and everything it is compared with on the same instants."""
    step = float(STEP_HOURS * results.setting.every)
    found = []
    for against in (serving.FINE, serving.OWN):
        ways, others = served(results, against)
        errors = {name: way.error for name, way in ways.items()} | others
        instants = serving.scored_from(errors)
        table = compare({k: v[instants] for k, v in errors.items()}, REFERENCE, step)
        found.append((instants, ways, others, table))
    (instants, ways, others, table), (_, _, _, own) = found
    errors = {name: way.error for name, way in ways.items()} | others
    seeing = {}
    for name in errors:
        if name + SENSORS in errors:
            pair = {n: errors[n][instants] for n in (name, name + SENSORS)}
            seeing[name] = compare(pair, name, step).against[name + SENSORS]
    return Compared(instants, ways, others, table, own, seeing)


def learning_claims(learning: Learning, two_grids: Learning) -> list[Claim]:
    """Whether error falls from version to version, and which baselines it beats."""
    claims = []
    for one, name, words, truth in (
        (learning, "releases get better", "the training grid's evaluation set", False),
        (two_grids, "releases get better, fine", "the fine truth's evaluation set", True),
    ):
        published = one.published
        fall = rank_correlation(range(len(published)), [r.rmse for r in published])
        every = rank_correlation(range(len(one.rows)), [r.rmse for r in one.rows])
        least = f"; the dear grid's own error is {one.dear_gap:.3f} m/s" if truth else ""
        claims += [
            Claim(
                name,
                f"error of successive releases falls on {words} (Spearman at most -0.9)",
                f"{fall:.2f} over {len(published)} releases, {published[0].rmse:.3f} to "
                f"{published[-1].rmse:.4f} m/s; {every:.2f} with refused candidates{least}",
                fall <= -0.9,
            ),
            Claim(
                f"enough releases{', fine' if truth else ''}",
                f"over eight releases or more, on {words}",
                f"{len(published)}",
                len(published) >= ENOUGH,
            ),
        ]
        for baseline, called in (("ratio", "constant ratio"), ("nearest", "nearest simulation")):
            version = beaten_from(one.rows, baseline)
            found = f"from version {version} on" if version else "never for good"
            claims.append(
                Claim(
                    f"{baseline} beaten{', fine' if truth else ''}",
                    f"{called} is beaten on {words}",
                    found,
                    version is not None,
                )
            )
        coverage = published[-1].coverage
        claims.append(
            Claim(
                f"coverage{', fine' if truth else ''}",
                f"90 % intervals cover 88 to 92 % of {words} (last release)",
                f"{coverage:.1%}",
                0.88 <= coverage <= 0.92,
            )
        )
    return claims


def sensor_claims(found: Compared) -> list[Claim]:
    """Whether interior sensors as inputs make up for releases that are old."""
    claims = []
    for name, words in ((FROZEN, "the first release, frozen"), ("72 h", "releases 72 h late")):
        difference = found.seeing[name]
        claims.append(
            Claim(
                f"sensors help, {name}",
                f"interior sensors as inputs make {words} better (fine truth)",
                f"{difference} m/s",
                difference.high < 0,
            )
        )
    return claims


def serving_claims(results: Results, found: Compared) -> list[Claim]:
    """Whether updates matter, how much delay costs, and whether baselines are beaten."""
    against, rmse = found.table.against, found.table.rmse
    rivals = {name: found.others[name] for name in PLAIN_BASELINES}
    from_version = serving.beaten_from(results.chains["plain"], rivals)
    everywhere = ", ".join(f"{n}: {v or 'never for good'}" for n, v in from_version.items())
    claims = [
        Claim(
            "every baseline is beaten by each version",
            "version from which on each one, on the whole record, beats the baseline",
            everywhere,
            all(v is not None for v in from_version.values()),
        )
    ]
    claims += [
        Claim(
            f"{'frozen' if name == FROZEN else name} beaten in service",
            f"{name} is beaten over the two months by releases without delay",
            f"{rmse[name].value:.3f} against {rmse[REFERENCE].value:.3f} m/s, "
            f"difference {against[name]}",
            against[name].low > 0,
        )
        for name in (*PLAIN_BASELINES, FROZEN)
    ]
    kinds = (
        ("fine", found.table, "fine truth"),
        ("own", found.own, "dear solver, true state"),
    )
    for kind, table, words in kinds:
        names = [f"{d:g} h" for d in DELAYS]
        values = [table.against[n].value for n in names]
        slack = [table.against[n].high - table.against[n].low for n in names]
        found_ = ", ".join(f"{n} {v:+.4f}" for n, v in zip(names, values, strict=True))
        rises = all(
            later >= earlier - width / 2
            for earlier, later, width in zip(values, values[1:], slack[1:], strict=False)
        )
        question = f"error grows with delay, within the intervals ({words})"
        claims.append(Claim(f"delay costs, {kind}", question, found_, rises))
        late, frozen = table.against["72 h"], table.against[FROZEN]
        claims.append(
            Claim(
                f"late is better than never, {kind}",
                f"three days of delay cost something, and less than never updating ({words})",
                f"72 h {late}; frozen {frozen}",
                late.low > 0 and late.value < frozen.value,
            )
        )
    return claims


def after_events(results: Results, found: Compared, late: str) -> tuple[float, float]:
    """Return where a delay costs: just after people have learnt of a change, or all the time.

    Parameters
    ----------
    results : Results
    found : Compared
    late : str
        Name of the delay.

    Returns
    -------
    of_excess, of_time : float
        Share of the excess of the mean square error, and share of the instants, that fall within
        the delay and one cycle after a wash, a hole found or a hole mended.
    """
    events = (*moving.WASHES, moving.TORN[0] + moving.ALARM_DAYS, moving.TORN[1])
    hours = results.truth.hours[found.instants]
    span = float(late.split(maxsplit=1)[0]) + results.setting.rules.cycle_hours
    near = np.any([(hours >= 24 * e) & (hours < 24 * e + span) for e in events], axis=0)
    excess = (found.ways[late].error - found.ways[REFERENCE].error)[found.instants]
    return float(excess[near].sum() / excess.sum()), float(near.mean())
