"""Files on their way: resumed, verified, whole or not there; over real sockets."""

import contextlib
import hashlib
import signal
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import SystemClock
from edge_agent.contracts.errors import (
    DigestMismatch,
    InvalidConfig,
    Untrusted,
    UpdateUnavailable,
)
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.metrics import Counters
from edge_agent.settings import UpdateSettings
from edge_agent.updates.download import PART, READ_BYTES, Downloads
from edge_agent.updates.fetch import Fetcher, Limits
from edge_agent.updates.http import HttpTransport, tls_context
from edge_agent.updates.signed import SignedSource
from edge_agent.updates.store import read_stored
from edge_agent.updates.transport import CHUNK_BYTES, Body
from edge_agent.updates.trust import Trust

from .owner import first_root, follower
from .releases import NAME, make_release
from .web import silent, website


def target_of(data: bytes, path: str = "a/file") -> TargetFile:
    return TargetFile(path=path, sha256=sha256(data), length=len(data))


class Link:
    """A source whose link breaks after so many bytes, time and again; in memory."""

    def __init__(self, data: bytes, breaks: list[int], *, ranges: bool = True) -> None:
        self.data, self.breaks, self.ranges = data, list(breaks), ranges
        self.sent = 0
        self.expires_at = self.refreshed_at = None

    @contextlib.contextmanager
    def open(self, _target, offset=0):
        start = offset if self.ranges else 0
        yield Body(start, self._chunks(start))

    def _chunks(self, at):
        left = self.breaks.pop(0) if self.breaks else None
        while at < len(self.data):
            size = 7 if left is None else min(7, left)
            if size == 0:
                msg = "the link broke"
                raise UpdateUnavailable(msg, reason="unreachable")
            chunk = self.data[at : at + size]
            self.sent += len(chunk)
            yield chunk
            at += len(chunk)
            left = None if left is None else left - len(chunk)


def downloads(folder, source):
    counted = Counters()

    def received(size):
        counted.bytes_downloaded += size

    def resumed():
        counted.downloads_resumed += 1

    return Downloads(folder, source, received, resumed), counted


@given(
    data=st.binary(max_size=200),
    breaks=st.lists(st.integers(0, 60), max_size=8),
    ranges=st.booleans(),
    rubbish=st.none() | st.binary(max_size=250),
)
def test_whatever_breaks_the_file_comes_whole(tmp_path_factory, data, breaks, ranges, rubbish):
    folder = tmp_path_factory.mktemp("d")
    target = target_of(data)
    if rubbish is not None:  # what a power cut left
        (folder / (target.sha256 + PART)).write_bytes(rubbish)
    link = Link(data, breaks, ranges=ranges)
    for attempt in range(len(breaks) + 2):
        # A new object each time: nothing but the disk is remembered.
        files, _ = downloads(folder, link)
        try:
            path = files.get(target)
        except UpdateUnavailable:
            assert not (folder / target.sha256).exists(), "never under its name before it is whole"
            assert attempt < len(breaks)
            continue
        break
    assert path.read_bytes() == data
    assert {p.name for p in folder.iterdir()} == {target.sha256}
    if ranges and rubbish is None:
        assert link.sent == len(data), "no byte comes twice"
    sent = link.sent
    assert files.get(target) == path
    assert link.sent == sent
    files.keep_only(set())
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("data", "reason"), [(b"abcdX", "digest"), (b"abc", "length"), (b"abcdeX", "length")]
)
def test_what_is_not_as_promised_is_thrown_away(tmp_path, data, reason):
    files, _ = downloads(tmp_path, Link(data, []))
    with pytest.raises(DigestMismatch) as found:
        files.get(target_of(b"abcde"))
    assert found.value.reason == reason
    assert all(p.stat().st_size == 0 for p in tmp_path.iterdir())


class World:
    """A repository behind a server, and a device that fetches from it."""

    def __init__(self, folder: Path, url: str, site, **settings) -> None:
        self.folder, self.site = folder, site
        self.repository = folder / "repository"
        self.counters = Counters()
        self.settings = UpdateSettings(url=url, **settings)
        self.transport = HttpTransport(url, read_seconds=self.settings.read_seconds)

    def fetch(self, made, **options):
        """Look and fetch, as a device that has just started."""
        trust = Trust(self.folder / "trust", first_root(self.repository))
        source = SignedSource(self.transport, trust, SystemClock(), self.settings)
        source.index(NAME)
        fetcher = Fetcher(
            source, self.folder, name=NAME, limits=Limits(10**8), counters=self.counters, **options
        )
        return fetcher.fetch(made.ref)


@pytest.fixture
def world(tmp_path):
    with website(tmp_path / "repository") as (url, site):
        world = World(tmp_path, url, site)
        yield world
        world.transport.close()


def cut_after(size):
    def trick(handler, data):
        asked = handler.headers.get("Range")
        first = int(asked[6:-1]) if asked else 0
        headers = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if asked else {}
        handler.head(206 if asked else 200, len(data) - first, headers)
        handler.send(data[first : first + size])
        handler.cut()

    return trick


def test_a_download_goes_on_where_the_link_broke(world):
    made = make_release(world.repository, 1)
    length = made.release.model.length
    world.site.tricks["model.onnx"] = cut_after(length // 4 + 1)
    for _ in range(3):
        with pytest.raises(UpdateUnavailable, match="broke") as broken:
            world.fetch(made)
        assert broken.value.reason == "unreachable"
    world.site.tricks.clear()
    folder = world.fetch(made)
    read_stored(folder, name=NAME)
    ranges = [r for _, r in world.site.asked("model.onnx")]
    assert ranges == [None] + [f"bytes={k * (length // 4 + 1)}-" for k in (1, 2, 3)]
    total = made.ref.manifest.length + sum(
        {t.sha256: t.length for t in made.release.files()}.values()
    )
    assert world.counters.bytes_downloaded == total, "no byte comes twice"
    assert world.counters.downloads_resumed == 3
    assert not list((world.folder / "downloads").iterdir())


def test_a_server_that_knows_no_ranges_starts_over(world):
    made = make_release(world.repository, 1)
    world.site.tricks["model.onnx"] = cut_after(50)
    with pytest.raises(UpdateUnavailable):
        world.fetch(made)
    world.site.tricks["model.onnx"] = lambda handler, data: handler.answer(200, data)
    read_stored(world.fetch(made), name=NAME)
    assert world.counters.downloads_resumed == 0


def test_a_part_longer_than_the_file_or_as_long_starts_over(world):
    made = make_release(world.repository, 1)
    part = world.folder / "downloads" / (made.release.model.sha256 + PART)
    part.parent.mkdir()
    for size in (made.release.model.length, made.release.model.length + 5):
        part.write_bytes(bytes(size))
        read_stored(world.fetch(made), name=NAME)
        for file in (world.folder / "releases" / "1").iterdir():
            file.unlink()


def test_a_range_that_is_another_one_is_not_believed(world):
    made = make_release(world.repository, 1)
    world.site.tricks["model.onnx"] = cut_after(50)
    with pytest.raises(UpdateUnavailable):
        world.fetch(made)
    world.site.tricks["model.onnx"] = lambda handler, data: handler.answer(
        206, data[10:], {"Content-Range": f"bytes 10-{len(data) - 1}/{len(data)}"}
    )
    with pytest.raises(UpdateUnavailable) as found:
        world.fetch(made)
    assert found.value.reason == "status"
    world.site.tricks.clear()
    read_stored(world.fetch(made), name=NAME)


def test_what_the_device_has_is_not_downloaded_again(world):
    first = make_release(world.repository, 1)
    world.fetch(first)
    world.site.requests.clear()
    second = make_release(world.repository, 2, golden_error=1e-5)  # the same model
    folder = world.fetch(second)
    assert not world.site.asked("model.onnx")
    assert not world.site.asked("golden_inputs")
    assert len(world.site.asked("golden_wind")) == 1
    assert (folder / "model.onnx").stat().st_nlink == 1, "no two releases share a sector"
    # Unless the copy is damaged.
    for version in ("1", "2"):
        (world.folder / "releases" / version / "model.onnx").write_bytes(b"rust")
    third = make_release(world.repository, 3, golden_error=2e-5)
    read_stored(world.fetch(third), name=NAME)
    assert len(world.site.asked("model.onnx")) == 1


def test_files_of_a_release_that_never_came_are_forgotten(world):
    first = make_release(world.repository, 1, bias=1.0)
    world.site.tricks["model.onnx"] = cut_after(50)
    with pytest.raises(UpdateUnavailable):
        world.fetch(first)
    world.site.tricks.clear()
    second = make_release(world.repository, 2, bias=2.0)
    world.fetch(second)
    assert not list((world.folder / "downloads").iterdir())


def test_room_on_the_disk_is_looked_at_first(world):
    made = make_release(world.repository, 1)
    with pytest.raises(UpdateUnavailable, match="bytes, 100 are free") as found:
        world.fetch(made, free=lambda _folder: 100)
    assert found.value.reason == "disk_full"
    assert not world.site.asked("model.onnx")
    world.fetch(made, free=lambda _folder: 10**9)


@pytest.mark.parametrize("status", [302, 401, 500, 503])
def test_what_the_server_says_is_passed_on(world, status):
    made = make_release(world.repository, 1)
    world.site.tricks["model.onnx"] = lambda handler, _data: handler.answer(status, b"no")
    with pytest.raises(UpdateUnavailable, match=f"status {status}") as found:
        world.fetch(made)
    assert found.value.reason == "status"
    world.site.tricks["model.onnx"] = lambda handler, _data: handler.answer(404, b"no")
    with pytest.raises(UpdateUnavailable, match="is not there"):
        world.fetch(made)
    world.site.tricks.clear()
    world.fetch(made)


def test_a_connection_closed_while_idle_is_opened_again(world):
    made = make_release(world.repository, 1)

    def close_after(handler, data):
        handler.answer(200, data)
        handler.cut()

    for part in ("golden_inputs", "timestamp", "release.json"):
        world.site.tricks[part] = close_after
    read_stored(world.fetch(made), name=NAME)


def test_nobody_there():
    transport = HttpTransport("http://127.0.0.1:9/", read_seconds=5)
    with pytest.raises(UpdateUnavailable) as found, transport.open("a", seconds=5):
        pass
    assert found.value.reason == "unreachable"
    transport.close()
    with pytest.raises(UpdateUnavailable, match="stopping"), transport.open("a", seconds=5):
        pass


def test_a_path_that_leaves_is_refused():
    transport = HttpTransport("http://127.0.0.1:9/", read_seconds=5)
    with pytest.raises(Untrusted), transport.open("a/../b", seconds=5):
        pass


def test_a_token_and_an_authority_of_its_own(tmp_path, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_bytes(b"content")
    with website(tmp_path / "site", context) as (url, site):
        site.token = "a-secret"  # noqa: S105 - of a test

        def read(**options):
            transport = HttpTransport(url, read_seconds=10, **options)
            try:
                with transport.open("file", seconds=20) as body:
                    return b"".join(body.chunks)
            finally:
                transport.close()

        trusted = tls_context(certificate / "cert.pem")
        assert read(token="a-secret", context=trusted) == b"content"  # noqa: S106
        with pytest.raises(UpdateUnavailable, match="status 401"):
            read(token="another", context=trusted)  # noqa: S106
        with pytest.raises(UpdateUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            read(token="a-secret")  # noqa: S106
    (tmp_path / "rubbish.pem").write_text("no certificate")
    for path in (tmp_path / "rubbish.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(InvalidConfig, match=r"updates\.ca_file"):
            tls_context(path)


def test_closing_ends_a_read_that_waits(world):
    make_release(world.repository, 1)
    world.site.tricks["timestamp"] = silent
    found = []

    def read():
        try:
            with world.transport.open("metadata/timestamp.json", seconds=100) as body:
                list(body.chunks)
        except UpdateUnavailable as error:
            found.append(error.reason)

    thread = threading.Thread(target=read)
    thread.start()
    while not world.site.asked("timestamp"):
        pass
    world.transport.close()
    thread.join(20)
    assert found == ["stopped"]


@pytest.mark.parametrize(
    ("point", "times"),
    [
        ("download.chunk", 1),
        ("download.chunk", 3),
        ("download.synced", 1),
        ("download.synced", 4),
        ("fetch.assembled", 1),
        ("fetch.renamed", 1),
    ],
)
def test_killed_anywhere_in_a_download_the_next_start_completes_it(launch, tmp_path, point, times):
    made = make_release(tmp_path / "repository", 1)
    killed = launch(failpoint=f"{point}:{times}")
    assert killed.wait() == -signal.SIGKILL
    releases = tmp_path / "state" / "releases"
    for folder in releases.glob("[0-9]*"):
        read_stored(folder, name=NAME)  # whole, if it is there at all
    again = launch()
    again.client.wait_serving(1)
    assert read_stored(releases / "1", name=NAME).release == made.release
    make_release(tmp_path / "repository", 2, bias=2.0)
    again.client.wait_serving(2)
    again.stop()
    assert {p.name for p in releases.iterdir()} == {"1", "2"}
    assert not list((tmp_path / "state" / "downloads").iterdir())


def test_hashing_lets_other_threads_run():
    """`hashlib` gives up the interpreter lock above this many bytes; chunks must be larger."""
    assert min(READ_BYTES, CHUNK_BYTES) > 2047
    assert hashlib.sha256(bytes(READ_BYTES)).hexdigest()


def test_a_folder_source_resumes_too(tmp_path):
    made = make_release(tmp_path / "repository", 1)
    source = follower(made.repository, tmp_path)
    source.index(NAME)
    files, counted = downloads(tmp_path / "downloads", source)
    (tmp_path / "downloads").mkdir()
    data = made.path(made.release.model).read_bytes()
    (tmp_path / "downloads" / (made.release.model.sha256 + PART)).write_bytes(data[:100])
    assert files.get(made.release.model).read_bytes() == data
    assert counted.downloads_resumed == 1
    assert counted.bytes_downloaded == len(data) - 100
    source.close()
    with pytest.raises(UpdateUnavailable, match="stopping"):
        files.get(made.release.golden.inputs)
