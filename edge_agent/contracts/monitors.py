"""What the monitors are given: how they are tuned, and what a tear does to the interior sensors.

Signatures are simulated. One ``.npz`` file, no pickle: ``meta`` (JSON), ``wind_speed`` (m/s),
``wind_from_direction`` (degrees), ``change`` (hypotheses, speeds, directions, sensors).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from edge_agent.contracts import storage
from edge_agent.contracts.errors import InvalidMonitors
from edge_agent.contracts.model import Contract

MAX_BYTES = 64 * 2**20


class Hypothesis(Contract):
    """One thing that may have happened to the screens."""

    name: str
    """Unique, such as ``north at 42 m``."""
    kind: Literal["tear", "state"]
    """``state`` changes the whole house, as dust does: it explains away, and is no tear."""
    panel: str | None = None
    """Panel that is torn."""


class SignatureMeta(Contract):
    """What the arrays mean."""

    format: Literal["rbf-signatures/1"] = "rbf-signatures/1"
    """Version of this contract."""
    site: str
    """Name of the site."""
    site_digest: str
    """Of the site file that was simulated."""
    sensors: tuple[str, ...] = Field(min_length=1)
    """Interior sensors, in the order of the last axis."""
    hypotheses: tuple[Hypothesis, ...] = Field(min_length=1)
    """In the order of the first axis."""
    fidelity: str
    """Simulator and grid."""


class SeriesCalibration(Contract):
    """A cumulative sum on the block means of one series."""

    mean: float
    """Of the series in health."""
    deviation: Annotated[float, Field(gt=0)]
    """Standard deviation of its block means."""
    slack: Annotated[float, Field(ge=0)]
    """Of the cumulative sum, standard deviations."""
    threshold: Annotated[float, Field(gt=0)]
    """Of the cumulative sum, standard deviations."""
    block_seconds: Annotated[float, Field(gt=0)]
    """Length of a block, s."""
    run_length_days: Annotated[float, Field(gt=0)]
    """Mean time to a false alarm that the threshold was chosen for, days."""


class TearCalibration(Contract):
    """What the tear detector knows of a healthy house."""

    bias: tuple[tuple[float, ...], ...]
    """(sectors, sensors): usual error over the wind speed, by sector of wind direction."""
    precision: tuple[tuple[float, ...], ...]
    """(sensors, sensors): inverse covariance of the error over the wind speed."""
    inflation: tuple[float, ...]
    """Of each hypothesis: variance of a block's sum over that of independent errors."""
    threshold: Annotated[float, Field(gt=0)]
    """Of the cumulative sums."""
    block_seconds: Annotated[float, Field(gt=0, le=86_400)]
    """Length of a block, s; divides a day."""
    run_length_days: Annotated[float, Field(gt=0)]
    """Mean time to a false alarm that the threshold was chosen for, days."""
    days: Annotated[float, Field(gt=0)]
    """Length of the record behind it, days."""


class Calibration(Contract):
    """Everything that the monitors are tuned by; made on the site's own healthy record."""

    format: Literal["rbf-monitors/1"] = "rbf-monitors/1"
    """Version of this contract."""
    site: str
    """Name of the site."""
    made_from: str
    """What the record was, for people: a mast's, simulated interior sensors."""
    drift: dict[str, SeriesCalibration] = Field(default_factory=dict)
    """Input drift: by series (`edge_agent.monitors.series`)."""
    error: dict[str, SeriesCalibration] = Field(default_factory=dict)
    """Prediction error: by interior sensor."""
    tear: TearCalibration | None = None
    """The tear detector; needs the signatures beside it."""

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a JSON file; raises `InvalidMonitors`."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            msg = f"{path}: no calibration that can be used: {why}"
            raise InvalidMonitors(msg, file=str(path)) from error


@dataclass(frozen=True)
class Signatures:
    """Change of the wind speed at the interior sensors under each hypothesis."""

    meta: SignatureMeta
    wind_speed: np.ndarray
    """(s,) m/s at the reference height, ascending, at least two."""
    wind_from_direction: np.ndarray
    """(d,) degrees, equally spaced over the circle, from zero."""
    change: np.ndarray
    """(hypotheses, s, d, sensors) m/s: torn minus whole."""

    def at(self, speed: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return the changes at some winds, bilinear; beyond the speeds in proportion to them.

        Parameters
        ----------
        speed : (n,) array, m/s at the reference height
        direction : (n,) array, degrees

        Returns
        -------
        (n, hypotheses, sensors) array, m/s
        """
        return table_at(
            self.change, self.wind_speed, len(self.wind_from_direction), speed, direction
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            meta=np.frombuffer(self.meta.canonical_json(), np.uint8),
            wind_speed=self.wind_speed,
            wind_from_direction=self.wind_from_direction,
            change=self.change.astype(np.float32),
        )
        storage.write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Signatures:
        """Read the file.

        Raises
        ------
        InvalidMonitors
            If it cannot be read, or its arrays do not fit together.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                msg = f"{path}: larger than {MAX_BYTES} bytes"
                raise InvalidMonitors(msg, file=str(path))
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays: dict[str, Any] = {k: file[k] for k in file.files}
            meta = SignatureMeta.model_validate_json(arrays["meta"].tobytes())
            speed, direction = arrays["wind_speed"], arrays["wind_from_direction"]
            change = arrays["change"].astype(float)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            msg = f"{path}: no signatures that can be used: {why}"
            raise InvalidMonitors(msg, file=str(path)) from error
        shape = (len(meta.hypotheses), len(speed), len(direction), len(meta.sensors))
        even = np.arange(len(direction)) * 360.0 / max(1, len(direction))
        if (
            change.shape != shape
            or len(speed) < 2
            or np.any(np.diff(speed) <= 0)
            or not np.allclose(direction, even)
            or not np.isfinite(change).all()
        ):
            msg = f"{path}: the arrays of the signatures do not fit together"
            raise InvalidMonitors(msg, file=str(path))
        return cls(meta, speed, direction, change)


def table_at(
    table: np.ndarray,
    speeds: np.ndarray,
    directions: int,
    speed: np.ndarray,
    direction: np.ndarray,
) -> np.ndarray:
    """Return a table of winds at some winds.

    Bilinear in speed and direction; beyond the first and the last speed in proportion to speed,
    as a flow through screens nearly is.

    Parameters
    ----------
    table : (k, s, d, m) array
    speeds : (s,) array, m/s, ascending
    directions : int
        d: equally spaced over the circle, from zero.
    speed : (n,) array, m/s
    direction : (n,) array, degrees

    Returns
    -------
    (n, k, m) array
    """
    speed = np.asarray(speed, float)
    inside = np.clip(speed, speeds[0], speeds[-1])
    low = np.clip(np.searchsorted(speeds, inside, side="right") - 1, 0, len(speeds) - 2)
    share = (inside - speeds[low]) / (speeds[low + 1] - speeds[low])
    turn = (np.asarray(direction, float) % 360.0) * directions / 360.0
    first = np.floor(turn).astype(int)
    part = turn - first
    first %= directions
    second = (first + 1) % directions
    found = np.zeros((len(speed), table.shape[0], table.shape[3]))
    for rows, weight in ((low, 1 - share), (low + 1, share)):
        for columns, other in ((first, 1 - part), (second, part)):
            piece = np.moveaxis(table[:, rows, columns, :], 1, 0)
            found += (weight * other)[:, None, None] * piece
    return np.asarray(found * (speed / inside)[:, None, None])
