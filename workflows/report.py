"""``report.html``: one self-contained page of a campaign."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.correction import load_truth
from apps.datasets import read_simulation, simulation_path
from apps.train import TrainTask
from apps.validate import read_validation
from edge_agent.contracts.geometry import wind_vector
from edge_agent.contracts.site import Site
from edge_agent.contracts.storage import write_bytes
from workflows.fidelities import predict
from workflows.figures import COLOURS, SURROGATE, embed
from workflows.layout import RunFolder
from workflows.ledger import CandidateRow, Ledger
from workflows.notify import serving_table
from workflows.report_state import state_section
from workflows.service import OK, ReplayLog
from workflows.tasks import required

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Height at which the airflow is drawn: where a grower stands, m.
DRAWN_HEIGHT = 1.5

#: At most so many requests are drawn; the slowest always are.
DRAWN_REQUESTS = 4000

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } figcaption, .note { color: #555; font-size: .9rem; }
figure { margin: 2rem 0; }
</style>
<h1>$title</h1>
<p>$lead</p>
$releases
$serving
$simulators
$house
<h2>Error</h2>$error
<h2>Latency</h2>$latency
<h2>Airflow</h2>$airflow
<p class="note">The wind outside is a real mast record from another place. The truth is the embedded
solver on the campaign's grid: there are no public measurements inside a screenhouse. RMSE is of the
interior wind vector on the frozen evaluation set, which no training and no decision reads.</p>
</html>
""")


def write_report(
    folder: RunFolder, site: Site, ledger: Ledger, log: ReplayLog, summary: Mapping[str, Any]
) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    folder : RunFolder
    site : Site
    ledger : Ledger
    log : ReplayLog
    summary : mapping
        `workflows.summary.summarise`'s.
    """
    published = [c for c in ledger.candidates() if c.state == "published"]
    agent = summary["agent"]
    lead = (
        f"{summary['simulations']['done']} simulations ({summary['simulations']['failed']} failed),"
        f" {len(published)} releases, {agent['answered']} answers ({agent['failed']} failed) in"
        f" {summary['seconds']:.0f} s at {html.escape(site.title)}."
    )
    started = float(ledger.meta("started_at"))
    page = _PAGE.substitute(
        title=f"Campaign {html.escape(summary['campaign'])}",
        lead=lead,
        releases=_release_table(ledger.candidates()),
        serving=serving_table(summary["serving"]),
        simulators=_simulator_table(summary["correction"]),
        house=state_section(ledger.states(), ledger.candidates()),
        error=_error_figure(published, started) if published else _NOTHING,
        latency=_latency_figure(log, summary["swaps"], started) if OK in log.status else _NOTHING,
        airflow=_airflow_figure(folder, site, ledger, published[-1]) if published else _NOTHING,
    )
    write_bytes(folder.report, page.encode())


_NOTHING = "<p>No release was published.</p>"


def _release_table(candidates: list[CandidateRow]) -> str:
    scored = [c for c in candidates if "scores" in c.result]
    names = sorted({n for c in scored for n in c.result["scores"]["evaluation"]["baselines"]})
    head = ["candidate", "simulations", "RMSE m/s", "relative L2", "sensor MAE m/s", "coverage"]
    rows = ["".join(f"<th>{html.escape(h)}</th>" for h in (*head, *names))]
    for candidate in scored:
        score = candidate.result["scores"]["evaluation"]
        state = f"release {candidate.version}" if candidate.version is not None else candidate.state
        mae = score["sensor_mae"]
        figures = (
            str(len(candidate.task["digests"])),
            f"{score['rmse']:.4f}",
            f"{score['relative_l2']:.3f}",
            "-" if mae is None else f"{mae:.4f}",
            f"{score['coverage']:.2f}",
            *(f"{score['baselines'][n]:.4f}" if n in score["baselines"] else "-" for n in names),
        )
        rows.append("".join(f"<td>{html.escape(v)}</td>" for v in (state, *figures)))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{body}</table><p class='note'>Scores on the evaluation set.</p>"


def _simulator_table(scores: Mapping[str, Any] | None) -> str:
    """Return the table of two simulators, or nothing for one."""
    if scores is None:
        return ""
    head = ("against held-out runs", "RMSE m/s", "relative L2", "relative L2 of speed")
    rows = ["".join(f"<th>{h}</th>" for h in head)]
    for name, error in scores["errors"].items():
        cells = (error["rmse"], error["relative_l2"], error["relative_l2_speed"])
        figures = "".join(f"<td>{value:.4f}</td>" for value in cells)
        rows.append(f"<td>{html.escape(name)}</td>{figures}")
    costs = ", ".join(f"{name} {s:.2f} s" for name, s in scores["seconds"].items())
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<h2>Two simulators</h2><table>{body}</table><p class='note'>The correction is learnt from"
        f" {scores['pairs']} scenarios run with both and judged on {scores['held_out']} others."
        f" Mean cost of a run: {html.escape(costs)}.</p>"
    )


def _error_figure(published: list[CandidateRow], started: float) -> str:
    import matplotlib.pyplot as plt

    figure, (by_time, by_size) = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    scores = [c.result["scores"]["evaluation"] for c in published]
    minutes = [(c.result["published_at"] - started) / 60 for c in published]
    sizes = [len(c.task["digests"]) for c in published]
    names = sorted({name for s in scores for name in s["baselines"]})
    for axes, x, label in (
        (by_time, minutes, "published after, min"),
        (by_size, sizes, "training simulations"),
    ):
        axes.plot(x, [s["rmse"] for s in scores], "o-", color=SURROGATE, label="release")
        for name, colour in zip(names, COLOURS, strict=False):
            has = [(at, s["baselines"][name]) for at, s in zip(x, scores, strict=True)
                   if name in s["baselines"]]  # fmt: skip
            axes.plot(*zip(*has, strict=True), "s--", color=colour, ms=4, label=name)
        axes.set(xlabel=label, yscale="log")
        axes.grid(alpha=0.3, which="both")
    by_time.set_ylabel("RMSE on the evaluation set, m/s")
    by_size.legend(frameon=False)
    return embed(figure, "Error of each release and of the baselines on the same frozen set.")


def _latency_figure(log: ReplayLog, swaps: list[dict[str, Any]], started: float) -> str:
    import matplotlib.pyplot as plt

    answered = np.array(log.status) == OK
    at = (np.array(log.sent_at)[answered] - started) / 60
    latency = 1e3 * np.array(log.latency)[answered]
    slow_first = np.argsort(-latency)
    drawn = np.concatenate(
        [slow_first[:200], slow_first[200 :: max(1, len(slow_first) // DRAWN_REQUESTS)]]
    )
    figure, axes = plt.subplots(figsize=(11, 3.5))
    axes.plot(at[drawn], latency[drawn], ".", ms=2, color=SURROGATE, rasterized=True)
    for number, swap in enumerate(swaps):
        x = (swap["at"] - started) / 60
        axes.axvline(x, color="#D55E00", lw=0.8, label=None if number else "swap")
        axes.annotate(
            f"v{swap['version']}: {swap['pause_ms']:.1f} ms",
            (x, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right",
            fontsize=7,
        )  # fmt: skip
    axes.set(xlabel="campaign time, min", ylabel="latency at the client, ms", yscale="log")
    axes.grid(alpha=0.3, which="both")
    if swaps:
        axes.legend(frameon=False, loc="lower right")
    return embed(
        figure, "Each answered request of the replay; swaps with the pause that they caused."
    )


def _airflow_figure(folder: RunFolder, site: Site, ledger: Ledger, candidate: CandidateRow) -> str:
    """Draw truth, prediction and difference for the evaluation scenario of median error."""
    import matplotlib.pyplot as plt

    digests = [
        row.digest
        for row in ledger.simulations()
        if row.role == "evaluation" and row.state == "done"
    ]
    task = TrainTask.model_validate(candidate.task)
    checked = read_validation(Path(candidate.folder or ""))
    fix = task.correction if checked.frozen_sets["evaluation"].corrected else None
    truth = load_truth(folder.simulations, digests, site, fix, task.space)
    predicted = predict(folder, required(candidate.version), truth, site)
    error = np.sqrt(np.mean((predicted - truth.wind) ** 2, axis=(1, 2, 3, 4)))
    chosen = int(np.argsort(error)[len(error) // 2])
    scenario = read_simulation(simulation_path(folder.simulations, digests[chosen])).scenario
    grid = site.grid()
    level = int(np.argmin(np.abs(np.array(grid.z) - DRAWN_HEIGHT)))
    fields = [truth.wind[chosen][:, level], predicted[chosen][:, level]]
    speeds = [np.hypot(f[0], f[1]) for f in fields]
    top = max(s.max() for s in speeds)
    figure, panels = plt.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    for axes, field, speed, title in zip(
        panels, fields, speeds, ("truth (solver)", "prediction (release)"), strict=False
    ):
        image = axes.pcolormesh(grid.x, grid.y, speed, vmin=0, vmax=top, cmap="viridis")
        axes.quiver(grid.x[::2], grid.y[::2], field[0, ::2, ::2], field[1, ::2, ::2], color="w")
        figure.colorbar(image, ax=axes, label="m/s")
        axes.set_title(title, loc="left")
    difference = speeds[1] - speeds[0]
    limit = float(np.abs(difference).max())
    image = panels[2].pcolormesh(grid.x, grid.y, difference, vmin=-limit, vmax=limit, cmap="RdBu_r")
    figure.colorbar(image, ax=panels[2], label="m/s")
    panels[2].set_title("prediction - truth", loc="left")
    for axes in panels:
        _decorate(axes, site, scenario.wind_from_direction)
    panels[2].set_xlabel("x, m")
    return embed(
        figure,
        f"Horizontal wind speed {grid.z[level]:.1f} m above ground, wind {scenario.wind_speed:.1f}"
        f" m/s from {scenario.wind_from_direction:.0f} degrees: the evaluation scenario of median"
        f" error, release {candidate.version}. Dots are the interior sensors.",
    )


def _decorate(axes: Axes, site: Site, wind_from: float) -> None:
    axes.set(aspect="equal", ylabel="y, m")
    for sensor in site.sensors:
        axes.plot(*sensor.position[:2], "o", color="#D55E00", mec="w", ms=6)
    u, v = wind_vector(1.0, wind_from, site.footprint.x_axis_bearing)
    axes.annotate(
        "", (0.5 + 0.06 * float(u), 1.14 + 0.1 * float(v)), (0.5, 1.14),
        xycoords="axes fraction", arrowprops={"arrowstyle": "->", "lw": 2},
    )  # fmt: skip
