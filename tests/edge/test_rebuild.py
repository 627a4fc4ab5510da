"""A model comes as a delta where the device has the one before; whole where anything is amiss."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from apps.delta import make_delta
from edge_agent.contracts import storage
from edge_agent.contracts.errors import UpdateUnavailable
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import Delta, TargetFile
from edge_agent.contracts.repository import ReleaseRef, target_file
from edge_agent.metrics import Counters
from edge_agent.updates.fetch import Fetcher, Limits
from edge_agent.updates.signed import SignedSource
from edge_agent.updates.store import read_stored

from .owner import follower
from .releases import NAME, make_release, model_bytes, publish_release


def retrained(model: bytes, seed: int) -> bytes:
    """The same model with all its weights changed a little."""
    proto = onnx.load_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.name == "weights":
            value = numpy_helper.to_array(tensor)
            noise = np.random.default_rng(seed).normal(0, 1e-3, value.shape)
            tensor.CopyFrom(
                numpy_helper.from_array((value + noise).astype(np.float32), tensor.name)
            )
    return proto.SerializeToString()


def put(repository, path, data):
    target = TargetFile(path=path, sha256=sha256(data), length=len(data))
    storage.write_bytes(target_file(repository, target), data)
    return target


def with_delta(before, version, *, data=None):
    """The release after `before`, with a delta; `data` stands for a fault."""
    old = before.path(before.release.model).read_bytes()
    delta, model = make_delta(old, retrained(old, version), 4)
    made = make_release(before.repository, version, model=model, publish=False)
    file = put(made.repository, f"{NAME}/{version}/model.delta", delta if data is None else data)
    description = Delta(
        base_version=before.ref.version,
        base_sha256=sha256(old),
        file=file,
        bits=4,
    )
    release = made.release.model_copy(update={"delta": description})
    manifest = put(made.repository, f"{NAME}/{version}/release.json", release.canonical_json())
    made = replace(made, release=release, ref=ReleaseRef(version=version, manifest=manifest))
    publish_release(made)
    return made


@pytest.fixture
def first(tmp_path):
    model = model_bytes(cells=24, shape=(2, 3, 4))
    return make_release(tmp_path / "repository", 1, model=model)


class Device:
    def __init__(self, folder, repository):
        self.counters, self.folder = Counters(), folder
        self.source = follower(repository, folder)
        self.fetcher = Fetcher(
            self.source, folder, name=NAME, limits=Limits(10**8), counters=self.counters
        )

    def fetch(self, made):
        self.source.index(NAME)
        return self.fetcher.fetch(made.ref)

    def take(self, made):
        stored = read_stored(self.fetch(made), name=NAME)
        assert stored.files["model.onnx"] == made.path(made.release.model).read_bytes()
        assert list((self.folder / "downloads").iterdir()) == []
        return self.counters.models_rebuilt, self.counters.deltas_failed


@pytest.fixture
def device(tmp_path, first):
    made = Device(tmp_path / "device", first.repository)
    made.take(first)
    return made


def test_a_model_is_rebuilt_bit_for_bit_and_never_downloaded(device, first):
    second = with_delta(first, 2)
    before = device.counters.bytes_downloaded
    second.path(second.release.model).rename(second.repository / "away")
    folder = device.fetch(second)
    assert (folder / "model.onnx").read_bytes() == (second.repository / "away").read_bytes()
    expected = sum(t.length for t in (second.ref.manifest, second.release.delta.file))
    golden = second.release.golden
    new = [t for t in golden.outputs.values() if t.sha256 not in held(first)]
    assert device.counters.bytes_downloaded - before == expected + sum(t.length for t in new)


def held(made):
    return {t.sha256 for t in made.release.files()}


def test_deltas_follow_each_other(device, first):
    second = with_delta(first, 2)
    third = with_delta(second, 3)
    assert device.take(second) == (1, 0)
    assert device.take(third) == (2, 0)


def test_a_device_that_missed_one_takes_the_full_file(device, first):
    third = with_delta(with_delta(first, 2), 3)
    assert device.take(third) == (0, 0)


def test_a_delta_that_makes_something_else_is_given_up(device, first):
    other = with_delta(first, 7).path(with_delta(first, 7).release.delta.file).read_bytes()
    assert device.take(with_delta(first, 2, data=other)) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"RBFD", b"RBFD\x01" + bytes(200)])
def test_rubbish_is_given_up(device, first, data):
    assert device.take(with_delta(first, 2, data=data)) == (0, 1)


def test_a_damaged_base_is_no_base(device, first):
    (device.folder / "releases" / "1" / "model.onnx").write_bytes(b"rust")
    assert device.take(with_delta(first, 2)) == (0, 1)


def test_an_altered_delta_is_given_up(device, first):
    second = with_delta(first, 2)
    path = second.path(second.release.delta.file)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert device.take(second) == (0, 1)


def test_a_delta_that_is_not_there_is_done_without(device, first):
    second = with_delta(first, 2)
    second.path(second.release.delta.file).unlink()
    assert device.take(second) == (0, 1)


def test_when_nothing_comes_neither_does_the_full_file(device, first, monkeypatch):
    second = with_delta(first, 2)

    def broken(_self, _target, _offset=0):
        raise UpdateUnavailable("no link", reason="unreachable")

    device.source.index(NAME)
    device.fetcher._downloads.get(second.ref.manifest)
    monkeypatch.setattr(SignedSource, "open", broken)
    with pytest.raises(UpdateUnavailable, match="no link"):
        device.fetch(second)
    assert device.counters.deltas_failed == 0
    monkeypatch.undo()
    assert device.take(second) == (1, 0)


def test_a_model_that_is_nearly_here_is_finished_instead(device, first):
    second = with_delta(first, 2)
    model = second.path(second.release.model).read_bytes()
    part = device.folder / "downloads" / f"{second.release.model.sha256}.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(model[:-10])
    assert device.take(second) == (0, 0)
    assert device.counters.downloads_resumed == 1


def test_room_is_made_sure_of_for_the_model_that_is_made(tmp_path, first):
    device = Device(tmp_path / "small", first.repository)
    device.take(first)
    second = with_delta(first, 2)
    shutil.rmtree(tmp_path / "small" / "downloads")
    device.fetcher._free = lambda _folder: second.release.model.length
    with pytest.raises(UpdateUnavailable, match="are free"):
        device.fetch(second)
