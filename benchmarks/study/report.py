"""docs/evidence.md, written from the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.study import figures, moving, serving
from benchmarks.study.arrivals import DELAYS, PROBES, RUN_SECONDS
from benchmarks.study.bootstrap import BLOCK_HOURS, DRAWS
from benchmarks.study.claims import (
    FROZEN,
    REFERENCE,
    Claim,
    Compared,
    compared,
    learning_claims,
    serving_claims,
)
from benchmarks.study.learning import Learning
from benchmarks.study.study import Results
from benchmarks.study.truth import EVALUATION, FINE, STEP_HOURS, TRAINING
from benchmarks.validation.report import table

#: Versions shown in the table of weeks.
SHOWN = 10


@dataclass(frozen=True)
class Part:
    """A section of the document."""

    title: str
    text: str
    """Markdown."""
    claims: tuple[Claim, ...] = ()
    """Put into the table at the document's head."""


#: Sections of other studies, appended in order: each a function that returns its part.
EXTRA: list[Callable[[], Part]] = []


def document(results: Results, extra: list[Part], folder: Path) -> tuple[str, list[Claim]]:
    """Return the document, and every claim in it; draws the figures into a folder."""
    found = compared(results)
    learning = results.learning[results.setting.families[0]]
    parts = [
        _made(results),
        _learning(learning, results, folder),
        _months(results, found, folder),
        _delay(found, folder),
        _state(results, found, folder),
        _weeks(results),
        _cost(results),
        *extra,
    ]
    claims = [c for p in parts for c in p.claims]
    head = HEAD.format(summary=table(["question", "found", ""], [c.row() for c in claims]))
    body = "\n\n".join(f"## {p.title}\n\n{p.text.strip()}" for p in parts)
    return f"{head}\n\n{body}\n\n{_again(results)}\n", claims


HEAD = """# Evidence

Does the served model get better while it serves, and what does an hour of delay cost? Written by
`make evidence` (`benchmarks/study/`) from its own output. A line that does not hold says so here.

{summary}"""


def _made(results: Results) -> Part:
    washes = " and ".join(f"{w:g}" for w in moving.WASHES)
    return Part(
        "What is real and what is made",
        f"""
The wind is real: {len(results.truth.hours)} instants, every {STEP_HOURS} hours, of the 61 days of
`data/weather/mast_10min.csv`. **Everything inside the house is made**: there are no public
measurements inside a screenhouse.

- *Truth*: the {FINE.simulator} solver at {_cells(FINE.cells)} cells, twice as fine along every axis as any
  training run ({_cells(TRAINING.cells)}). It is the same solver; a real house differs from its simulation in
  ways that this does not show. OpenFOAM was not affordable: at a comparable grid a run takes minutes.
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


def _learning(learning: Learning, results: Results, folder: Path) -> Part:
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
    reasons = sorted({f"{r.runs} runs: {why}" for r in learning.rows for why in r.reasons})
    refused = f"\n\nRefused: {'; '.join(reasons)}." if reasons else ""
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


def _months(results: Results, found: Compared, folder: Path) -> Part:
    rows = []
    names = sorted(found.table.rmse, key=lambda n: found.table.rmse[n].value)
    for name in names:
        way = found.ways.get(name)
        shown = f"releases, {name}" if way else name
        rows.append(
            [
                shown,
                str(found.table.rmse[name]),
                "-" if name == REFERENCE else _signed(found.table.against[name]),
                str(found.own.rmse[name]) if name in found.own.rmse else "0",
                "" if way is None else f"{np.nanmean(way.age[found.instants]):.1f}",
                "" if way is None else f"{way.releases}",
            ]
        )
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
readings since the one before and what was known then, simulates winds in that state, trains on the runs of this
state and of its neighbours, old and new, and serves after its delay. All rows are scored on the same
{int(found.instants.sum())} instants, from hour {first:g}, when the latest of them has its first release.

{table(header, rows)}

*Against the training solver* means against its own run of every instant in the true state: what is left
without the coarse grid's error, which all rows share and no release can mend. *Persistence* is given the true field {STEP_HOURS} h before, which nobody could measure. *Nearest simulation*
and *constant ratio* have the runs of the release without delay. The *oracle* is the training solver run
for every instant in its true state: no surrogate of its runs that knows the state can be better but by
luck. *State not estimated* trains as often, on runs in clean screens. Arms with other noise have no delay.

![error against time](figures/{figures.time_figure(results, found, folder)})
""",
        tuple(serving_claims(found)),
    )


def _delay(found: Compared, folder: Path) -> Part:
    against = found.table.against
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
                _signed(against[name]),
                _signed(own),
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
shift. Delay costs where the house changes abruptly: after a wash, a hole, a repair; between events
dust gathers slowly and a release of yesterday is nearly as good.
""",
    )


def _state(results: Results, found: Compared, folder: Path) -> Part:
    chain = results.chains["plain"]
    from benchmarks.study.study import true_factor

    hours = np.array([v.hours for v in chain])
    ratio = np.log(np.array([v.state.screen_loss_factor for v in chain]) / true_factor(hours))
    known = np.array([v.state.method != "assumed" for v in chain])
    typical = float(np.sqrt((ratio[known] ** 2).mean())) if known.any() else float("nan")
    bias = float(ratio[known].mean()) if known.any() else float("nan")
    return Part(
        "The estimated state",
        f"""
The effective loss factor (`apps/site_state.py`) of the plain chain differs from the true one by
{typical:.0%} (root mean square of the logarithm; mean {bias:+.0%}). It is told as loss what is canopy or a hole not
found yet, so it is not meant to equal the dust. Without estimating it the error is
{_signed(found.table.against["state not estimated"]) if "state not estimated" in found.table.against else "(not run)"} m/s higher.

![state](figures/{figures.state_figure(results, folder)})
""",
    )


def _weeks(results: Results) -> Part:
    chain = results.chains["plain"]
    weeks = serving.by_week(chain, results.truth.hours)
    chosen = np.unique(np.linspace(0, len(chain) - 1, SHOWN).round().astype(int))
    header = ["version", "made on day", *[f"week {w + 1}" for w in range(weeks.shape[1])], "all"]
    rows = []
    best = weeks[chosen].argmin(axis=0)
    for place, k in enumerate(chosen):
        cells = [f"**{v:.3f}**" if best[w] == place else f"{v:.3f}" for w, v in enumerate(weeks[k])]
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


def _cost(results: Results) -> Part:
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


def _again(results: Results) -> str:
    setting = results.setting
    return f"""## Again

```
make evidence                                          # everything; resumes where it was stopped
python -m benchmarks.study --setting small --out DIR   # what CI runs
python -m benchmarks.study.truth --store DIR           # the truth itself
```

Setting `{setting.name}`. Simulations are kept by digest, results by a digest of code, settings and truth, in
`data/runs/study`: a rerun computes only what changed. Fixed delays: {", ".join(f"{d:g}" for d in DELAYS)} h."""


def _cells(cells: tuple[int, int, int]) -> str:
    return " x ".join(str(n) for n in cells)


def _signed(interval: object) -> str:
    value, low, high = (getattr(interval, n) for n in ("value", "low", "high"))
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


__all__ = ["EXTRA", "FROZEN", "Part", "document"]
