"""Small real releases in a repository folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.contracts import storage
from edge_agent.contracts.features import InputVariable, MastLogLaw
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import (
    FrozenSet,
    Golden,
    OutputVariable,
    Release,
    ScoreSet,
    TargetFile,
    TrainingData,
    Uncertainty,
)
from edge_agent.contracts.repository import Channel, Index, ReleaseRef, target_file
from edge_agent.contracts.site import Grid, InteriorSensor

from .owner import Owner

NAME = "test-house"
GRID = Grid(x=(1.0, 3.0, 5.0, 7.0), y=(1.0, 3.0, 5.0), z=(0.5, 1.5))
CELLS = 24
SENSORS = (
    InteriorSensor(name="middle", position=(4.0, 3.0, 1.0)),
    InteriorSensor(name="corner", position=(1.0, 1.0, 0.5)),
)
FEATURES = MastLogLaw(
    sensor="mast", measurement_height=40.0, reference_height=10.0, roughness_length=0.05
)


@lru_cache(256)
def model_bytes(
    bias: float = 0.0,
    *,
    cells: int = CELLS,
    shape: tuple[int, ...] = GRID.shape,
    nan_below: float | None = None,
) -> bytes:
    """wind = inputs @ W + bias, wind_std = |wind| / 10, both (batch, 3, nz, ny, nx).

    With `nan_below`, m/s, everything is NaN at wind speeds below it.
    """
    rng = np.random.default_rng(7)
    weights = rng.normal(0, 0.1, (2, 3 * cells)).astype(np.float32)
    flat = [helper.make_node("MatMul", ["inputs", "weights"], ["flat"])]
    constants = []
    if nan_below is not None:
        flat = [
            helper.make_node("MatMul", ["inputs", "weights"], ["plain"]),
            helper.make_node("Gather", ["inputs", "first"], ["speed"], axis=1),
            helper.make_node("Sub", ["speed", "least"], ["above"]),
            helper.make_node("Sqrt", ["above"], ["root"]),
            helper.make_node("Mul", ["root", "nought"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["flat"]),
        ]
        constants = [
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.full(1, nan_below, np.float32), "least"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nought"),
        ]
    graph = helper.make_graph(
        [
            *flat,
            helper.make_node("Add", ["flat", "bias"], ["moved"]),
            helper.make_node("Reshape", ["moved", "shape"], ["wind"]),
            helper.make_node("Abs", ["wind"], ["size"]),
            helper.make_node("Mul", ["size", "tenth"], ["wind_std"]),
        ],
        "test",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, *shape])
            for n in ("wind", "wind_std")
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.full(1, bias, np.float32), "bias"),
            numpy_helper.from_array(np.full(1, 0.1, np.float32), "tenth"),
            numpy_helper.from_array(np.array([-1, 3, *shape], np.int64), "shape"),
            *constants,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def expected_wind(inputs: np.ndarray, bias: float = 0.0, grid: Grid = GRID) -> np.ndarray:
    """(batch, 3, nz, ny, nx) float32, m/s: what the model gives."""
    cells = int(np.prod(grid.shape))
    weights = np.random.default_rng(7).normal(0, 0.1, (2, 3 * cells)).astype(np.float32)
    return (inputs @ weights + np.float32(bias)).reshape(-1, 3, *grid.shape).astype(np.float32)


@dataclass
class Made:
    """A release as it lies in the repository."""

    release: Release
    ref: ReleaseRef
    repository: Path

    def path(self, target: TargetFile) -> Path:
        return target_file(self.repository, target)


def make_release(
    repository: Path,
    version: int,
    bias: float = 0.0,
    *,
    name: str = NAME,
    golden_error: float = 0.0,
    data_until: datetime | None = datetime(2016, 6, 1, tzinfo=UTC),
    channel: Channel = "stable",
    publish: bool = True,
    model: bytes | None = None,
    grid: Grid = GRID,
) -> Made:
    """Write a release and (with `publish`) point the channel at it.

    `golden_error` (m/s) is added to the expected outputs, so that the release must be refused.
    """
    inputs = np.array([[2.0, 10.0], [5.0, 180.0], [9.0, 300.0]], dtype=np.float32)
    wind = expected_wind(inputs, bias, grid)
    cells = int(np.prod(grid.shape))
    files = {
        "model.onnx": model_bytes(bias, cells=cells, shape=grid.shape) if model is None else model,
        "golden_inputs.npy": _npy(inputs),
        "golden_wind.npy": _npy(wind + np.float32(golden_error)),
        "golden_wind_std.npy": _npy(np.abs(wind) * np.float32(0.1)),
    }
    targets = {
        role: _put(repository, f"{name}/{version}/{role}", data) for role, data in files.items()
    }
    digest = sha256(b"none")
    frozen = FrozenSet(digest=digest, size=4, fidelity="test")
    scores = ScoreSet(rmse=0.1, relative_l2=0.1, sensor_mae=0.1, coverage=0.9, baselines={})
    release = Release(
        name=name,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        site_digest=digest,
        family="test",
        feature_map=FEATURES,
        inputs=(
            InputVariable(name="wind_speed", unit="m s-1", minimum=0.0, maximum=15.0),
            InputVariable(name="wind_from_direction", unit="degree", minimum=0.0, maximum=360.0),
        ),
        outputs=(
            OutputVariable(name="wind", unit="m s-1"),
            OutputVariable(name="wind_std", unit="m s-1"),
        ),
        grid=grid,
        sensors=SENSORS,
        model=targets["model.onnx"],
        golden=Golden(
            inputs=targets["golden_inputs.npy"],
            outputs={
                "wind": targets["golden_wind.npy"],
                "wind_std": targets["golden_wind_std.npy"],
            },
            absolute_tolerance=1e-3,
        ),
        training=TrainingData(digest=digest, size=8, data_until=data_until),
        frozen_sets={"selection": frozen, "calibration": frozen, "evaluation": frozen},
        scores={"selection": scores, "evaluation": scores},
        uncertainty=Uncertainty(method="split_conformal", level=0.9, factor=1.7),
        environment={"python": "3.11"},
    )
    manifest = _put(repository, f"{name}/{version}/release.json", release.canonical_json())
    made = Made(release, ReleaseRef(version=version, manifest=manifest), repository)
    if publish:
        publish_release(made, channel)
    return made


def publish_release(made: Made, channel: Channel = "stable", *, owner: Owner | None = None) -> None:
    """Sign a release, list it in the index and point the channel at it."""
    owner = owner or Owner(made.repository)
    name = made.release.name
    index = owner.index(name)
    refs = {r.version: r for r in index.releases} | {made.ref.version: made.ref}
    earlier = {*index.history.get(channel, ()), index.channels.get(channel, 0)}
    changes = {
        "releases": tuple(refs[v] for v in sorted(refs)),
        "channels": {**index.channels, channel: made.ref.version},
        "history": index.history
        | {channel: tuple(sorted(v for v in earlier if 0 < v < made.ref.version))},
    }
    index = Index.model_validate({**dict(index), **changes})
    owner.name(made.ref.manifest, *made.release.files())
    owner.put_index(name, index.canonical_json())
    owner.publish()


def _put(repository: Path, path: str, data: bytes) -> TargetFile:
    target = TargetFile(path=path, sha256=sha256(data), length=len(data))
    storage.write_bytes(target_file(repository, target), data)
    return target


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


if __name__ == "__main__":
    import sys

    make_release(
        Path(sys.argv[1]), int(sys.argv[2]), bias=float(sys.argv[2]) / 100, name=sys.argv[3]
    )
