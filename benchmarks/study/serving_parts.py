"""Sections of docs/evidence.md: two months of service."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.study import figures, serving
from benchmarks.study.arrivals import PROBES, RUN_SECONDS
from benchmarks.study.bootstrap import Interval
from benchmarks.study.claims import (
    FROZEN,
    REFERENCE,
    Compared,
    after_events,
    sensor_claims,
    serving_claims,
)
from benchmarks.study.learning import DEAR_COST
from benchmarks.study.part import Part, signed
from benchmarks.study.study import SEEN, SENSORS, UNESTIMATED, Results, true_factor
from benchmarks.validation.report import table

#: Versions shown in the table of weeks.
SHOWN = 10


def served_for_two_months(results: Results, found: Compared, folder: Path) -> Part:
    arms = results.chains.keys() - {"plain"}
    names = [n for n in found.table.rmse if n not in arms and not n.endswith(SENSORS)]
    rows = [
        [
            f"releases, {name}" if name in found.ways else name,
            str(found.table.rmse[name]),
            "-" if name == REFERENCE else signed(found.table.against[name]),
            str(found.own.rmse[name]) if name in found.own.rmse else "0",
            *_ages(found, name),
        ]
        for name in sorted(names, key=lambda n: found.table.rmse[n].value)
    ]
    header = [
        "served", "RMSE against the fine truth", "less no delay", "RMSE against the dear solver",
        "mean age of its data, h", "releases that served",
    ]  # fmt: skip
    chain = results.chains["plain"]
    rules = results.setting.rules
    first = results.truth.hours[found.instants][0]
    return Part(
        "Two months",
        f"""
A release every {rules.cycle_hours:g} hours ({len(chain)} in all). Each estimates the state of the screens from the
readings since the one before and what was known then, adds runs near recent weather and that state while
some are wanted, some of them on the dear grid, and serves after its delay. Without new runs it is the same model
told another state. These releases are fitted and asked directly: without export and without the gate. All
rows are scored on the same {int(found.instants.sum())} instants, from hour {first:g} on, when every row has an answer.

{table(header, rows)}

*Against the dear solver* means against its own run of every instant in the true state: what is left
without the grid's error, which all rows share and no release can mend. *Persistence* is given the true
field of the instant before, everywhere in the house, which nobody could measure. *Nearest simulation* and
*constant ratio* have the runs of the release without delay. The *oracle* is the dear solver run for
every instant in its true state, what a perfect surrogate of its runs would serve.

Error against time, RMSE of each week against the fine truth:

{_by_week(results, found)}

![error against time](figures/{figures.time_figure(results, found, folder)})
""",
        tuple(serving_claims(results, found)),
    )


def _by_week(results: Results, found: Compared) -> str:
    week = (results.truth.hours // (7 * 24)).astype(int)
    shown = {f"releases, {name}": found.ways[name].error for name in (REFERENCE, "24 h", "72 h")}
    shown |= {name: found.others[name] for name in (FROZEN, "nearest simulation", "oracle")}
    rows = [
        [
            name,
            *(
                f"{np.sqrt(error[found.instants & (week == w)].mean()):.3f}"
                for w in range(week.max() + 1)
            ),
        ]
        for name, error in shown.items()
    ]
    return table(["", *(f"week {w + 1}" for w in range(week.max() + 1))], rows)


def _ages(found: Compared, name: str) -> list[str]:
    way = found.ways.get(name)
    if way is None:
        return ["", ""]
    return [f"{np.nanmean(way.age[found.instants]):.1f}", f"{way.releases}"]


def sensors(results: Results, found: Compared) -> Part:
    rows = [
        [
            _named(name),
            f"{found.table.rmse[name].value:.4f}",
            f"{found.table.rmse[name + SENSORS].value:.4f}",
            signed(difference),
            signed(_of_own(found, name)),
        ]
        for name, difference in found.seeing.items()
    ]
    header = [
        "served", "wind in", "wind and sensors in", "difference, fine truth", "difference, dear solver",
    ]  # fmt: skip
    errors = results.setting.rules.errors
    alone = found.seeing.get(UNESTIMATED)
    substitute = ""
    if alone is not None:
        verdict = "better" if alone.high < 0 else "no better" if alone.low <= 0 else "worse"
        substitute = (
            f" Where the state is never estimated, they make the answer {verdict}: "
            f"{signed(alone)} m/s against the fine truth."
        )
    return Part(
        "Interior sensors as inputs",
        f"""
The second signature: the same releases, asked with what the three sensors read at that instant beside the
wind (`apps/surrogates/assimilation.py`). They assume an error of {errors.sensor_relative:.0%} of a reading and of
{errors.screen_loss:g} in the logarithm of the loss factor that they are told; in two arms the errors that the arm has. RMSE in
m/s.

{table(header, rows)}

One reading is rough (gusts, and a gain that is off), so where the estimated state is fresh it tells little, and
where a hole is what has changed it is told as loss. What it tells it tells at the next reading, without a new
release.{substitute}
""",
        tuple(sensor_claims(found)),
    )


def _named(name: str) -> str:
    return f"releases, {name}" if name in SEEN else name


def _of_own(found: Compared, name: str) -> Interval:
    """Return the difference against the dear solver; its ends are not paired with the other's."""
    a, b = (found.own.against[n] for n in (name, name + SENSORS))
    return Interval(b.value - a.value, b.low - a.value, b.high - a.value)


def circumstances(results: Results, found: Compared) -> Part:
    rows = [
        [
            name,
            str(found.table.rmse[name]),
            signed(found.table.against[name]),
            str(found.own.rmse[name]),
        ]
        for name in (REFERENCE, *results.chains)
        if name in found.table.rmse
    ]
    rows[0][0], rows[0][2] = "plain, no delay", "-"
    header = ["chain", "RMSE against the fine truth", "less plain", "against the dear solver"]
    return Part(
        "Noise, a silent sensor, no estimate, other families",
        f"""
Whole chains under other circumstances, without delay, on the same instants. The first three rows differ by
the draw of the noise alone: smaller differences than theirs mean nothing. The silent sensor is the one whose wind depends most on the screens' loss. *State not estimated* trains as
often, on runs in clean screens, and knows of the hole when people do.

{table(header, rows)}
""",
    )


def delay(results: Results, found: Compared, folder: Path) -> Part:
    against = found.table.against
    of_excess, of_time = after_events(results, found, "72 h")
    rows = []
    base = float(np.nanmean(found.ways[REFERENCE].age[found.instants]))
    for name, way in found.ways.items():
        if name == REFERENCE:
            continue
        later = float(np.nanmean(way.age[found.instants])) - base
        own = found.own.against[name]
        each = [1000 * v / later for v in (against[name].value, own.value)]
        rows.append(
            [
                name,
                f"{later:.1f}",
                signed(against[name]),
                signed(own),
                *(f"{v:.2f}" for v in each),
            ]
        )
    header = [
        "delay", "data older by, h", "RMSE above no delay, m/s, fine truth", "dear solver",
        "mm/s per hour, fine truth", "dear solver",
    ]  # fmt: skip
    probes = ", ".join(f"{c} cores {low:g} to {high:g} s" for c, (low, high, _) in PROBES.items())
    return Part(
        "What an hour of delay costs",
        f"""
{table(header, rows)}

![delay](figures/{figures.delay_figure(found, folder)})

Irregular arrivals: a release's simulations run side by side on that many cores after a wait. *Queue*: waits
drawn within the published probes ({probes}; their distribution between these ends is assumed, see
`arrivals.py`). *KTH*: our jobs put into the replay of the KTH SP2's log under EASY with its night
shift.

Delay costs most where the house changes abruptly: {of_excess:.0%} of what three days of delay add to the mean
square error falls within three days and one cycle after a wash, a hole found or a hole mended, {of_time:.0%}
of the time. Between events dust gathers slowly and an old release is nearly as good.
""",
    )


def state(results: Results, found: Compared, folder: Path) -> Part:
    chain = results.chains["plain"]
    hours = np.array([v.hours for v in chain])
    ratio = np.log(np.array([v.state.screen_loss_factor for v in chain]) / true_factor(hours))
    known = np.array([v.state.method != "assumed" for v in chain])
    typical = float(np.sqrt((ratio[known] ** 2).mean())) if known.any() else float("nan")
    bias = float(ratio[known].mean()) if known.any() else float("nan")
    worth = ""
    if UNESTIMATED in found.table.against:
        worth = (
            "Without estimating it the error changes by "
            f"{signed(found.table.against[UNESTIMATED])} m/s against the fine truth and by "
            f"{signed(found.own.against[UNESTIMATED])} m/s against the dear solver."
        )
    return Part(
        "The estimated state",
        f"""
The effective loss factor (`apps/site_state.py`) of the plain chain differs from the true one by
{typical:.0%} (root mean square of the logarithm; mean {bias:+.0%}). It is told as loss what is canopy or a hole not
found yet, so it is not meant to equal the dust. {worth}

![state](figures/{figures.state_figure(results, folder)})
""",
    )


def weeks(results: Results) -> Part:
    chain = results.chains["plain"]
    table_ = serving.by_week(chain, results.truth.hours)
    chosen = np.unique(np.linspace(0, len(chain) - 1, SHOWN).round().astype(int))
    header = ["version", "made on day", *[f"week {w + 1}" for w in range(table_.shape[1])], "all"]
    rows = []
    best = table_[chosen].argmin(axis=0)
    for place, k in enumerate(chosen):
        cells = [
            f"**{v:.3f}**" if best[w] == place else f"{v:.3f}" for w, v in enumerate(table_[k])
        ]
        everything = float(np.sqrt(chain[k].error[serving.FINE].mean()))
        rows.append(
            [f"{chain[k].number}", f"{chain[k].hours / 24:.1f}", *cells, f"{everything:.3f}"]
        )
    return Part(
        "Each version on every week",
        f"""
Like for like: every version scored on all of the record, past and future, RMSE in m/s; the best of a
week in bold. A version is best in about its own time, and no version is best at all times: a truth
that moves has no final model.

{table(header, rows)}
""",
    )


def cost(results: Results) -> Part:
    chain = results.chains["plain"]
    rows = []
    for day in (7, 14, 28, 42, 60):
        done = [v for v in chain if v.hours <= 24 * day]
        if done:
            new, dear = sum(v.new for v in done), sum(v.dear for v in done)
            hours = (new + DEAR_COST * dear) * RUN_SECONDS / 3600
            rows.append([f"{day}", f"{len(done)}", f"{new}", f"{dear}", f"{hours:.0f}"])
    idle = sum(v.new == 0 for v in chain)
    return Part(
        "Simulations and core-hours",
        f"""
Of the plain chain; core-hours at {RUN_SECONDS:.0f} s on one core for a cheap run.

{table(["until day", "releases", "cheap runs", "dear runs", "core-hours"], rows)}

{idle} of {len(chain)} releases needed no new run: the model was told another state. (Before surrogates took the state
as an input, each state wanted runs of its own: 784 in all, and 288 for the estimator's table, which the
surrogate now fills in.)
""",
    )
