"""Sections of docs/evidence.md: what is made, learning, families, OpenFOAM."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study import figures, moving
from benchmarks.study.arrivals import RUN_SECONDS
from benchmarks.study.bootstrap import BLOCK_HOURS, DRAWS
from benchmarks.study.claims import (
    learning_claims,
)
from benchmarks.study.learning import DEAR_COST, Learning, Row
from benchmarks.study.openfoam import COUNT, OPENFOAM
from benchmarks.study.part import Part, cells
from benchmarks.study.study import Results
from benchmarks.study.truth import DEAR, EVALUATION, FINE, STEP_HOURS, TRAINING
from benchmarks.validation.report import table

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
  training run. Training runs have two grids: cheap ones ({cells(TRAINING.cells)}), and dear ones
  ({cells(DEAR.cells)}) that correct them. It is the same solver; a real house differs from its simulation in
  ways that this does not show. OpenFOAM was affordable for {COUNT} scenarios only, a section of their own.
  Computed once (`python -m benchmarks.study.truth --store DIR`), shipped in `data/study/truth.npz`.
- *A truth that moves* (`benchmarks/study/moving.py`; our choice, no source found): dust adds
  {moving.DUST_PER_DAY:.0%} of the clean screens' loss a day, washes on days {washes} take {moving.WASHED_OFF:.0%} of it
  off, the canopy's drag grows by {moving.CANOPY_PER_DAY:.1%} a day, and a {moving.TEAR.width:g} m hole is in the {moving.TEAR.panel}
  wall from day {moving.TORN[0]:g} to {moving.TORN[1]:g}. The campaign is told none of it, and estimates what it can from the sensors. Washes and mending are known
  to people when they happen; the hole {moving.ALARM_DAYS:g} days later (the median delay of the
  [tear detector](tear-detector.md) for such a hole on this record). People write it into the maintenance log.
- *Readings* of the three interior sensors: the truth with a constant gain error of 5 %, gusts of 10 %
  and white noise of 0.05 m/s. The mast's wind is the house's, but for the arm that says otherwise.
- *Time*: a cheap simulation counts as {RUN_SECONDS:.0f} s on one core, the published time of a full-size run
  (ours takes a fifth of a second), a dear one as {DEAR_COST:g} of them; queue waits as published or replayed.
- *Errors* are root mean squares of the wind vector over all cells of the house, in m/s. Intervals are 95 %, from
  {DRAWS} draws of blocks of {BLOCK_HOURS:g} h (circular moving-block bootstrap); differences are paired.
""",
    )


def learning_curve(results: Results, folder: Path) -> Part:
    learning, two = results.learning[results.setting.family], results.two_grids
    header = [
        "version", "runs", "RMSE", "relative L2", "coverage of 90 %", "nearest run", "constant ratio",
        "RMSE against the fine truth", "coverage there",
    ]  # fmt: skip
    fine = ["version", "cheap runs", "dear runs", "cost", *header[2:7]]
    return Part(
        "Does the error fall as simulations come in?",
        f"""
Family `{learning.family}`, through the real stages: train, export, validate, gate. {EVALUATION} evaluation
scenarios that no decision reads, the same for every candidate, refused ones included; the house as on
the first day. RMS wind {learning.size:.2f} m/s. Asked twice.

**One grid.** Training runs and frozen sets are of the cheap grid: what can be learnt from runs.

{table(header, [_row(r) for r in learning.rows])}

Against the training runs' own solver the error falls with the releases. Against the fine truth it falls to
{learning.published[-1].truth_rmse:.3f} m/s and stays: {learning.solver_gap:.3f} m/s is the error of the
*solver* on its coarse grid, which no number of its runs can mend, and intervals calibrated on such runs know
nothing of it.{_refused(learning)}

**Two grids, and the fine truth as judge.** The selection, calibration and evaluation sets are of the fine
grid, so the gate decides and the intervals are set by what is true here. Some training runs are solved on the
dear grid too, and correct the others (`apps/discrepancy.py`); how many is the campaign's own decision: a dear
run is made while it takes more off the error than the {DEAR_COST:g} cheap ones that it costs
(`workflows/fidelity_choice.py`).

{table(fine, [_row_of_two(r) for r in two.rows])}

After {len(two.published)} releases the error is {two.published[-1].rmse:.3f} m/s; the dear grid's own, below which no correction by
its runs can bring it, is {two.dear_gap:.3f} m/s. Near it the gate lets little through, as little gets better by 2 %. The intervals cover what they say all the way: a calibration set of
the truth's kind knows of the grid's error as well. Tried and left out: adding what the two grids differ by to
the standard deviation (the intervals became 1.9 times as wide for the same coverage), and extrapolating to
finer grids from the two (Richardson; the best factor would take 6.4 % to 5.6 %).{_refused(two)}

![error against simulations](figures/{figures.learning_figure(results.learning, two, folder)})

*Solid: against the training runs' solver. Dashed: against the fine truth; two grids over their cost in cheap runs.*
""",
        tuple(learning_claims(learning, two)),
    )


def _row(r: Row) -> list[str]:
    scores = [f"{r.rmse:.4f}", f"{r.relative_l2:.4f}", f"{r.coverage:.2f}"]
    rivals = [f"{r.nearest:.3f}", f"{r.ratio:.3f}"]
    against = [f"{r.truth_rmse:.4f}", f"{r.truth_coverage:.2f}"]
    return [f"{r.version}" if r.version else "refused", f"{r.runs}", *scores, *rivals, *against]


def _row_of_two(r: Row) -> list[str]:
    version, runs, *scores = _row(r)
    return [version, runs, f"{r.pairs}", f"{r.spent:.0f}", *scores[:5]]


def _refused(learning: Learning) -> str:
    reasons = [f"{r.runs} runs: {why}" for r in learning.rows for why in r.reasons]
    if not reasons:
        return ""
    return f" The gate refused {len(reasons)}, by the selection set, such as {reasons[0]}."


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


def beside_openfoam(results: Results) -> Part:
    rows = [[a.name, f"{a.openfoam:.3f}", f"{a.fine:.3f}"] for a in results.openfoam]
    header = ["served", "RMSE against OpenFOAM", "RMSE against the fine truth"]
    off = {a.name: a.openfoam for a in results.openfoam}
    return Part(
        "A second opinion: OpenFOAM",
        f"""
The first {COUNT} scenarios of the evaluation set solved by OpenFOAM at {cells(OPENFOAM.cells)} cells
(`python -m benchmarks.study.openfoam`; light winds take it up to two minutes each). The two months would
have taken it hours, so it is no truth here but a check of it.

{table(header, rows)}

With a few dozen runs the surrogate is as far off as its own solver, whoever judges; what is left lies between
solvers and grids. From OpenFOAM the cheap solver is {off["cheap solver"]:.3f} m/s away, the dear one
{off["dear solver"]:.3f} and the fine truth {off["fine truth"]:.3f}. OpenFOAM's grid is about the cheap one's, so some of
what a finer grid mends may be wrong in both of these; whether a finer OpenFOAM comes nearer to the fine truth was not
tried (it would have taken hours). How far any of them is from the air is not known here.
""",
    )
