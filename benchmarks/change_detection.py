"""Does the weather call for new simulations: our sequential test beside the published vote.

``python benchmarks/change_detection.py [--run-length 7] [--json FILE]``

The vote (MAYHEM-Lab/laminar, as read in the authors' repository) compares the newest six values of
wind speed with the six before: Kolmogorov-Smirnov (fires at D >= 5/6), regression of the new on the
old (no change if the 95 % intervals hold intercept 0 and slope 1, or the previous fit), and
Pearson's correlation (none significant counts as change); two votes of three are a change. It is
run once per six values here: the kindest reading.

Both are run over the real mast record and over its days drawn again in threes, where nothing
happens that the site does not see in any week. Then a change is put into such records half-way, and
the time to the next alarm is measured against the time to an alarm without one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from weather import recorded

from edge_agent.contracts.site import Site
from workflows.change import as_series, block_means, mean_time_between, resampled, run, tune

ROOT = Path(__file__).resolve().parent.parent
WINDOW = 6
#: Two-sided 5 % point of Student's t with four degrees of freedom.
T4 = 2.776
KS_CRITICAL = 30 / 36
DAY = 144
Winds = np.ndarray


def votes(speed: np.ndarray) -> np.ndarray:
    """Return the three votes on each pair of neighbouring windows, (windows - 1, 3) bool."""
    windows = speed[: len(speed) // WINDOW * WINDOW].reshape(-1, WINDOW)
    cast = np.zeros((len(windows) - 1, 3), bool)
    previous: tuple[float, float] | None = None
    for i, (old, new) in enumerate(pairwise(windows)):
        cast[i, 0] = stats.ks_2samp(old, new).statistic >= KS_CRITICAL - 1e-12
        if np.ptp(old) == 0 or np.ptp(new) == 0:
            cast[i, 2] = True
            continue
        fit = stats.linregress(old, new)
        within = [
            abs(fit.intercept - intercept) <= T4 * fit.intercept_stderr
            and abs(fit.slope - slope) <= T4 * fit.stderr
            for intercept, slope in ((0.0, 1.0), previous or (0.0, 1.0))
        ]
        cast[i, 1] = not any(within)
        previous = (float(fit.intercept), float(fit.slope))
        r = min(max(float(fit.rvalue), -0.999999), 0.999999)
        cast[i, 2] = abs(r) * np.sqrt(4 / (1 - r * r)) < T4
    return cast


def changes() -> dict[str, Callable[[Winds], Winds]]:
    """Return what is done to the winds of the second half."""

    def turned(w: Winds) -> Winds:
        return np.stack([w[:, 0], (w[:, 1] + 90.0) % 360.0], axis=1)

    return {
        "wind 1.5 times stronger": lambda w: np.stack([w[:, 0] * 1.5, w[:, 1]], axis=1),
        "wind twice as strong": lambda w: np.stack([w[:, 0] * 2.0, w[:, 1]], axis=1),
        "turned by 90 degrees": turned,
        "turned, and twice as strong": lambda w: turned(w) * [2.0, 1.0],
    }


def first_after(times: np.ndarray, at: float) -> float:
    later = times[times > at]
    return float(later[0] - at) if len(later) else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-length", type=float, default=7.0, help="days between false alarms")
    parser.add_argument("--records", type=int, default=60, help="resampled, for delays")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    site = Site.from_toml(ROOT / "configs" / "sites" / "lindcove.toml")
    results = compare(*recorded(site), options.run_length, options.records)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def compare(
    seconds: np.ndarray, winds: np.ndarray, run_length: float, records: int
) -> dict[str, Any]:
    means = block_means(seconds, as_series(winds), 3.0)
    test = tune(means, run_length_days=run_length)
    # Other draws than those that the threshold was chosen on.
    fresh = resampled(means, test.block_hours, 4 * run_length, 3, 400, seed=99)
    cast = votes(winds[:, 0])
    changed = cast.sum(axis=1) >= 2
    days = len(winds) / DAY
    found = run(test, means)
    share = cast.mean(axis=0)
    results: dict[str, Any] = {
        "test": test.model_dump(),
        "vote_share": dict(zip(("ks", "regression", "correlation"), share.tolist(), strict=True)),
        "vote_days_between": float(days / max(1, changed.sum())),
        "same_as_two": float((changed == (cast[:, 0] | cast[:, 1])).mean()),
        "record_days_between": float(days / max(1, len(found.alarms))),
        "resampled_days_between": mean_time_between(test, fresh),
    }
    print(f"record: {days:.0f} days, {len(cast)} pairs of windows of {WINDOW} values")
    print(
        f"published vote: KS votes change in {share[0]:.0%}, regression in {share[1]:.0%}, "
        f"correlation in {share[2]:.0%} of the pairs; the majority equals 'KS or regression' in "
        f"{results['same_as_two']:.0%}; an alarm every {results['vote_days_between'] * 24:.1f} h"
    )
    print(
        f"sequential test: threshold {test.threshold:.1f} for {run_length:g} days between alarms; "
        f"on other draws {results['resampled_days_between']:.1f} days; on the record as it was "
        f"{results['record_days_between']:.1f} days ({len(found.alarms)} alarms)"
    )
    results["delays"] = delays(winds, test, records)
    return results


def delays(winds: np.ndarray, test: Any, records: int) -> dict[str, Any]:  # noqa: ANN401
    """Print and return hours to the next alarm, with and without a change, of both."""
    daily = winds[: len(winds) // DAY * DAY].reshape(-1, DAY, 2)
    rng = np.random.default_rng(5)
    half, rows = 21, {}
    drawn = [
        daily[(rng.integers(0, len(daily), (14, 1)) + np.arange(3)).ravel() % len(daily)]
        for _ in range(records)
    ]
    print("\n| what changes | sequential test, h | vote, h |\n|---|---|---|")
    for name, change in {"nothing": lambda w: w, **changes()}.items():
        hours: dict[str, list[float]] = {"test": [], "vote": []}
        for record in drawn:
            made = np.concatenate(
                [record[:half].reshape(-1, 2), change(record[half:].reshape(-1, 2))]
            )
            at = half * 24.0
            means = block_means(np.arange(len(made)) * 600.0, as_series(made), test.block_hours)
            alarms = (run(test, means).alarms + 1) * test.block_hours
            hours["test"].append(first_after(alarms, at))
            cast = votes(made[half * DAY - 2 * WINDOW :, 0]).sum(axis=1) >= 2
            times = at + np.arange(len(cast)) * WINDOW / 6.0
            hours["vote"].append(first_after(times[cast], at))
        rows[name] = {k: np.percentile(v, (50, 90)).tolist() for k, v in hours.items()}
        cells = [f"{a:.0f} (90 %: {b:.0f})" for a, b in rows[name].values()]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
