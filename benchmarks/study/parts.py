"""The sections of docs/evidence.md, each written from the results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.study import figures, moving, serving
from benchmarks.study.arrivals import PROBES, RUN_SECONDS
from benchmarks.study.bootstrap import BLOCK_HOURS, DRAWS
from benchmarks.study.claims import (
    FROZEN,
    REFERENCE,
    Compared,
    after_events,
    learning_claims,
    serving_claims,
)
from benchmarks.study.learning import Learning
from benchmarks.study.openfoam import COUNT, OPENFOAM
from benchmarks.study.part import Part, cells, signed
from benchmarks.study.study import UNESTIMATED, Results, true_factor
from benchmarks.study.truth import EVALUATION, FINE, STEP_HOURS, TRAINING
from benchmarks.validation.report import table

#: Versions shown in the table of weeks.
SHOWN = 10


#: What is not measured here.
CONTEXT = Part(
    "Beside this",
    """
- Where to simulate next, and when the weather has changed: [steering](steering.md). Families and what they
  cost: [surrogates](surrogates.md). What an hour of queue means: [blocks](backfill-study.md).
- Published work on this very problem (xGFabric, repository `radical-collaboration/xGFabric`, stored notebook
  output) has mean absolute errors of 0.40 to 0.44 m/s at three real anemometers over eleven versions of three
  families, each version scored on other hours: no trend can be seen in it. Its errors are against real air
  and ours against a solver: the two cannot be compared, only the way of asking.
""",
)


def made(results: Results) -> Part:
    washes = " and ".join(f"{w:g}" for w in moving.WASHES)
    return Part(
        "What is real and what is made",
        f"""
The wind is real: {len(results.truth.hours)} instants, every {STEP_HOURS} hours, of the 61 days of
`data/weather/mast_10min.csv`. **Everything inside the house is made**: there are no public
measurements inside a screenhouse.

- *Truth*: the {FINE.simulator} solver at {cells(FINE.cells)} cells, twice as fine along every axis as any
  training run ({cells(TRAINING.cells)}). It is the same solver; a real house differs from its simulation in
  ways that this does not show. OpenFOAM was affordable for {COUNT} scenarios only, a section of their own.
  Computed once (`python -m benchmarks.study.truth --store DIR`), shipped in `data/study/truth.npz`.
- *A truth that moves* (`benchmarks/study/moving.py`; our choice, no source found): dust adds
  {moving.DUST_PER_DAY:.0%} of the clean screens' loss a day, washes on days {washes} take {moving.WASHED_OFF:.0%} of it
  off, the canopy's drag grows by {moving.CANOPY_PER_DAY:.1%} a day, and a {moving.TEAR.width:g} m hole is in the {moving.TEAR.panel}
  wall from day {moving.TORN[0]:g} to {moving.TORN[1]:g}. The surrogates are told none of it. Washes and mending are known
  to people when they happen; the hole {moving.ALARM_DAYS:g} days later (the median delay of the
  [tear detector](tear-detector.md) for such a hole on this record).
- *Readings* of the three interior sensors: the truth with a constant gain error of 5 %, gusts of 10 %
  and white noise of 0.05 m/s. The mast's wind is the house's, but for the arm that says otherwise.
- *Time*: a simulation counts as {RUN_SECONDS:.0f} s on one core, the published time of a full-size run
  (ours takes a tenth of a second); queue waits as published or replayed.
- *Errors* are root mean squares of the wind vector over all cells of the house, in m/s. Intervals are 95 %, from
  {DRAWS} draws of blocks of {BLOCK_HOURS:g} h (circular moving-block bootstrap); differences are paired.
""",
    )


def learning_curve(learning: Learning, results: Results, folder: Path) -> Part:
    rows = [
        [
            f"{r.version}" if r.version else "refused",
            f"{r.runs}",
            f"{r.rmse:.4f}",
            f"{r.relative_l2:.4f}",
            f"{r.coverage:.2f}",
            f"{r.nearest:.3f}",
            f"{r.ratio:.3f}",
            f"{r.truth_rmse:.4f}",
            f"{r.truth_coverage:.2f}",
        ]
        for r in learning.rows
    ]
    header = [
        "version", "runs", "RMSE", "relative L2", "coverage of 90 %", "nearest run", "constant ratio",
        "RMSE against the fine truth", "coverage there",
    ]  # fmt: skip
    reasons = [f"{r.runs} runs: {why}" for r in learning.rows for why in r.reasons]
    refused = (
        f"\n\nThe gate refused {len(reasons)}, by the selection set, such as {reasons[0]}."
        if reasons
        else ""
    )
    return Part(
        "Does the error fall as simulations come in?",
        f"""
Family `{learning.family}`, through the real stages: train, export, validate, gate. {EVALUATION} evaluation
scenarios that no decision reads, the same for every candidate, refused ones included; the house as on
the first day. RMS wind {learning.size:.2f} m/s.

{table(header, rows)}

The two truths answer different questions. Against the training runs' own solver the error falls with
every release: that is what can be learnt from runs. Against the fine truth it falls to
{learning.published[-1].truth_rmse:.3f} m/s and stays: {learning.solver_gap:.3f} m/s is the error of the training
*solver* on its coarse grid, which no number of its runs can mend. Intervals calibrated on runs know
nothing of that error either, and cover as little of the fine truth as the last column says.{refused}

![error against simulations](figures/{figures.learning_figure(results.learning, folder)})

*Solid: against the training runs' solver. Dashed: against the fine truth.*
""",
        tuple(learning_claims(learning)),
    )


def served_for_two_months(results: Results, found: Compared, folder: Path) -> Part:
    arms = results.chains.keys() - {"plain"}
    names = [n for n in found.table.rmse if n not in arms]
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
        "served", "RMSE against the fine truth", "less no delay", "RMSE against the training solver",
        "mean age of its data, h", "releases that served",
    ]  # fmt: skip
    chain = results.chains["plain"]
    rules = results.setting.rules
    first = results.truth.hours[found.instants][0]
    return Part(
        "Two months",
        f"""
A release every {rules.cycle_hours:g} hours ({len(chain)} in all). Each estimates the state of the screens from the
readings since the one before and what was known then, simulates winds in that state, trains on the runs of
this state and of its neighbours, old and new, and serves after its delay.
These releases are fitted and asked directly: without export and without the gate. All rows are scored on the same
{int(found.instants.sum())} instants, from hour {first:g} on, when every row has an answer.

{table(header, rows)}

*Against the training solver* means against its own run of every instant in the true state: what is left
without the coarse grid's error, which all rows share and no release can mend. *Persistence* is given the true
field of the instant before, everywhere in the house, which nobody could measure. *Nearest simulation* and
*constant ratio* have the runs of the release without delay. The *oracle* is the training solver run for
every instant in its true state, what a perfect surrogate of its runs would serve; an *effective* state can
beat it, because it also makes up for some of the coarse grid's error.

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
    header = ["chain", "RMSE against the fine truth", "less plain", "against the training solver"]
    return Part(
        "Noise, a silent sensor, no estimate, other families",
        f"""
Whole chains under other circumstances, without delay, on the same instants. The first three rows differ by
the draw of the noise alone: smaller differences than theirs mean nothing. The silent sensor is the one whose wind depends most on the screens' loss. *State not estimated* trains as
often, on runs in clean screens, and knows of the hole when people do.

{table(header, rows)}
""",
    )


def families(results: Results) -> Part:
    rows = [
        [
            f"`{name}`",
            f"{row.runs}",
            f"{row.rmse:.4f}",
            f"{row.relative_l2:.4f}",
            f"{row.coverage:.2f}",
            f"{row.truth_rmse:.4f}",
            f"{row.version}" if row.version else "refused",
            f"{row.seconds:.1f}",
        ]
        for name, learning in results.learning.items()
        for row in learning.rows
        if row.runs in results.setting.other_sizes
    ]
    header = [
        "family", "runs", "RMSE", "relative L2", "coverage of 90 %", "RMSE against the fine truth",
        "version", "training, s",
    ]  # fmt: skip
    return Part(
        "Families",
        f"""
The same training runs, the same evaluation set, default settings. Training times were taken while other
work ran on the machine.

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
        "delay", "data older by, h", "RMSE above no delay, m/s, fine truth", "training solver",
        "mm/s per hour, fine truth", "training solver",
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
            f"{signed(found.own.against[UNESTIMATED])} m/s against the training solver."
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


def beside_openfoam(results: Results) -> Part:
    rows = [[a.name, f"{a.openfoam:.3f}", f"{a.fine:.3f}"] for a in results.openfoam]
    header = ["served", "RMSE against OpenFOAM", "RMSE against the fine truth"]
    off = {a.name: a.openfoam for a in results.openfoam}
    nearer = "nearer to" if off["fine truth"] < off["training solver"] else "no nearer to"
    return Part(
        "A second opinion: OpenFOAM",
        f"""
The first {COUNT} scenarios of the evaluation set solved by OpenFOAM at {cells(OPENFOAM.cells)} cells
(`python -m benchmarks.study.openfoam`; light winds take it up to two minutes each). The two months would
have taken it hours, so it is no truth here but a check of it.

{table(header, rows)}

With a few dozen runs the surrogate is as far off as its own solver, whoever judges; what is left lies between
solvers and grids. The fine truth is {nearer} OpenFOAM than the training solver: two codes on grids of
their own differ by as much as our two grids do. How far either is from the air is not known here.
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
        everything = float(np.sqrt(chain[k].error.mean()))
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
            new = sum(v.new for v in done)
            rows.append([f"{day}", f"{len(done)}", f"{new}", f"{new * RUN_SECONDS / 3600:.0f}"])
    idle = sum(v.new == 0 for v in chain)
    return Part(
        "Simulations and core-hours",
        f"""
Of the plain chain; core-hours at {RUN_SECONDS:.0f} s on one core for each.

{table(["until day", "releases", "simulations", "core-hours"], rows)}

{idle} of {len(chain)} releases needed no new run: their state had been simulated before. The estimator's tables
come on top, once.
""",
    )
