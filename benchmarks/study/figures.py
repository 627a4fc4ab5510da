"""Figures of the study: small PNGs in docs/figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.study.arrivals import DELAYS
from benchmarks.study.claims import FROZEN, REFERENCE, Compared
from benchmarks.study.learning import Learning
from benchmarks.study.moving import TORN, WASHES
from benchmarks.study.study import SENSORS, Results, true_factor
from benchmarks.study.truth import STEP_HOURS
from benchmarks.validation.report import figure, save

#: Of a running mean over time, h.
SMOOTH_HOURS = 72


def learning_figure(families: dict[str, Learning], two_grids: Learning, folder: Path) -> str:
    """Error against simulations; of two grids against their cost in cheap ones."""
    fig, ax = figure(width=7.6)
    rows = two_grids.rows
    ax.loglog([r.spent for r in rows], [r.rmse for r in rows], "k--", lw=1.4, label="two grids")
    for name, learning in families.items():
        rows = learning.rows
        ax.loglog([r.runs for r in rows], [r.rmse for r in rows], "o-", ms=3, label=name)
        ax.loglog(
            [r.runs for r in rows],
            [r.truth_rmse for r in rows],
            "--",
            lw=1,
            color=ax.lines[-1].get_color(),
        )
    learning = next(iter(families.values()))
    runs = [r.runs for r in learning.rows]
    ax.loglog(runs, [r.nearest for r in learning.rows], color="0.5", lw=1, label="nearest run")
    ax.loglog(
        runs, [r.ratio for r in learning.rows], ":", color="0.5", lw=1, label="constant ratio"
    )
    ax.set_xlabel("training simulations")
    ax.set_ylabel("RMSE of the wind, m/s")
    fig.legend(fontsize=7, loc="outside right upper")
    return save(fig, "evidence_learning.png", folder)


def time_figure(results: Results, found: Compared, folder: Path) -> str:
    """Error against time."""
    fig, ax = figure(height=4.0)
    days = results.truth.hours / 24
    width = max(1, SMOOTH_HOURS // (STEP_HOURS * results.setting.every))

    def draw(name: str, error: np.ndarray, style: str, **more: object) -> None:
        known = np.isfinite(error)
        ones = np.convolve(known, np.ones(width), "same")
        total = np.convolve(np.where(known, error, 0.0), np.ones(width), "same")
        mean = np.where(known, np.sqrt(total / np.maximum(ones, 1)), np.nan)
        ax.plot(days, mean, style, label=name, **more)

    draw(FROZEN, found.others[FROZEN], "C3-", lw=1.2)
    draw("72 h late", found.ways["72 h"].error, "C1-", lw=1.2)
    draw("no delay", found.ways[REFERENCE].error, "C0-", lw=1.5)
    draw(FROZEN + SENSORS, found.others[FROZEN + SENSORS], "C3:", lw=1)
    draw("nearest simulation", found.others["nearest simulation"], "C2:", lw=1)
    draw("oracle", found.others["oracle"], "k--", lw=0.8)
    events = [(w, "wash") for w in WASHES] + [(TORN[0], "tear"), (TORN[1], "mended")]
    top = ax.get_ylim()[1]
    for day, name in events:
        ax.axvline(day, color="0.8", lw=0.8, zorder=0)
        ax.text(day, top, name, fontsize=7, ha="center", va="bottom")
    ax.set_xlabel("days since the record's start")
    ax.set_ylabel("RMSE, three-day mean, m/s")
    fig.legend(fontsize=7, loc="outside lower center", ncols=3)
    return save(fig, "evidence_time.png", folder)


def delay_figure(found: Compared, folder: Path) -> str:
    """Error against delay."""
    fig, axes = figure(height=3.0, columns=2)
    names = [f"{d:g} h" for d in DELAYS]
    base = float(np.nanmean(found.ways[REFERENCE].age[found.instants]))
    tables = ((found.table, "against the fine truth"), (found.own, "against the dear solver"))
    for ax, (table, title) in zip(axes, tables, strict=True):
        colours = iter(("C1", "C2", "C3", "C4", "C5"))
        for name, way in found.ways.items():
            here = table.against[name]
            late = max(0.0, float(np.nanmean(way.age[found.instants])) - base)
            ends = [[here.value - here.low], [here.high - here.value]]
            if name in names:
                label = "fixed delay" if name == names[0] else None
                style = {"fmt": "o", "color": "C0", "label": label}
            else:
                style = {"fmt": "s", "color": next(colours), "label": name}
            ax.errorbar([late], [here.value], yerr=ends, ms=4, capsize=2, **style)
        ax.axhline(0, color="0.7", lw=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(-0.3, 120)
        ax.set_xticks(DELAYS, [f"{d:g}" for d in DELAYS])
        ax.set_xticks([], minor=True)
        ax.set_title(title, fontsize=8)
        ax.set_xlabel("data older by, h", fontsize=8)
    axes[0].set_ylabel("RMSE above no delay, m/s", fontsize=8)
    axes[0].legend(fontsize=7)
    return save(fig, "evidence_delay.png", folder)


def state_figure(results: Results, folder: Path) -> str:
    """Estimated and true state."""
    fig, ax = figure(height=2.8)
    hours = results.truth.hours
    ax.plot(hours / 24, true_factor(hours), "k-", lw=1, label="true loss factor of the screens")
    styles = {"plain": "C0-", "twice the noise": "C1-"}
    for name, style in styles.items():
        if name in results.chains:
            chain = results.chains[name]
            days = [v.hours / 24 for v in chain]
            label = "estimated" if name == "plain" else f"estimated, {name}"
            ax.plot(days, [v.state.screen_loss_factor for v in chain], style, lw=1, label=label)
    ax.set_xlabel("days since the record's start")
    ax.set_ylabel("loss factor")
    ax.legend(fontsize=7)
    return save(fig, "evidence_state.png", folder)
