"""Where scenarios lie: points whose distances say how far a scenario is from another.

The whole range of a wind speed, its square root being the measure, counts one, as does the circle
of directions over the number of mirrors, and the range of each scalar of the state. Scenarios with
tears on different panels are apart by the square root of two at least, with and without a tear by
one; on one panel the share of its length counts, and the width. A scenario and its mirror image are
one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apps.simulation_set import SimulationSet
from apps.space import WIDE, Space
from apps.surrogates.graph import Step
from apps.surrogates.symmetry import Mirror, mirror_scenarios
from edge_agent.contracts.site import Site

_F32, _I64 = np.float32, np.int64


@dataclass(frozen=True)
class Places:
    """The map from scenarios to points."""

    site: Site
    space: Space
    group: tuple[Mirror, ...]
    """Mirrors that count, the identity first."""
    speed: tuple[float, float]
    """Range of wind speeds, m/s."""
    limits: tuple[tuple[float, float], ...]
    """Range of each scaled scalar."""

    @classmethod
    def of(cls, data: SimulationSet, site: Site, group: tuple[Mirror, ...]) -> Places:
        """Return the map over the range of some simulations."""
        scaled = [s.scaled(data.state[:, j]) for j, s in enumerate(data.space.scalars)]
        return cls(
            site=site,
            space=data.space,
            group=group,
            speed=(float(data.wind_speed.min()), float(data.wind_speed.max())),
            limits=tuple((float(v.min()), float(v.max())) for v in scaled),
        )

    @property
    def radius(self) -> float:
        """Of the circle that directions lie on."""
        return len(self.group) / (2.0 * np.pi)

    def points(self, inputs: np.ndarray) -> np.ndarray:
        """Return the points of scenarios, (n, 2 + columns), as (n, dimensions) float64."""
        inputs = np.asarray(inputs, float)
        angle = np.deg2rad(inputs[:, 1])
        columns = [
            np.sqrt(np.maximum(inputs[:, 0], 0.0)) / extent(*np.sqrt(self.speed)),
            self.radius * np.cos(angle),
            self.radius * np.sin(angle),
        ]
        for j, (scalar, limits) in enumerate(zip(self.space.scalars, self.limits, strict=True)):
            columns.append(scalar.scaled(inputs[:, 2 + j]) / extent(*limits))
        points = np.stack(columns, axis=1)
        if not self.space.panels:
            return points
        panel, centre, width = inputs[:, 2 + len(self.space.scalars) :].T[:3, :, None]
        there = np.abs(panel - np.arange(1, len(self.space.panels) + 1)) < 0.5
        starts, lengths = self.panels()
        # From the panel's middle: a mirror may turn it round.
        along = np.where(there, (centre - starts) / lengths - 0.5, 0.0)
        return np.concatenate([points, there, along, there * (width / WIDE)], axis=1)

    def images(self, inputs: np.ndarray) -> np.ndarray:
        """Return the points of all mirror images of scenarios, (mirrors n, dimensions)."""
        mirrored = [mirror_scenarios(inputs, self.site, self.space, m) for m in self.group]
        return np.concatenate([self.points(m) for m in mirrored])

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the distances between scenarios (n, columns) and (m, columns), (n, m)."""
        if not len(b):
            return np.empty((len(a), 0))
        images = self.images(b).reshape(len(self.group), len(b), -1)
        between = self.points(a)[:, None, None] - images[None]
        return np.asarray(np.sqrt((between**2).sum(axis=3).min(axis=1)))

    def panels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the panels that may be torn begin, and their lengths, m."""
        named = {p.name: p for p in self.site.panels}
        starts = np.array([named[n].start[0] for n in self.space.panels])
        return starts, np.array([named[n].end[0] for n in self.space.panels]) - starts


def extent(low: float, high: float) -> float:
    """Return the length of a range, never nought."""
    return max(float(high - low), 1e-6)


def distance_steps(
    places: Places, runs: np.ndarray, inputs: str, output: str
) -> tuple[list[Step], dict[str, np.ndarray]]:
    """Return the steps and constants of the distance to the nearest run, (batch,).

    Parameters
    ----------
    places : Places
    runs : (n, 2 + columns) array
        Scenarios of the training runs.
    inputs, output : str
        Names of the tensors: scenarios (batch, 2 + columns or more), and the distance.
    """
    constants: dict[str, np.ndarray] = {
        "support_nought": np.array(0, _F32),
        "support_radian": np.array(np.pi / 180, _F32),
        "support_radius": np.array(places.radius, _F32),
        "support_speed": np.array(extent(*np.sqrt(places.speed)), _F32),
        "support_axis": np.array([1], _I64),
        "support_last": np.array([2], _I64),
        "support_runs": places.images(runs).astype(_F32)[None],
        **{f"support_column_{j}": np.array([j], _I64) for j in range(runs.shape[1])},
    }
    flat = {"keepdims": 0}
    columns: list[str] = ["support_a", "support_x", "support_y"]
    steps: list[Step] = [
        *(
            ("Gather", [inputs, f"support_column_{j}"], f"support_in_{j}", {"axis": 1})
            for j in range(runs.shape[1])
        ),
        ("Max", ["support_in_0", "support_nought"], "support_blowing", {}),
        ("Sqrt", ["support_blowing"], "support_root", {}),
        ("Div", ["support_root", "support_speed"], "support_a", {}),
        ("Mul", ["support_in_1", "support_radian"], "support_angle", {}),
        ("Cos", ["support_angle"], "support_cos", {}),
        ("Sin", ["support_angle"], "support_sin", {}),
        ("Mul", ["support_cos", "support_radius"], "support_x", {}),
        ("Mul", ["support_sin", "support_radius"], "support_y", {}),
    ]
    for j, (scalar, limits) in enumerate(zip(places.space.scalars, places.limits, strict=True)):
        constants[f"support_width_{j}"] = np.array(extent(*limits), _F32)
        source = f"support_in_{2 + j}"
        if scalar.logarithmic:
            constants["support_least"] = np.array(1e-6, _F32)
            steps += [
                ("Max", [source, "support_least"], f"support_held_{j}", {}),
                ("Log", [f"support_held_{j}"], f"support_log_{j}", {}),
            ]
            source = f"support_log_{j}"
        steps.append(("Div", [source, f"support_width_{j}"], f"support_scalar_{j}", {}))
        columns.append(f"support_scalar_{j}")
    if places.space.panels:
        columns += _tear_steps(places, steps, constants)
    steps += [
        ("Concat", columns, "support_point", {"axis": 1}),
        ("Unsqueeze", ["support_point", "support_axis"], "support_point_3", {}),
        ("Sub", ["support_point_3", "support_runs"], "support_between", {}),
        (
            "ReduceSumSquare",
            ["support_between", "support_last"],
            "support_squares",
            {"keepdims": 0},
        ),
        ("ReduceMin", ["support_squares", "support_axis"], "support_nearest", flat),
        ("Sqrt", ["support_nearest"], output, {}),
    ]
    return steps, constants


def _tear_steps(
    places: Places, steps: list[Step], constants: dict[str, np.ndarray]
) -> Sequence[str]:
    """Add the steps to the columns of a tear; return their names."""
    first = 2 + len(places.space.scalars)
    starts, lengths = places.panels()
    constants |= {
        "support_numbers": np.arange(1, len(starts) + 1, dtype=_F32)[None],
        "support_half": np.array(0.5, _F32),
        "support_starts": starts.astype(_F32)[None],
        "support_lengths": lengths.astype(_F32)[None],
        "support_wide": np.array(WIDE, _F32),
    }
    steps += [
        ("Sub", [f"support_in_{first}", "support_numbers"], "support_away", {}),
        ("Abs", ["support_away"], "support_off", {}),
        ("Less", ["support_off", "support_half"], "support_is", {}),
        ("Cast", ["support_is"], "support_there", {"to": 1}),
        ("Sub", [f"support_in_{first + 1}", "support_starts"], "support_into", {}),
        ("Div", ["support_into", "support_lengths"], "support_share", {}),
        ("Sub", ["support_share", "support_half"], "support_from_middle", {}),
        ("Mul", ["support_from_middle", "support_there"], "support_along", {}),
        ("Div", [f"support_in_{first + 2}", "support_wide"], "support_wideness", {}),
        ("Mul", ["support_there", "support_wideness"], "support_size", {}),
    ]
    return ["support_there", "support_along", "support_size"]
