"""The same behaviour over every transport."""

import threading

import pytest

from edge_agent.backoff import pause
from edge_agent.clock import ManualClock
from edge_agent.contracts.errors import SpoolError, UpstreamError
from edge_agent.contracts.observation import PackedBatch
from edge_agent.outbox import Outbox
from edge_agent.settings import UpstreamSettings
from edge_agent.upstream import FolderTransport, HttpTransport, Upstream, make_transport
from workflows.observations import ObservationStore, Receiver, take_folder

from .conftest import checked, make_spool, reading


@pytest.fixture(params=["folder", "http"])
def line(request, tmp_path, store):
    """A transport, and a function that makes the other end take what has come."""
    if request.param == "folder":
        folder = tmp_path / "inbox"
        yield FolderTransport(folder), lambda: take_folder(store, folder)
    else:
        with Receiver(store, token=TOKEN) as receiver:
            transport = HttpTransport(receiver.url, TOKEN, 5.0)
            yield transport, lambda: None
            transport.close()


TOKEN = "open sesame"  # noqa: S105


def settings(**values):
    return UpstreamSettings(folder="/nowhere", **values)


def make_upstream(outbox, transport, clock=None, **values):
    return Upstream(outbox, transport, settings(**values), clock or ManualClock())


def test_each_reading_is_stored_once_though_batches_come_twice(spool, outbox, store, line):
    transport, take = line
    upstream = make_upstream(outbox, transport, batch_rows=4)
    spool.append(checked(*(reading(n) for n in range(8)))).result(20)
    while (batch := outbox.waiting()) is None or batch.number < 2:
        if batch is not None:
            transport.send(batch.packed, batch.number)  # and again in the next step
        assert upstream.step()
    while upstream.step():
        pass
    take()
    assert store.counts() == {"batches": 2, "readings": 8, "predictions": 0}
    assert [r for _, r in store.readings()] == [reading(n) for n in range(8)]
    assert upstream.delivered == 2


def test_a_batch_waits_for_rows_or_for_time(spool, outbox, store, line):
    transport, take = line
    clock = ManualClock()
    upstream = make_upstream(outbox, transport, clock, batch_rows=10, batch_seconds=60)
    spool.append(checked(*(reading(n) for n in range(9)))).result(20)
    assert not upstream.step()
    clock.advance(60)
    assert upstream.step()
    take()
    assert store.counts()["readings"] == 9
    assert not upstream.step()


def test_readings_that_come_in_two_batches_are_stored_once(spool, store, line, tmp_path):
    transport, take = line
    (tmp_path / "other").mkdir()
    other = make_spool(tmp_path / "other")
    for one, value in ((spool, 1.0), (other, 1.0)):
        one.append(checked(reading(0, value))).result(20)
    other.append(checked(reading(1))).result(20)
    for one in (spool, other):
        outbox = Outbox(one, "house", 2**20)
        upstream = make_upstream(outbox, transport, batch_rows=1)
        while upstream.step():
            take()
    other.close()
    assert store.counts() == {"batches": 3, "readings": 2, "predictions": 0}


def test_a_refused_batch_is_set_aside_and_the_next_goes_on(spool, outbox):
    class Refusing:
        sent = 0

        def send(self, _packed, number):
            self.sent += 1
            raise UpstreamError("never", refused=number == 1)

        def close(self):
            pass

    transport = Refusing()
    upstream = make_upstream(outbox, transport, batch_rows=1)
    spool.append(checked(reading(0))).result(20)
    assert upstream.step()
    spool.append(checked(reading(1))).result(20)
    with pytest.raises(UpstreamError):
        upstream.step()
    assert outbox.waiting().number == 2
    assert upstream.status()["batches_refused"] == 1


def test_days_without_a_network(tmp_path, store):
    """Readings go on being taken and packed; all arrive when the network is back."""

    class Down:
        def send(self, _packed, _number):
            raise UpstreamError("no network", refused=False)

        def close(self):
            pass

    spool = make_spool(tmp_path, max_rows=500)
    outbox = Outbox(spool, "house", 2**20)
    upstream = make_upstream(outbox, Down(), batch_rows=200)
    for first in range(0, 6000, 100):
        spool.append(checked(*(reading(n) for n in range(first, first + 100)))).result(20)
        for _ in range(first % 200 // 100):
            with pytest.raises(UpstreamError):
                upstream.step()
    assert spool._counters.rejected["full"] == 0
    assert len(spool.after(0, 10_000)) == 500
    assert outbox.backlog()["batch_bytes"] < 6000 * 25
    folder = tmp_path / "inbox"
    back = make_upstream(outbox, FolderTransport(folder), batch_rows=200)
    while back.step():
        pass
    take_folder(store, folder)
    assert [r for _, r in store.readings(limit=10_000)] == [reading(n) for n in range(6000)]
    spool.close()


def test_the_thread_delivers_and_says_what_troubles_it(spool, outbox):
    told = []

    class Flaky:
        def send(self, _packed, number):
            told.append(number)
            if len(told) == 1:
                raise UpstreamError("not yet", refused=False)
            if len(told) == 3:
                done.set()

        def close(self):
            pass

    done = threading.Event()
    upstream = make_upstream(outbox, Flaky(), batch_rows=1, batch_seconds=0.05, retry_seconds=0.01)
    spool.append(checked(reading(0))).result(20)
    upstream.start()
    while upstream.delivered < 1:
        assert told is not None
    spool.append(checked(reading(1))).result(20)
    assert done.wait(20)
    upstream.close()
    assert told == [1, 1, 2]


@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_pauses_double_up_to_a_bound(chance):
    waits = [pause(n, 1.0, 60.0, chance) for n in range(1, 40)]
    assert waits == sorted(waits)
    assert 0.5 <= waits[0] <= 1.0
    assert 30.0 <= waits[-1] <= 60.0


def test_http_says_no_for_what_can_never_be_stored_and_wait_for_the_rest(store):
    with Receiver(store, token=TOKEN) as receiver:
        good = HttpTransport(receiver.url, TOKEN, 5.0)
        with pytest.raises(UpstreamError) as caught:
            good.send(PackedBatch("0" * 64, b"nonsense"), 1)
        assert caught.value.refused
        stranger = HttpTransport(receiver.url, "wrong", 5.0)
        with pytest.raises(UpstreamError, match="401") as caught:
            stranger.send(PackedBatch("0" * 64, b"nonsense"), 1)
        assert not caught.value.refused
        good.close()
        stranger.close()
    with pytest.raises(UpstreamError, match="not delivered") as caught:
        good.send(PackedBatch("0" * 64, b"x"), 1)
    assert not caught.value.refused
    good.close()


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UpstreamError) as caught:
        FolderTransport(tmp_path / "file").send(PackedBatch("0" * 64, b"x"), 1)
    assert not caught.value.refused


def test_a_damaged_file_is_put_aside(tmp_path, store):
    folder = tmp_path / "inbox"
    FolderTransport(folder).send(PackedBatch("0" * 64, b"x"), 1)
    assert take_folder(store, folder) == []
    assert len(list((folder / "refused").iterdir())) == 1
    assert take_folder(store, folder) == []


def test_a_token_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UpstreamError, match="token_file"):
        make_transport(
            UpstreamSettings(url="https://example.org/", token_file=tmp_path / "missing")
        )


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"folder": "/a", "url": "http://127.0.0.1/"},
        {"url": "http://example.org/"},
        {"url": "https://example.org/"},
        {"url": "ftp://127.0.0.1/"},
    ],
)
def test_settings_that_are_unsafe_or_unclear_are_refused(bad):
    with pytest.raises(ValueError, match=r"give either|loopback|neither"):
        UpstreamSettings(**bad)


def test_the_store_refuses_another_schema(tmp_path):
    import sqlite3

    from workflows.errors import ObservationError

    with sqlite3.connect(tmp_path / "o.sqlite") as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ObservationError, match="schema 9"):
        ObservationStore(tmp_path / "o.sqlite")


def test_a_spool_that_is_closed_says_so(tmp_path):
    spool = make_spool(tmp_path)
    outbox = Outbox(spool, "house", 2**20)
    spool.append(checked(reading(0))).result(20)
    spool.close()
    with pytest.raises(SpoolError):
        outbox.cut(1)
