"""Make a record with interior sensors: the mast's wind is real, the inside of the house is not.

``python -m benchmarks.made_record --store DIR [--out FILE]``

There are no public measurements inside a screenhouse. Every hour of the mast record is solved in a
house that changes (`benchmarks.study.moving`: dust, washes, growth, a hole) by the embedded solver
on a grid that no shipped campaign trains on, and read by three sensors with gain errors, gusts and
noise (`benchmarks.study.readings`). What people at the house would have written down goes beside
it, as a maintenance log. For `configs/campaigns/following.toml`, and for anybody who wants to see a
campaign follow a house. Takes a quarter of an hour on one core; kept runs are found again.
"""

from __future__ import annotations

import argparse
import csv
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from apps.simulators.base import Fidelity
from benchmarks.study import moving
from benchmarks.study.readings import Noise, made
from benchmarks.study.truth import RECORD, ROOT, SEED, SITE, replayed, simulated
from edge_agent.contracts.features import log_law_factor
from edge_agent.contracts.observation import UNITS
from edge_agent.contracts.site import Site

#: No campaign of ours trains on it.
GRID = Fidelity(cells=(40, 26, 20))
OUT = ROOT / "data" / "weather" / "lindcove_made.csv"
COLUMNS = ("time", "sensor", "quantity", "value", "unit")


def started() -> datetime:
    """Return the first instant of the mast record."""
    with RECORD.open(newline="", encoding="utf-8") as file:
        return datetime.fromisoformat(next(csv.DictReader(file))["time"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--every", type=int, default=1, help="hours between instants")
    args = parser.parse_args()
    site, begin = Site.from_toml(SITE), started()
    truth = simulated(replayed(site, args.every), args.store, GRID, "record")
    readings = made(truth, site, Noise(), SEED)
    to_mast = log_law_factor(
        site.terrain.reference_height, site.mast.speed_height, site.terrain.roughness_length
    )
    with args.out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for hours, wind, inside in zip(
            readings.hours, readings.inputs, readings.speed, strict=True
        ):
            time = (begin + timedelta(hours=float(hours))).isoformat()
            values = [
                (site.mast.sensor, "wind_speed", round(float(wind[0]) * to_mast, 3)),
                (site.mast.sensor, "wind_from_direction", round(float(wind[1]), 1) % 360.0),
            ]
            values += [
                (sensor.name, "wind_speed", round(float(value), 3))
                for sensor, value in zip(site.sensors, inside, strict=True)
                if np.isfinite(value)
            ]
            rows.writerows((time, *value, UNITS[value[1]]) for value in values)
    log = args.out.with_name(f"{args.out.stem}_log.toml")
    log.write_text(maintenance(begin), encoding="utf-8")
    print(f"{len(readings.hours)} instants, {args.out.stat().st_size / 1e3:.0f} kB: {args.out}")


def maintenance(begin: datetime) -> str:
    """Return the maintenance log of the study's house, TOML."""
    parts = ["# Made with the record beside it: what people at the house knew, and when."]
    for event in moving.log():
        time = begin + (event.at - moving.START)
        lines = ["[[event]]", f"time = {time:%Y-%m-%dT%H:%M:%S}", f'kind = "{event.kind}"']
        if event.tear is not None:
            t = event.tear
            lines.append(
                f'tear = {{ panel = "{t.panel}", centre = {t.centre}, width = {t.width} }}'
            )
        if event.panel is not None:
            lines.append(f'panel = "{event.panel}"')
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
