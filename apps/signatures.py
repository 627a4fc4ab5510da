"""What tears do to the interior sensors: simulated torn panels, as a small file for the monitors.

``python -m apps.signatures --out signatures.npz`` runs the embedded solver on the winds and tears
of `hypotheses`, about a minute on one core at the default grid.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from apps.datasets import read_simulation, simulation_path
from apps.errors import SimulationError
from apps.scenarios import Scenario, Tear
from apps.simulate import SimulateTask, simulate
from apps.simulators.base import Fidelity, Resources
from edge_agent.contracts.geometry import interpolation_weights
from edge_agent.contracts.monitors import Hypothesis, SignatureMeta, Signatures
from edge_agent.contracts.site import Site

#: A tear of a signature, m: about a panel's stretch between two posts of a large house, and wide
#: enough for the cells.
WIDTH = 20.0
SPEEDS = (3.0, 9.0)
DIRECTIONS = 16
RESOURCES = Resources(batch=8)

#: Further arguments of a `Scenario`.
Variant = dict[str, Any]


def hypotheses(site: Site, width: float = WIDTH) -> list[tuple[Hypothesis, Variant]]:
    """Return what may have happened: tears along each panel, and dust.

    A panel has a tear every 40 m or so along its first coordinate, two rows of them on the roof;
    and it may be gone as a whole, which looks like no multiple of a tear.
    """
    found: list[tuple[Hypothesis, Variant]] = [
        (Hypothesis(name="dust", kind="state"), {"screen_loss_factor": 1.3})
    ]
    for panel in site.panels:
        (a, c), (b, d) = panel.start, panel.end
        count = max(1, round((b - a) / 40.0))
        rows: list[tuple[float, float] | None] = [None]
        if panel.face == "roof":
            rows = [(c, (c + d) / 2), ((c + d) / 2, d)]
        for k in range(count):
            centre = a + (k + 0.5) * (b - a) / count
            for row in rows:
                tear = Tear(panel=panel.name, centre=centre, width=min(width, b - a), span=row)
                where = f"{panel.name} at {centre:.0f} m"
                if row is not None:
                    where += f", {row[0]:.0f} to {row[1]:.0f} m"
                found.append(
                    (Hypothesis(name=where, kind="tear", panel=panel.name), {"tears": (tear,)})
                )
        gone = Hypothesis(name=f"all of {panel.name}", kind="tear", panel=panel.name)
        found.append((gone, {"tears": (Tear.whole(panel),)}))
    return found


def sensor_table(
    site: Site,
    variants: Sequence[Variant],
    speeds: Sequence[float],
    directions: int,
    fidelity: Fidelity,
    store: Path,
    resources: Resources = RESOURCES,
) -> np.ndarray:
    """Return the wind speed at the interior sensors for every variant and wind.

    Parameters
    ----------
    site : Site
    variants : sequence of dict
        Arguments of `Scenario` beside the wind; an empty one is the whole house.
    speeds : sequence of float, m/s
    directions : int
        Equally spaced over the circle, from zero.
    fidelity : Fidelity
    store : Path
        Simulations are kept here, and found again.
    resources : Resources
        Part of the runs' names, so those of a campaign are found with its own.

    Returns
    -------
    (variants, speeds, directions, sensors) array, m/s

    Raises
    ------
    SimulationError
        If a case fails.
    """
    scenarios = _scenarios(variants, speeds, directions)
    weights = interpolation_weights(site.grid(), np.array([s.position for s in site.sensors]))
    rows = []
    for first in range(0, len(scenarios), resources.batch):
        task = SimulateTask(
            site=site,
            scenarios=tuple(scenarios[first : first + resources.batch]),
            fidelity=fidelity,
            resources=resources,
            store=str(store),
        )
        for outcome in simulate(task).outcomes:
            if outcome.status != "finished":
                msg = f"a case of the signatures did not finish: {outcome.detail}"
                raise SimulationError(msg, reason=outcome.reason)
            wind = read_simulation(simulation_path(store, outcome.digest)).wind
            at = weights @ wind.reshape(3, -1).T.astype(float)
            rows.append(np.sqrt((at**2).sum(axis=1)))
    return np.array(rows).reshape(len(variants), len(speeds), directions, -1)


def signature_scenarios(site: Site) -> list[Scenario]:
    """Return every scenario that `make_signatures` needs, the whole house's first."""
    variants: list[Variant] = [{}, *(variant for _, variant in hypotheses(site))]
    return _scenarios(variants, SPEEDS, DIRECTIONS)


def _scenarios(
    variants: Sequence[Variant], speeds: Sequence[float], directions: int
) -> list[Scenario]:
    bearings = np.arange(directions) * 360.0 / directions
    return [
        Scenario(wind_speed=s, wind_from_direction=float(d), **variant)
        for variant in variants
        for s in speeds
        for d in bearings
    ]


def make_signatures(
    site: Site, fidelity: Fidelity, store: Path, resources: Resources = RESOURCES
) -> Signatures:
    """Return the signatures of a site; raises as `sensor_table` does."""
    known = hypotheses(site)
    variants: list[Variant] = [{}, *(variant for _, variant in known)]
    table = sensor_table(site, variants, SPEEDS, DIRECTIONS, fidelity, store, resources)
    meta = SignatureMeta(
        site=site.name,
        site_digest=site.content_digest(),
        sensors=tuple(s.name for s in site.sensors),
        hypotheses=tuple(h for h, _ in known),
        fidelity=str(fidelity),
    )
    bearings = np.arange(DIRECTIONS) * 360.0 / DIRECTIONS
    return Signatures(meta, np.array(SPEEDS), bearings, table[1:] - table[:1])


def _main(
    out: Annotated[Path, typer.Option(help="File to write.")],
    site: Annotated[Path, typer.Option(help="Site file.")] = Path("configs/sites/lindcove.toml"),
    cells: Annotated[tuple[int, int, int], typer.Option(help="Cells along x, y, z.")] = (32, 20, 8),
    store: Annotated[Path | None, typer.Option(help="Folder that keeps the runs.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the solver.")] = 1,
    batch: Annotated[int, typer.Option(help="Cases a task; a campaign's, to find its runs.")] = 8,
) -> None:
    """Simulate the signatures of a site's panels and write them."""
    with tempfile.TemporaryDirectory(prefix="rbf-signatures-") as folder:
        found = make_signatures(
            Site.from_toml(site),
            Fidelity(cells=cells),
            store or Path(folder),
            Resources(threads=threads, batch=batch),
        )
    found.save(out)
    typer.echo(f"{len(found.meta.hypotheses)} hypotheses, {out.stat().st_size} bytes: {out}")


if __name__ == "__main__":
    typer.run(_main)
