"""The tear detector on the real mast record: the table of ``docs/tear-detector.md``.

``python benchmarks/tear_detector.py --store DIR`` simulates what DIR does not hold yet (about ten
minutes on one core), trains a surrogate, makes two months of interior readings, tunes the detector
on the first month in health, and tears a panel at the beginning of the second.

What is real: the wind of the record. What is made: everything inside. The house is the embedded
solver on a finer grid than the surrogate's and the signatures', with sensor noise, gusts, and a
mast that does not see quite the wind of the house. See `Noise`.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from apps.datasets import load_simulations
from apps.scenarios import Tear
from apps.signatures import make_signatures, sensor_table
from apps.simulate import SimulateTask, simulate
from apps.simulators.base import Fidelity, Resources
from apps.surrogates.base import family, family_settings
from apps.surrogates.blas import blas_threads
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.monitors import Calibration, Signatures, TearCalibration, table_at
from edge_agent.contracts.observation import instant_us
from edge_agent.contracts.site import Site
from edge_agent.monitors import tear
from edge_agent.monitors.runlength import alarms, drawn_days
from edge_agent.monitors.series import tune
from edge_agent.monitors.tear import Pairs
from edge_agent.monitors.watch import input_series
from workflows.steering import cover

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data/weather/mast_10min.csv"
COARSE, FINE = Fidelity(cells=(32, 20, 8)), Fidelity(cells=(40, 26, 10))
SPEEDS, DIRECTIONS = (3.0, 9.0), 24
BLOCK_SECONDS = 21_600.0
BLOCKS_A_DAY = 4


@dataclass(frozen=True)
class Noise:
    """How the made readings differ from the steady solution: standard deviations, relative."""

    gain: float = 0.05
    """Of each sensor, constant: calibration of a cup anemometer."""
    gusts: float = 0.10
    """Of each ten-minute mean inside, correlation 0.8 from one to the next."""
    white: float = 0.05
    """m/s, absolute, of each reading."""
    mast_speed: float = 0.08
    """House's wind over the mast's, correlation 0.9."""
    mast_direction: float = 6.0
    """degrees, correlation 0.9."""


def variants(site: Site) -> dict[str, dict[str, Any]]:
    """Return the houses that are the truth; no tear is where the signatures have theirs."""
    found: dict[str, dict[str, Any]] = {"whole": {}, "dust": {"screen_loss_factor": 1.3}}
    for panel in site.panels:
        (a, _), (b, d) = panel.start, panel.end
        for width in (6.0, 20.0):
            span = (0.6 * d - width / 2, 0.6 * d + width / 2) if panel.face == "roof" else None
            hole = Tear(panel=panel.name, centre=0.37 * (b - a) + a, width=width, span=span)
            found[f"{panel.name} {width:g} m"] = {"tears": (hole,)}
        found[f"{panel.name} whole"] = {"tears": (Tear.whole(panel),)}
    return found


def surrogate_at_sensors(site: Site, winds: np.ndarray, store: Path) -> np.ndarray:
    """Return what a surrogate of 64 coarse runs predicts at the interior sensors, (n, sensors)."""
    scenarios = cover("tear-detector", 0, 64, 11, (0.5, 14.0))
    digests: list[str] = []
    for i in range(0, 64, 8):
        task = SimulateTask(
            site=site,
            scenarios=tuple(scenarios[i : i + 8]),
            fidelity=COARSE,
            resources=Resources(threads=1, batch=8),
            store=str(store),
        )
        digests += [o.digest for o in simulate(task).outcomes if o.status == "finished"]
    chosen = family("pod_regression")
    with blas_threads(1):
        model = chosen.fit(
            load_simulations(store, digests, site), site, family_settings("pod_regression", {}), 1
        )
        weights = interpolation_weights(site.grid(), np.array([s.position for s in site.sensors]))
        rows = []
        for part in np.array_split(winds, 40):
            wind = model.predict(part)[0].reshape(len(part), 3, -1)
            rows.append(np.sqrt(((wind @ weights.T) ** 2).sum(axis=1)))
    return np.concatenate(rows)


def read_winds(site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Return data times (us) and (n, 2) model inputs of the record."""
    features = MastLogLaw.for_site(site)
    times, winds = [], []
    with RECORD.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            speed, direction = row["wind_speed_40m"], row["wind_from_direction_38m"]
            if speed and direction:
                times.append(instant_us(datetime.fromisoformat(row["time"])))
                winds.append(
                    features.from_readings(
                        {"wind_speed": [float(speed)], "wind_from_direction": [float(direction)]}
                    )
                )
    return np.array(times), np.array(winds, float)


def autoregressive(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> np.ndarray:
    x = rng.normal(size=shape)
    for i in range(1, shape[0]):
        x[i] = phi * x[i - 1] + np.sqrt(1 - phi**2) * x[i]
    return x


class House:
    """Makes interior readings."""

    def __init__(
        self, tables: np.ndarray, names: list[str], times: np.ndarray, winds: np.ndarray,
        predicted: np.ndarray, noise: Noise, seed: int,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        n, m = len(times), tables.shape[-1]
        self.names, self.times, self.winds, self.predicted = names, times, winds, predicted
        speed = winds[:, 0] * np.exp(noise.mast_speed * autoregressive(rng, (n,), 0.9))
        direction = winds[:, 1] + noise.mast_direction * autoregressive(rng, (n,), 0.9)
        steady = table_at(tables, np.array(SPEEDS), DIRECTIONS, speed, direction)
        factor = (1 + noise.gain * rng.normal(size=m)) * np.exp(
            noise.gusts * autoregressive(rng, (n, m), 0.8)
        )
        white = noise.white * rng.normal(size=(n, m))
        self.measured = np.maximum(0.0, steady * factor[:, None] + white[:, None])

    def pairs(self, state: str | np.ndarray, rows: slice) -> Pairs:
        """Return prediction and reading of some rows, with the house in a state."""
        named = isinstance(state, str)
        measured = self.measured[:, self.names.index(state)] if named else state
        return Pairs(
            self.times[rows], self.winds[rows, 0], self.winds[rows, 1],
            self.predicted[rows], measured[rows],
        )  # fmt: skip


def daily(signatures: Signatures, tuned: TearCalibration, pairs: Pairs) -> np.ndarray:
    blocks, x, energy = tear.block_sums(signatures, tuned, pairs)
    return tear.by_day(blocks, tear.increments(signatures, tuned, x, energy), BLOCK_SECONDS)


@dataclass(frozen=True)
class Found:
    """First alarm after a change, along many paths."""

    days: np.ndarray
    """Delay of each path, days; NaN without an alarm."""
    hypothesis: np.ndarray
    """Named then."""


def first_alarms(
    healthy: np.ndarray, torn: np.ndarray, tuned: TearCalibration, which: np.ndarray,
    paths: np.ndarray, start: np.ndarray,
) -> Found:  # fmt: skip
    """Run healthy days, then torn ones, and note the first alarm after the change."""
    state = np.zeros((len(paths), healthy.shape[2]))
    for day in range(start.shape[1]):
        for block in range(BLOCKS_A_DAY):
            state = np.maximum(0.0, state + healthy[start[:, day], block])
            # An alarm before the change is a false one, counted elsewhere: begin again.
            state[(state > tuned.threshold).any(axis=1)] = 0.0
    delay, named = np.full(len(paths), np.nan), np.full(len(paths), -1)
    for day in range(paths.shape[1]):
        for block in range(BLOCKS_A_DAY):
            state = np.maximum(0.0, state + torn[paths[:, day], block])
            new = np.isnan(delay) & (state > tuned.threshold).any(axis=1)
            delay[new] = day + (block + 1) / BLOCKS_A_DAY
            named[new] = which[state.argmax(axis=1)][new]
    return Found(delay, named)


def rate_interval(
    increments: np.ndarray, threshold: float, rng: np.random.Generator, outer: int = 200
) -> tuple[float, float, float]:
    """Return false alarms per 30 days, and the 95 % interval over which days the month had.

    Each of `outer` months is drawn from the days of the record, and three years from each month.
    """
    days = len(increments)
    months = drawn_days(days, days, outer, rng)
    years = drawn_days(days, 1095, outer, rng)
    chosen = np.take_along_axis(months, years, axis=1)
    rates = alarms(increments, chosen, threshold) / 1095 * 30
    own = alarms(increments, drawn_days(days, 1095, outer, rng), threshold) / 1095 * 30
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(own.mean()), float(low), float(high)


def simulated(site: Site, store: Path, threads: int) -> tuple[Signatures, np.ndarray, list[str]]:
    resources = Resources(threads=threads, batch=8)
    signatures = make_signatures(site, COARSE, store / "signatures", resources)
    houses = variants(site)
    table = sensor_table(
        site, list(houses.values()), SPEEDS, DIRECTIONS, FINE, store / "truth", resources
    )
    return signatures, table, list(houses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--run-length-days", type=float, default=365.0)
    parser.add_argument("--houses", type=int, default=10, help="draws of all that is made")
    parser.add_argument("--write", type=Path, help="folder for signatures and calibration")
    args = parser.parse_args()
    site = Site.from_toml(ROOT / "configs/sites/lindcove.toml")
    signatures, table, names = simulated(site, args.store, args.threads)
    times, winds = read_winds(site)
    predicted = surrogate_at_sensors(site, winds, args.store / "surrogate")
    half = len(times) // 2
    first, second = slice(0, half), slice(half, None)
    which, _ = tear.expand(signatures)
    known = signatures.meta.hypotheses
    totals: dict[str, list[dict[str, float]]] = {n: [] for n in names if n not in ("whole", "dust")}
    false, settled, actual, dust = [], [], [], []
    for draw in range(args.houses):
        rng = np.random.default_rng([args.seed, draw])
        house = House(table, names, times, winds, predicted, Noise(), args.seed + 100 * draw)
        tuned = tear.calibrate(
            signatures, house.pairs("whole", first),
            run_length_days=args.run_length_days, block_seconds=BLOCK_SECONDS, seed=args.seed,
        )  # fmt: skip
        settled.append(tuned.threshold)
        healthy = daily(signatures, tuned, house.pairs("whole", second))
        false.append(rate_interval(healthy, tuned.threshold, rng))
        days = len(healthy)
        actual.append(int(alarms(healthy, np.arange(days)[None], tuned.threshold)[0]))
        # Dust that gathers over the second month, to 30 % more loss.
        clean, dusty = house.measured[:, names.index("whole")], house.measured[:, 1]
        share = np.clip((np.arange(len(times)) - half) / half, 0, 1)[:, None]
        gathering = daily(signatures, tuned, house.pairs(clean + share * (dusty - clean), second))
        state = np.zeros(gathering.shape[2])
        said = "nothing"
        for day in range(days):
            for block in range(BLOCKS_A_DAY):
                state = np.maximum(0.0, state + gathering[day, block])
                if said == "nothing" and state.max() > tuned.threshold:
                    said = known[which[state.argmax()]].kind
        dust.append(said)
        start = drawn_days(days, 10, 200, rng)
        paths = drawn_days(days, 60, 200, rng)
        here = np.arange(days)[None]
        for name, rows in totals.items():
            torn = daily(signatures, tuned, house.pairs(name, second))
            panel = name.split()[0]
            found = first_alarms(healthy, torn, tuned, which, paths, start)
            real = first_alarms(healthy, torn, tuned, which, here, here[:, :1])
            heard = ~np.isnan(found.days)
            right = np.array([known[h].panel == panel for h in found.hypothesis]) & heard
            rows.append(
                {
                    "delay": float(real.days[0]),
                    "right": float(known[real.hypothesis[0]].panel == panel)
                    if real.hypothesis[0] >= 0
                    else float("nan"),
                    "heard": float(heard.mean()),
                    "median": float(np.nanmedian(found.days)) if heard.any() else float("nan"),
                    "slow": float(np.nanquantile(found.days, 0.9)) if heard.any() else float("nan"),
                    "share": float(right.sum() / max(1, heard.sum())),
                }
            )
    report(args, totals, false, actual, settled, dust, house, tuned)
    if args.write is not None:
        write(args.write, site, signatures, tuned, house, first)


def report(
    args: argparse.Namespace, totals: dict[str, list[dict[str, float]]],
    false: list[tuple[float, float, float]], actual: list[int], settled: list[float],
    dust: list[str], house: House, tuned: TearCalibration,
) -> None:  # fmt: skip
    error = house.predicted - house.measured[:, 0]
    print(f"seed {args.seed}, {args.houses} draws of the made parts; {len(house.times)} records")
    print(f"prediction error at the sensors, healthy: RMSE {np.sqrt((error**2).mean()):.3f} m/s of "
          f"{house.measured[:, 0].mean():.3f} m/s mean")  # fmt: skip
    print(f"threshold {np.median(settled):.2f}, inflation {np.median(tuned.inflation):.1f}")
    mean, low, high = np.array(false).T
    print(f"false alarms per 30 days, second month: {mean.mean():.2f}, 95 % {np.median(low):.2f} "
          f"to {np.median(high):.2f} (median), {low.min():.2f} to {high.max():.2f} (all draws); "
          f"on the record itself {sum(actual)} in {len(actual)} months "
          f"{actual}; tuned for {30 / args.run_length_days:.2f}")  # fmt: skip
    print(f"dust gathering to +30 % loss in the second month says: {dust}")
    print("| torn | delay, days: this record (draws) | right panel | resampled: median | 90 % | "
          "heard in 60 days | right panel |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, rows in totals.items():
        delay = np.array([r["delay"] for r in rows])
        right = np.array([r["right"] for r in rows])
        heard = ~np.isnan(delay)
        low_, high_ = (np.nanmin(delay), np.nanmax(delay)) if heard.any() else (np.nan, np.nan)
        middle = np.nanmedian(delay) if heard.any() else np.nan
        print(f"| {name} | {middle:.2f} ({low_:.2f} to {high_:.2f}), heard {heard.sum()} of "
              f"{len(rows)} | {int(np.nansum(right))} of {heard.sum()} | "
              f"{np.nanmedian([r['median'] for r in rows]):.2f} | "
              f"{np.nanmedian([r['slow'] for r in rows]):.2f} | "
              f"{np.mean([r['heard'] for r in rows]):.0%} | "
              f"{np.mean([r['share'] for r in rows]):.0%} |")  # fmt: skip


def write(
    folder: Path, site: Site, signatures: Signatures, tuned: TearCalibration, house: House,
    healthy: slice,
) -> None:  # fmt: skip
    """Write what the agent's ``[monitors]`` names."""
    pairs = house.pairs("whole", healthy)
    rows, error = tear.relative_error(pairs)
    series = [input_series(float(s), float(d)) for s, d in house.winds[healthy]]
    calibration = Calibration(
        site=site.name,
        made_from=f"mast record, first month; interior simulated, {datetime.now(UTC):%Y-%m-%d}",
        drift={
            k: tune(pairs.instant, np.array([s[k] for s in series]), block_seconds=86_400.0)
            for k in series[0]
        },
        error={
            s.name: tune(pairs.instant[rows], error[:, k], block_seconds=BLOCK_SECONDS)
            for k, s in enumerate(site.sensors)
        },
        tear=tuned,
    )
    folder.mkdir(parents=True, exist_ok=True)
    signatures.save(folder / "signatures.npz")
    text = json.dumps(calibration.model_dump(mode="json"), indent=1)
    (folder / "calibration.json").write_text(text, encoding="utf-8")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
