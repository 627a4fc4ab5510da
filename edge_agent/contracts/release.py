"""The release manifest: written by publish, read by the agent.

A release is a folder of immutable files, each named by its digest, and this manifest, which is
itself named by its digest in the repository's index (`edge_agent.contracts.repository`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from edge_agent.contracts.features import FeatureMap, InputVariable
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Grid, InteriorSensor
from edge_agent.contracts.site_state import SiteState

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


#: Axes of an output that is a field, and of one that is a number a row.
FIELD_DIMS = ("batch", "component", "z", "y", "x")
ROW_DIMS = ("batch",)


class TargetFile(Contract):
    """One file of the repository's ``targets/``."""

    path: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
    """Relative to ``targets/``; carries the version; the stored basename starts with the digest.

    No part of it starts with a dot, so it cannot leave the folder."""
    sha256: Digest
    """Of the bytes."""
    length: Annotated[int, Field(ge=0)]
    """Bytes."""


class OutputVariable(Contract):
    """One output tensor of the model."""

    name: Literal["wind", "wind_std", "distance", "innovation"]
    """``wind``: the prediction; ``wind_std``: its standard deviation, before calibration.
    ``distance``: of the inputs to the nearest training run; ``innovation``: how far the interior
    sensors are from what the model expects of them, root mean square of standard deviations."""
    unit: str
    """UDUNITS spelling."""
    dims: tuple[str, ...] = FIELD_DIMS
    """Axes in order; component is (x_wind, y_wind, upward_air_velocity) in the house frame. A
    diagnostic has one value a row: ``("batch",)``."""

    @property
    def diagnostic(self) -> bool:
        """Whether it is one number a row and no field."""
        return self.dims == ROW_DIMS


class ScoreSet(Contract):
    """Scores on one frozen set."""

    rmse: float
    """Root mean square error of the interior wind vector, m/s."""
    relative_l2: float
    """Mean over scenarios of |error|_2 / |truth|_2 of the interior wind vector."""
    sensor_mae: float | None
    """Mean absolute error of wind speed at the sensor positions, m/s; none without sensors."""
    coverage: Fraction
    """Share of interior values inside the calibrated interval."""
    baselines: dict[str, float]
    """RMSE of each baseline on the same set, m/s."""


class FrozenSet(Contract):
    """A set of simulations that no training sees."""

    digest: Digest
    """Of the sorted simulation digests."""
    size: Annotated[int, Field(ge=1)]
    """Number of simulations."""
    fidelity: str
    """Simulator and grid they were made with."""
    corrected: bool = True
    """Whether the release's correction, if it has one, was added to them."""


class TrainingData(Contract):
    """What the surrogate learnt from."""

    digest: Digest
    """Of the sorted simulation digests."""
    size: Annotated[int, Field(ge=1)]
    """Number of simulations."""
    data_until: datetime | None
    """Data time of the newest reading that steered them; none if none did."""
    correction: Digest | None = None
    """Of the pairs of runs that a dearer solver corrected them with; none if it did not."""


class Uncertainty(Contract):
    """How ``wind_std`` becomes an interval: wind +- factor * wind_std."""

    method: Literal["split_conformal"]
    """Split conformal prediction on the calibration set."""
    level: Fraction
    """Nominal coverage."""
    factor: Annotated[float, Field(gt=0)]
    """Multiplies ``wind_std``."""
    limits: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Of a diagnostic output: the largest value on the calibration set. Beyond it the interval is
    vouched for by nothing, and an answer counts as out of range."""


class ReadingErrors(Contract):
    """What a model that takes interior sensors assumes of readings and of the state it is told."""

    sensor_relative: Annotated[float, Field(ge=0)] = 0.12
    """Standard error of an interior sensor's ten-minute mean, relative: gusts and calibration."""
    sensor_absolute: Annotated[float, Field(gt=0)] = 0.05
    """Standard error of an interior sensor's ten-minute mean, m/s."""
    screen_loss: Annotated[float, Field(ge=0)] = 0.2
    """Standard error of the natural logarithm of the screens' loss factor."""
    mast_speed: Annotated[float, Field(ge=0)] = 0.0
    """Standard error of the mast's wind speed as the house's, relative."""
    mast_direction: Annotated[float, Field(ge=0, le=90)] = 0.0
    """Standard error of the mast's wind direction as the house's, degrees."""


class Golden(Contract):
    """Examples that whoever loads the release runs first."""

    inputs: TargetFile
    """(n, inputs) float32, ``.npy``."""
    outputs: dict[str, TargetFile]
    """Expected tensor of each output, ``.npy``: float32, or whole numbers of `step`."""
    step: Annotated[float, Field(gt=0)] = 1.0
    """What one unit of the expected tensors is, in the output's unit."""
    absolute_tolerance: Annotated[float, Field(gt=0)]
    """In the output's unit."""


class Delta(Contract):
    """A shorter way to the model, for devices that have the one before."""

    base_version: Annotated[int, Field(ge=1)]
    """Release that it starts from."""
    base_sha256: Digest
    """Of that release's model."""
    file: TargetFile
    """In the format of `edge_agent.contracts.delta`; makes the model, bit for bit."""
    bits: Annotated[int, Field(ge=2, le=8)]
    """Bits of a weight's difference before packing."""


class Provenance(Contract):
    """Who made a release, with what, from what."""

    code: str
    """Version of this code; in a git checkout with the commit."""
    signed_by: tuple[str, ...]
    """TUF ids of the keys that may sign target files, at the time of publication."""
    lineage: TargetFile
    """Every simulation that was used, and for what; devices do not download it."""


class Release(Contract):
    """A published surrogate."""

    format: Literal["rbf-release/1"] = "rbf-release/1"
    """Version of this contract."""
    name: str
    """Model name; the site's."""
    version: Annotated[int, Field(ge=1)]
    """Only grows."""
    created: datetime
    """Wall time of publication, UTC."""
    site_digest: Digest
    """Of the site file it was made for."""
    family: str
    """Surrogate family."""
    feature_map: FeatureMap
    """How readings become inputs."""
    inputs: tuple[InputVariable, ...]
    """Columns of the input tensor ``inputs`` (batch, n) float32, in order."""
    outputs: tuple[OutputVariable, ...]
    """Output tensors in order, all float32."""
    grid: Grid
    """Cell centres of the output grid."""
    sensors: tuple[InteriorSensor, ...]
    """Interior sensors of the site."""
    model: TargetFile
    """The ONNX file."""
    delta: Delta | None = None
    """Its difference to an earlier release's; none if only the full file is worth it."""
    golden: Golden
    """Examples to run before serving."""
    training: TrainingData
    """What it learnt from."""
    site_state: SiteState | None = None
    """State of the house that its simulations were made for; none: as in the site file."""
    frozen_sets: dict[Literal["selection", "calibration", "evaluation"], FrozenSet]
    """The three disjoint frozen sets."""
    scores: dict[Literal["selection", "evaluation"], ScoreSet]
    """Selection decided; evaluation is only reported."""
    uncertainty: Uncertainty
    """Calibration of the intervals."""
    reading_errors: ReadingErrors | None = None
    """What it was scored under; none if it takes no interior sensors."""
    provenance: Provenance | None = None
    """Where it comes from; none in releases from before there were signatures."""
    environment: dict[str, str]
    """Versions of what made it: python, numpy, onnx, onnxruntime, reverse-backfill."""

    def files(self) -> tuple[TargetFile, ...]:
        """Return every file of the release but the manifest."""
        delta = () if self.delta is None else (self.delta.file,)
        return (self.model, *delta, self.golden.inputs, *self.golden.outputs.values())
