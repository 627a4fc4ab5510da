"""Feature maps: how measurable quantities become a model's inputs.

One pure function each, named in the release manifest with its parameters, shared by training and
agent, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from edge_agent.contracts.errors import InvalidInput
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site

Positive = Annotated[float, Field(gt=0)]
#: The values of one averaging window by (sensor, quantity).
SourceValues = Mapping[tuple[str, str], Sequence[float]]
#: Stands in a sensor's column for a reading that is not there, m/s; no speed is below zero.
SILENT = -1.0


class InputVariable(Contract):
    """One column of a model's input."""

    name: str
    """CF-like name."""
    unit: str
    """UDUNITS spelling."""
    minimum: float
    """Lower end of the range covered by training, in `unit`."""
    maximum: float
    """Upper end of the range covered by training, in `unit`."""
    default: float | None = None
    """Taken where a caller leaves the column out: an estimated state of the house, `SILENT` for an
    interior sensor; none if it must be given. Columns with a default come last."""


class ReadingSource(Contract):
    """A sensor quantity that the map needs."""

    sensor: str
    """Sensor name."""
    quantity: str
    """Quantity name."""


class MastLogLaw(Contract):
    """Feature map ``mast_log_law/1``: mast speed and direction to reference-height wind.

    Readings within one averaging window become a mean speed and a vector-mean direction; the speed
    is brought from the mast's height to the reference height by the neutral logarithmic law
    U(z) = (u* / kappa) ln(z / z0) (Stull 1988, An Introduction to Boundary Layer Meteorology,
    section 9.7), so U_ref = U_mast ln(z_ref / z0) / ln(z_mast / z0).
    """

    name: str = Field(default="mast_log_law/1", pattern=r"^mast_log_law/1$")
    """Identifies the function."""
    sensor: str
    """The mast's sensor name."""
    measurement_height: Positive
    """Height of the anemometer, m."""
    reference_height: Positive
    """Height at which the model's wind speed is stated, m."""
    roughness_length: Positive
    """z0, m."""
    averaging_seconds: Positive = 600.0
    """Length of the averaging window, s; the mast record's own is ten minutes."""

    @classmethod
    def for_site(cls, site: Site) -> MastLogLaw:
        """Return the map of a site."""
        return cls(
            sensor=site.mast.sensor,
            measurement_height=site.mast.speed_height,
            reference_height=site.terrain.reference_height,
            roughness_length=site.terrain.roughness_length,
        )

    @property
    def sources(self) -> tuple[ReadingSource, ...]:
        """The readings that one evaluation needs."""
        return (
            ReadingSource(sensor=self.sensor, quantity="wind_speed"),
            ReadingSource(sensor=self.sensor, quantity="wind_from_direction"),
        )

    @property
    def optional(self) -> tuple[ReadingSource, ...]:
        """Readings that an evaluation uses where they are there: none."""
        return ()

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, unit) of each model input that comes from readings, in order."""
        return (("wind_speed", "m s-1"), ("wind_from_direction", "degree"))

    def from_sources(self, values: SourceValues) -> np.ndarray:
        """Return `from_readings` of values by (sensor, quantity); other sensors' are ignored."""
        return self.from_readings({q: v for (s, q), v in values.items() if s == self.sensor})

    def from_readings(self, values: Mapping[str, Sequence[float]]) -> np.ndarray:
        """Return the model inputs of one averaging window.

        Parameters
        ----------
        values : mapping from quantity to the window's values
            ``wind_speed`` in m/s at the measurement height, ``wind_from_direction`` in degrees;
            equal lengths, at least one.

        Returns
        -------
        inputs : (2,) float32
            Wind speed at the reference height (m/s), direction in [0, 360) degrees.

        Raises
        ------
        InvalidInput
            If a quantity is missing, empty, of unequal length or not finite.
        """
        try:
            speed = np.asarray(values["wind_speed"], dtype=float)
            direction = np.asarray(values["wind_from_direction"], dtype=float)
        except KeyError as error:
            msg = f"reading {error.args[0]!r} of sensor {self.sensor!r} is missing"
            raise InvalidInput(msg, quantity=error.args[0]) from error
        if speed.size == 0 or speed.shape != direction.shape:
            msg = f"{speed.size} speeds and {direction.size} directions in one window"
            raise InvalidInput(msg, quantity="wind_speed")
        if not (np.isfinite(speed).all() and np.isfinite(direction).all()):
            msg = "a reading in the window is not finite"
            raise InvalidInput(msg, quantity="wind_speed")
        rad = np.deg2rad(direction)
        # Weighted by speed: the direction of the mean wind vector. Calm falls back to unit weights.
        weight = speed / speed.max() if speed.max() > 0 else np.ones_like(speed)
        mean = np.arctan2((weight * np.sin(rad)).sum(), (weight * np.cos(rad)).sum())
        factor = log_law_factor(
            self.measurement_height, self.reference_height, self.roughness_length
        )
        return np.array([speed.mean() * factor, np.rad2deg(mean) % 360.0], dtype=np.float32)

    def from_wind(self, speed: np.ndarray, from_direction: np.ndarray) -> np.ndarray:
        """Return the model inputs of winds already at the reference height.

        Parameters
        ----------
        speed : (n,) array, m/s
        from_direction : (n,) array, degrees

        Returns
        -------
        inputs : (n, 2) float32
        """
        return np.stack([np.asarray(speed), np.asarray(from_direction) % 360.0], axis=-1).astype(
            np.float32
        )


class MastAndSensors(Contract):
    """Feature map ``mast_and_sensors/1``: the mast's wind, and what interior anemometers read.

    The mast's columns are those of `MastLogLaw`; then comes the mean wind speed of each interior
    sensor over the window, or `SILENT`.
    """

    name: str = Field(default="mast_and_sensors/1", pattern=r"^mast_and_sensors/1$")
    """Identifies the function."""
    mast: MastLogLaw
    """How the mast's readings become the reference-height wind."""
    sensors: tuple[str, ...] = Field(min_length=1)
    """Interior sensors, in the order of their columns."""

    @classmethod
    def for_site(cls, site: Site) -> MastAndSensors:
        """Return the map of a site with all of its interior sensors."""
        return cls(mast=MastLogLaw.for_site(site), sensors=tuple(s.name for s in site.sensors))

    @property
    def sources(self) -> tuple[ReadingSource, ...]:
        """The readings that one evaluation needs."""
        return self.mast.sources

    @property
    def optional(self) -> tuple[ReadingSource, ...]:
        """Readings that an evaluation uses where they are there."""
        return tuple(ReadingSource(sensor=s, quantity="wind_speed") for s in self.sensors)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, unit) of each model input that comes from readings, in order."""
        return (*self.mast.columns, *((sensor_column(s), "m s-1") for s in self.sensors))

    def from_sources(self, values: SourceValues) -> np.ndarray:
        """Return the model inputs of one averaging window.

        Parameters
        ----------
        values : mapping from (sensor, quantity) to the window's values
            The mast's as in `MastLogLaw.from_readings`; interior sensors may be left out.

        Returns
        -------
        inputs : (2 + sensors,) float32

        Raises
        ------
        InvalidInput
            As `MastLogLaw.from_readings`, and if a sensor's value is not finite or below zero.
        """
        wind = self.mast.from_sources(values)
        speeds = [self._mean(sensor, values.get((sensor, "wind_speed"))) for sensor in self.sensors]
        return np.concatenate([wind, np.array(speeds, np.float32)])

    @staticmethod
    def _mean(sensor: str, values: Sequence[float] | None) -> float:
        if values is None or len(values) == 0:
            return SILENT
        speed = np.asarray(values, dtype=float)
        if not (np.isfinite(speed).all() and (speed >= 0).all()):
            msg = f"a wind speed of sensor {sensor!r} is below zero or not finite"
            raise InvalidInput(msg, quantity="wind_speed")
        return float(speed.mean())


FeatureMap = MastLogLaw | MastAndSensors


def sensor_column(sensor: str) -> str:
    """Return the name of the model input that holds an interior sensor's wind speed."""
    return f"{sensor}_wind_speed"


def log_law_factor(from_height: float, to_height: float, roughness_length: float) -> float:
    """Return U(to_height) / U(from_height) of the neutral logarithmic wind profile.

    Parameters
    ----------
    from_height, to_height, roughness_length : float, m
        Both heights must exceed the roughness length.

    Raises
    ------
    InvalidInput
        If a height does not exceed the roughness length.
    """
    if min(from_height, to_height) <= roughness_length:
        msg = f"heights must exceed the roughness length {roughness_length} m"
        raise InvalidInput(msg, from_height=from_height, to_height=to_height)
    return float(np.log(to_height / roughness_length) / np.log(from_height / roughness_length))
