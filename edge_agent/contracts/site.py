"""The site: a screenhouse, its screens, canopy, sensors and terrain.

House frame: x along the long side, y to its left, z up, origin at a ground corner, metres.
``x_axis_bearing`` turns it into the map: the compass bearing in which +x points.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from edge_agent.contracts.model import Contract

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Face = Literal["x0", "x1", "y0", "y1", "roof"]


class Footprint(Contract):
    """The box that the screens enclose."""

    length_x: Positive
    """Extent along x, m."""
    length_y: Positive
    """Extent along y, m."""
    height: Positive
    """Roof height, m."""
    x_axis_bearing: Annotated[float, Field(ge=0, lt=360)]
    """Compass bearing of +x, degrees clockwise from north."""


class Terrain(Contract):
    """The ground around the house."""

    roughness_length: Positive
    """Aerodynamic roughness length z0 of the surroundings, m."""
    reference_height: Positive
    """Height above ground at which a scenario's wind speed is stated, m."""


class Mast(Contract):
    """The wind measurement outside."""

    sensor: str
    """Name that its readings carry."""
    speed_height: Positive
    """Height of the anemometer, m above ground."""
    direction_height: Positive
    """Height of the wind vane, m above ground."""


class Screen(Contract):
    """Pressure-loss coefficient of a screen, K(U) = linear / U + constant.

    U is the approach velocity normal to the screen; the pressure jump is K rho U^2 / 2.
    """

    linear: NonNegative
    """Viscous part a, m/s."""
    constant: NonNegative
    """Inertial part b, dimensionless."""

    def loss_coefficient(self, speed: float) -> float:
        """Return K at `speed` (m/s, normal to the screen, > 0)."""
        return self.linear / speed + self.constant


class Panel(Contract):
    """A named piece of screen: a rectangle on one face of the house."""

    name: str
    """Unique; a tear is reported by it."""
    face: Face
    """``x0`` and ``x1`` are the walls at x = 0 and x = length_x; ``y0``, ``y1`` alike; ``roof``."""
    start: tuple[NonNegative, NonNegative]
    """Lower corner, m: (y, z) on x faces, (x, z) on y faces, (x, y) on the roof."""
    end: tuple[Positive, Positive]
    """Upper corner, m, in the same coordinates."""
    screen: Screen
    """Its loss when whole."""


class CanopyRow(Contract):
    """A row of trees: a box with volumetric drag."""

    start: tuple[NonNegative, NonNegative]
    """Lower corner (x, y), m."""
    end: tuple[Positive, Positive]
    """Upper corner (x, y), m."""
    height: Positive
    """Top of the crowns, m."""
    drag_area_density: NonNegative
    """Drag coefficient times leaf area density, Cd * LAD, 1/m."""


class InteriorSensor(Contract):
    """An anemometer inside the house."""

    name: str
    """Unique."""
    position: tuple[NonNegative, NonNegative, NonNegative]
    """(x, y, z) in the house frame, m."""


class OutputGrid(Contract):
    """The common grid that every simulation and surrogate of the site is given on."""

    cells: tuple[
        Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]
    ]
    """Number of equal cells (x, y, z) that fill the house."""


class Grid(Contract):
    """Cell centres of a regular grid in the house frame, m."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    z: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx): the order of every field array."""
        return (len(self.z), len(self.y), len(self.x))


class Site(Contract):
    """A screenhouse and the weather station beside it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Short name; part of topics and file names."""
    title: str
    """One line for people."""
    footprint: Footprint
    """The enclosed box."""
    terrain: Terrain
    """The ground around."""
    mast: Mast
    """The wind measurement outside."""
    output_grid: OutputGrid
    """The common output grid."""
    panels: tuple[Panel, ...]
    """Every piece of screen; gaps between panels are open."""
    canopy: tuple[CanopyRow, ...] = ()
    """Tree rows."""
    sensors: tuple[InteriorSensor, ...] = ()
    """Anemometers inside."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, names in (
            ("panel", [p.name for p in self.panels]),
            ("sensor", [s.name for s in self.sensors]),
        ):
            doubles = {n for n in names if names.count(n) > 1}
            if doubles:
                msg = f"{kind} names must be unique, these are not: {', '.join(sorted(doubles))}"
                raise ValueError(msg)
        box = (self.footprint.length_x, self.footprint.length_y, self.footprint.height)
        for sensor in self.sensors:
            if any(p > limit for p, limit in zip(sensor.position, box, strict=True)):
                msg = f"sensor {sensor.name} lies outside the house"
                raise ValueError(msg)
        for panel in self.panels:
            if any(a >= b for a, b in zip(panel.start, panel.end, strict=True)):
                msg = f"panel {panel.name}: start must be below end in both coordinates"
                raise ValueError(msg)
        return self

    def grid(self) -> Grid:
        """Return the cell centres of the output grid."""
        box = (self.footprint.length_x, self.footprint.length_y, self.footprint.height)
        axes = [
            tuple(float(v) for v in (np.arange(n) + 0.5) * (length / n))
            for n, length in zip(self.output_grid.cells, box, strict=True)
        ]
        return Grid(x=axes[0], y=axes[1], z=axes[2])
