"""The two models of the edge benchmarks, made from seeds alone, and releases of them.

``pod``: two linear layers over eight modes, 0.1 MB, 12 KiB an answer. ``decoder``: dense layers and
three transposed convolutions, 1 MB, 36 KiB an answer. Both give ``wind`` and ``wind_std``.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from apps.repository import edits, roots
from apps.repository.chain import TIMESTAMP
from apps.repository.keys import new_passphrase
from apps.repository.repository import Repository
from apps.repository.store import FolderStore
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
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.contracts.site import Grid

NAME = "bench"
#: (nz, ny, nx) of each model's outputs.
GRIDS = {"pod": (4, 8, 16), "decoder": (6, 16, 16)}


class _Graph:
    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.at = "inputs"

    def constant(self, values: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def random(self, *shape: int) -> str:
        scale = 1.0 / np.sqrt(np.prod(shape[:-1] if len(shape) == 2 else shape[:2]))
        return self.constant(self._rng.normal(0, scale, shape).astype(np.float32))

    def add(self, kind: str, *more: str, output: str | None = None, **attributes: object) -> None:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.at, *more], [output], **attributes))
        self.at = output

    def dense(self, wide_in: int, wide_out: int) -> None:
        self.add("MatMul", self.random(wide_in, wide_out))
        self.add("Add", self.random(1, wide_out))

    def reshape(self, *shape: int, output: str | None = None) -> None:
        self.add("Reshape", self.constant(np.array(shape, np.int64)), output=output)

    def upsample(self, channels_in: int, channels_out: int) -> None:
        weights = self.random(channels_in, channels_out, 4, 4)
        self.add("ConvTranspose", weights, kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4)


def model(kind: str, seed: int = 0) -> bytes:
    """Return the ONNX file of a model; equal bytes for equal arguments."""
    grid = GRIDS[kind]
    cells = 3 * int(np.prod(grid))
    graph = _Graph(seed)
    graph.add("Mul", graph.constant(np.array([[0.1, 0.01]], np.float32)))
    if kind == "pod":
        graph.dense(2, 8)
        graph.dense(8, 2 * cells)
    else:
        graph.dense(2, 128)
        graph.add("Tanh")
        graph.dense(128, 96)
        graph.add("Tanh")
        graph.dense(96, 32 * 8 * 9)
        graph.add("Tanh")
        graph.reshape(-1, 32, 8, 9)
        for wide_in, wide_out in ((32, 32), (32, 16), (16, 2)):
            graph.upsample(wide_in, wide_out)
            graph.add("Tanh")
        graph.reshape(-1, 2 * cells)
    graph.reshape(-1, 2, cells)
    halves = helper.make_node("Split", [graph.at], ["a", "b"], axis=1, num_outputs=2)
    graph.nodes.append(halves)
    for half, name in (("a", "wind"), ("b", "wind_std")):
        graph.at = half
        graph.reshape(-1, 3, *grid, output=name)
    made = helper.make_graph(
        graph.nodes,
        kind,
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3, *grid])
            for n in ("wind", "wind_std")
        ],
        graph.weights,
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def write_release(repository: Path, version: int, kind: str) -> None:
    """Write a release into a repository folder and point ``stable`` at it.

    Parameters
    ----------
    repository : Path
    version : int
        Also the seed of its weights.
    kind : str
        One of `GRIDS`.
    """
    import onnxruntime as ort

    data = model(kind, version)
    inputs = np.array([[2.0, 10.0], [5.0, 180.0], [9.0, 300.0]], np.float32)
    outputs = ort.InferenceSession(data).run(["wind", "wind_std"], {"inputs": inputs})

    files: dict[TargetFile, bytes] = {}

    def put(role: str, content: bytes) -> TargetFile:
        path = f"{NAME}/{version}/{role}"
        target = TargetFile(path=path, sha256=sha256(content), length=len(content))
        files[target] = content
        return target

    nz, ny, nx = GRIDS[kind]
    digest = sha256(b"none")
    frozen = FrozenSet(digest=digest, size=1, fidelity="none")
    scores = ScoreSet(rmse=1.0, relative_l2=1.0, sensor_mae=None, coverage=0.9, baselines={})
    release = Release(
        name=NAME,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        site_digest=digest,
        family=kind,
        feature_map=MastLogLaw(
            sensor="mast", measurement_height=40.0, reference_height=10.0, roughness_length=0.05
        ),
        inputs=(
            InputVariable(name="wind_speed", unit="m s-1", minimum=0.0, maximum=15.0),
            InputVariable(name="wind_from_direction", unit="degree", minimum=0.0, maximum=360.0),
        ),
        outputs=(
            OutputVariable(name="wind", unit="m s-1"),
            OutputVariable(name="wind_std", unit="m s-1"),
        ),
        grid=Grid(x=tuple(range(nx)), y=tuple(range(ny)), z=tuple(range(nz))),
        sensors=(),
        model=put("model.onnx", data),
        golden=Golden(
            inputs=put("golden_inputs.npy", _npy(inputs)),
            outputs={
                "wind": put("golden_wind.npy", _npy(outputs[0])),
                "wind_std": put("golden_wind_std.npy", _npy(outputs[1])),
            },
            absolute_tolerance=1e-3,
        ),
        training=TrainingData(digest=digest, size=1, data_until=datetime(2016, 6, 1, tzinfo=UTC)),
        frozen_sets={"selection": frozen, "calibration": frozen, "evaluation": frozen},
        scores={"selection": scores, "evaluation": scores},
        uncertainty=Uncertainty(method="split_conformal", level=0.9, factor=1.7),
        environment={},
    )
    manifest = put("release.json", release.canonical_json())
    owner = owned(repository)
    with owner.exclusive() as state:
        ref = ReleaseRef(version=version, manifest=manifest)
        index = edits.listed(owner.index(state, NAME), ref)
        owner.commit(state, edits.promoted(index, version, "stable"), files)


def stage(repository: Path, versions: Iterable[int], kind: str) -> dict[int, bytes]:
    """Write releases and all that is signed about them, but for the last step.

    All metadata but the timestamp is in files named by version: who reads the repository sees a
    release once the timestamp that leads to it is there (`reveal`).

    Returns
    -------
    dict from version to timestamp file
    """
    path = repository / TIMESTAMP
    before = path.read_bytes() if path.exists() else None
    found = {}
    for version in versions:
        write_release(repository, version, kind)
        found[version] = path.read_bytes()
    if before is not None:
        storage.write_bytes(path, before)
    return found


def reveal(repository: Path, timestamp: bytes) -> None:
    """Let the repository lead to a staged release; costs one small file."""
    storage.write_bytes(repository / TIMESTAMP, timestamp)


@functools.cache
def owned(repository: Path) -> Repository:
    """Return a signed repository, made if it is not there; its keys lie beside it."""
    keys = repository.with_name(f"{repository.name}-keys")
    return roots.init(
        FolderStore(repository), keys / "online", [keys / "root"], passphrase=new_passphrase
    )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
