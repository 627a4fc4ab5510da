"""The problem of the first trial of surrogates, on our site.

Seven numbers (`../shared/facts/cfd/gen3d.py`): wind direction; constant losses of the walls and of
the roof, 1 to 5 each; the canopy's drag, 0.05 to 0.6 per metre; in half of the runs a hole over the
height of one of the four walls, its middle at 15 to 85 % of the wall, 10 to 40 m wide and cut off
at the wall's ends. The wind speed is 5 m/s. Scenarios are one scrambled Sobol sequence, so that its
first runs are an even cover, too.

Each run is of a house of its own: the site with other screens and trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import qmc

from apps.datasets import read_simulation, simulation_path
from apps.scenarios import Scenario, Tear
from apps.simulate import SimulateTask, simulate
from apps.simulation_set import SimulationSet
from apps.simulators.base import Fidelity, Resources
from apps.space import Scalar, Space
from edge_agent.contracts.site import Panel, Screen, Site

#: No choice of a setting, of ours or of a peer, has seen it; 1 has been used for that.
SEED = 20
WIND_SPEED = 5.0
LOSS, DRAG = (1.0, 5.0), (0.05, 0.6)
#: Middle of a hole, as a share of its wall, and its width, m.
PLACE, WIDTH = (0.15, 0.85), (10.0, 40.0)
SCALARS = (
    Scalar(name="wall_loss"),
    Scalar(name="roof_loss"),
    Scalar(name="canopy_drag", unit="m-1"),
)


@dataclass(frozen=True)
class House:
    """One run: a house and the wind that blows on it."""

    site: Site
    scenario: Scenario
    state: tuple[float, ...]
    """In the columns of `space`."""


def space(site: Site) -> Space:
    """Return the columns of a run: two losses, the drag, the hole."""
    return Space(scalars=SCALARS, panels=tuple(p.name for p in site.panels if p.face != "roof"))


def houses(site: Site, seed: int, first: int, stop: int) -> list[House]:
    """Return some of the sequence's houses, the `first` up to before `stop`."""
    sampler = qmc.Sobol(7, seed=seed)
    # A power of two, or Sobol warns; what stands at a place does not depend on how many are drawn.
    rows = sampler.random(2 ** int(np.ceil(np.log2(max(stop, 2)))))
    return [_house(site, row) for row in rows[first:stop]]


def simulated(
    site: Site, fidelity: Fidelity, seed: int, first: int, stop: int, store: Path
) -> SimulationSet:
    """Simulate some of the houses, or find them in the folder; one that fails is left out.

    Parameters
    ----------
    site : Site
    fidelity : Fidelity
    seed : int
    first, stop : int
        Places in the sequence.
    store : Path
        Folder that keeps the runs.
    """
    digests, kept, wind = [], [], []
    for house in houses(site, seed, first, stop):
        task = SimulateTask(
            site=house.site,
            scenarios=(house.scenario,),
            fidelity=fidelity,
            resources=Resources(threads=1, batch=1),
            store=str(store),
        )
        outcome = simulate(task).outcomes[0]
        if outcome.status != "finished":
            print(f"left out: {house.state}: {outcome.detail}")
            continue
        digests.append(outcome.digest)
        kept.append(house)
        wind.append(read_simulation(simulation_path(store, outcome.digest)).wind)
    return SimulationSet(
        digests=tuple(digests),
        wind_speed=np.array([h.scenario.wind_speed for h in kept]),
        wind_from_direction=np.array([h.scenario.wind_from_direction for h in kept]),
        wind=np.stack(wind),
        state=np.array([h.state for h in kept]),
        space=space(site),
    )


def _house(site: Site, row: np.ndarray) -> House:
    """Return the house of one point of the unit cube."""
    wall, roof = (round(_between(LOSS, r), 4) for r in row[1:3])
    drag = round(_between(DRAG, row[3]), 4)
    columns = space(site)
    # The upper half of the fifth number: no hole.
    face = int(row[4] * 2 * len(columns.panels))
    torn = [p for p in site.panels if p.name in columns.panels[face : face + 1]]
    tears = tuple(_hole(p, _between(PLACE, row[5]), _between(WIDTH, row[6])) for p in torn)
    panels = tuple(
        p.model_copy(
            update={"screen": Screen(linear=0.0, constant=roof if p.face == "roof" else wall)}
        )
        for p in site.panels
    )
    canopy = tuple(c.model_copy(update={"drag_area_density": drag}) for c in site.canopy)
    scenario = Scenario(
        wind_speed=WIND_SPEED,
        wind_from_direction=round(360.0 * row[0], 2) % 360.0,
        tears=tears,
    )
    return House(
        site=site.model_copy(update={"panels": panels, "canopy": canopy}),
        scenario=scenario,
        state=(wall, roof, drag, *columns.tear(tears)),
    )


def _hole(panel: Panel, share: float, width: float) -> Tear:
    start, end = panel.start[0], panel.end[0]
    middle = start + share * (end - start)
    low, high = max(start, middle - width / 2), min(end, middle + width / 2)
    low, high = round(low, 3), round(high, 3)
    return Tear(panel=panel.name, centre=round((low + high) / 2, 4), width=round(high - low, 3))


def _between(ends: tuple[float, float], share: float) -> float:
    return float(ends[0] + (ends[1] - ends[0]) * share)
