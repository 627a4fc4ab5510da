"""Small real releases in a repository folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.contracts import storage
from edge_agent.contracts.features import (
    SILENT,
    InputVariable,
    MastAndSensors,
    MastLogLaw,
    sensor_column,
)
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import (
    ROW_DIMS,
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


#: Interior sensors that a release may take, and a state of the house that it may be told.
INSIDE = ("middle", "corner")
STATE = {"screen_loss_factor": 1.4, "tear_width": 0.0}
DIAGNOSTICS = ("distance", "innovation")


@lru_cache(256)
def model_bytes(
    bias: float = 0.0,
    *,
    cells: int = CELLS,
    shape: tuple[int, ...] = GRID.shape,
    nan_below: float | None = None,
    state: int = 0,
    inside: int = 0,
    diagnostics: bool = False,
) -> bytes:
    """wind = inputs @ W + bias, wind_std = |wind| / 10, both (batch, 3, nz, ny, nx).

    With `nan_below`, m/s, everything is NaN at wind speeds below it. Beside the wind it takes so
    many columns of the house's state and so many of interior sensors; `diagnostics` are those of
    `expected_diagnostics`.
    """
    columns = 2 + state + inside
    weights = _weights(columns, cells)
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
    if diagnostics:
        flat += [
            helper.make_node("MatMul", ["inputs", "is_speed"], ["speeds"]),
            helper.make_node("Sub", ["speeds", "one"], ["less"]),
            helper.make_node("Sqrt", ["less"], ["far"]),
            helper.make_node("Reshape", ["far", "rows"], ["distance"]),
            helper.make_node("MatMul", ["inputs", "is_inside"], ["sums"]),
            helper.make_node("Relu", ["sums"], ["off"]),
            helper.make_node("Reshape", ["off", "rows"], ["innovation"]),
        ]
        is_inside = np.float32([[0]] * (2 + state) + [[1]] * inside)
        constants += [
            numpy_helper.from_array(np.float32([[1]] + [[0]] * (columns - 1)), "is_speed"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
            numpy_helper.from_array(is_inside, "is_inside"),
            numpy_helper.from_array(np.array([-1], np.int64), "rows"),
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
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", columns])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, *shape])
            for n in ("wind", "wind_std")
        ]
        + [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch"])
            for n in (DIAGNOSTICS if diagnostics else ())
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
    weights = _weights(inputs.shape[1], int(np.prod(grid.shape)))
    return (inputs @ weights + np.float32(bias)).reshape(-1, 3, *grid.shape).astype(np.float32)


def expected_diagnostics(inputs: np.ndarray, inside: int) -> dict[str, np.ndarray]:
    """(batch,) float32 each: the root of the wind speed above 1 m/s, which is NaN below; and what
    the interior sensors, the last columns, read together."""
    return {
        "distance": np.sqrt(inputs[:, 0] - 1),
        "innovation": np.maximum(0, inputs[:, inputs.shape[1] - inside :].sum(axis=1)),
    }


def _weights(columns: int, cells: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, (columns, 3 * cells)).astype(np.float32)


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
    state: Mapping[str, float] | None = None,
    inside: tuple[str, ...] = (),
    limits: Mapping[str, float] | None = None,
    diagnostic_error: float = 0.0,
) -> Made:
    """Write a release and (with `publish`) point the channel at it.

    `golden_error` (m/s) is added to the expected outputs, so that the release must be refused;
    `diagnostic_error` to the expected diagnostics. `state` is what is taken where callers say
    nothing of the house, `inside` the interior sensors that it takes; with `limits` it has
    diagnostics.
    """
    state = state or {}
    told = [[*state.values()]] * 3
    heard = [[SILENT] * len(inside), [0.5] * len(inside), [SILENT, 1.5][: len(inside)]]
    winds = [[2.0, 10.0], [5.0, 180.0], [9.0, 300.0]]
    inputs = np.hstack([winds, told, heard]).astype(np.float32)
    outputs = {"wind": expected_wind(inputs, bias, grid)}
    outputs["wind_std"] = np.abs(outputs["wind"]) * np.float32(0.1)
    outputs["wind"] = outputs["wind"] + np.float32(golden_error)
    if limits is not None:
        for output, values in expected_diagnostics(inputs, len(inside)).items():
            outputs[output] = values + np.float32(diagnostic_error)
    if model is None:
        model = model_bytes(
            bias,
            cells=int(np.prod(grid.shape)),
            shape=grid.shape,
            state=len(state),
            inside=len(inside),
            diagnostics=limits is not None,
        )
    files = {"model.onnx": model, "golden_inputs.npy": _npy(inputs)}
    files |= {f"golden_{output}.npy": _npy(values) for output, values in outputs.items()}
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
        feature_map=MastAndSensors(mast=FEATURES, sensors=inside) if inside else FEATURES,
        inputs=(
            InputVariable(name="wind_speed", unit="m s-1", minimum=0.0, maximum=15.0),
            InputVariable(name="wind_from_direction", unit="degree", minimum=0.0, maximum=360.0),
            *(
                InputVariable(name=n, unit="1", minimum=0.0, maximum=20.0, default=v)
                for n, v in state.items()
            ),
            *(
                InputVariable(
                    name=sensor_column(n),
                    unit="m s-1",
                    minimum=SILENT,
                    maximum=10.0,
                    default=SILENT,
                )
                for n in inside
            ),
        ),
        outputs=tuple(
            OutputVariable(name=n, unit="1", dims=ROW_DIMS)
            if n in DIAGNOSTICS
            else OutputVariable(name=n, unit="m s-1")
            for n in outputs
        ),
        grid=grid,
        sensors=SENSORS,
        model=targets["model.onnx"],
        golden=Golden(
            inputs=targets["golden_inputs.npy"],
            outputs={output: targets[f"golden_{output}.npy"] for output in outputs},
            absolute_tolerance=1e-3,
        ),
        training=TrainingData(digest=digest, size=8, data_until=data_until),
        frozen_sets={"selection": frozen, "calibration": frozen, "evaluation": frozen},
        scores={"selection": scores, "evaluation": scores},
        uncertainty=Uncertainty(
            method="split_conformal", level=0.9, factor=1.7, limits=dict(limits or {})
        ),
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
