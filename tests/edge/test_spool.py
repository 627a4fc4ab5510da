import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import ManualClock
from edge_agent.contracts.errors import InvalidReading, SpoolError
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.metrics import Counters
from edge_agent.spool import Spool

from .conftest import REPOSITORY_ROOT, wind


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def spool(tmp_path, counters):
    spool = Spool(tmp_path / "s.sqlite", ManualClock(), counters, max_rows=100, max_queue=50)
    yield spool
    spool.close()


def checked(*readings):
    return [(r, check_reading(r)) for r in readings]


def test_readings_come_back_in_order_with_both_times(spool):
    for minute in range(3):
        spool.append(checked(*wind(f"2016-06-01T00:0{minute}:00"))).result(20)
    rows = spool.after(0, 4)
    assert [r.time for r in rows] == ["2016-06-01T00:00:00"] * 2 + ["2016-06-01T00:01:00"] * 2
    assert rows[0].received_at == ManualClock().now()
    assert [r.time for r in spool.after(rows[-1].sequence, 10)] == ["2016-06-01T00:02:00"] * 2
    assert spool.after(6, 10) == []


def test_equal_repeats_are_dropped_and_of_conflicting_ones_the_first_is_kept(spool, counters):
    first = wind("2016-06-01T00:00:00", 5.0)
    assert spool.append(checked(*first)).result(20) == (2, 0, 0)
    same_instant = wind("2016-06-01T02:00:00+02:00", 5.0)
    assert spool.append(checked(*same_instant)).result(20) == (0, 2, 0)
    assert spool.append(checked(*wind("2016-06-01T00:00:00", 6.0))).result(20) == (0, 1, 1)
    assert [r.value for r in spool.after(0, 10)] == [5.0, 270.0]
    assert (counters.readings_accepted, counters.duplicate, counters.conflicting) == (2, 3, 1)


def test_the_oldest_are_dropped_when_full(spool, counters):
    begin = datetime(2016, 6, 1, tzinfo=UTC)
    for minute in range(60):
        spool.append(checked(*wind((begin + timedelta(minutes=minute)).isoformat()))).result(20)
    rows = spool.after(0, 1000)
    assert len(rows) == 100
    assert rows[-1].sequence == 120
    assert counters.readings_dropped == 20


def test_a_full_queue_refuses(spool, monkeypatch):
    inside, go = threading.Event(), threading.Event()

    def stuck(jobs):
        inside.set()
        go.wait(20)
        for job in jobs:
            job.done.set_exception(SpoolError("over", reason="disk"))

    monkeypatch.setattr(spool, "_commit", stuck)
    item = checked(*wind("2016-06-01T00:00:00"))
    spool.append(item)
    assert inside.wait(20)
    for _ in range(50):
        spool.append(item)
    with pytest.raises(SpoolError) as caught:
        spool.append(item)
    assert caught.value.reason == "full"
    go.set()


def test_a_failing_disk_is_told_to_the_sender_and_survived(spool, counters, monkeypatch):
    def fail(_job):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_insert", fail)
        with pytest.raises(SpoolError, match="disk is full"):
            spool.append(checked(*wind("2016-06-01T00:00:00"))).result(20)
    assert counters.rejected["disk"] == 2
    assert spool.append(checked(*wind("2016-06-01T00:00:00"))).result(20).new == 2


def test_text_that_cannot_be_stored_is_refused_at_once(spool):
    bad = Reading("2016-06-01T00:00:00", "\ud800", "wind_speed", 1.0, "m s-1")
    with pytest.raises(InvalidReading):
        spool.append(checked(bad))


def test_another_schema_is_refused(tmp_path, counters):
    with sqlite3.connect(tmp_path / "s.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(SpoolError, match="schema 9"):
        Spool(tmp_path / "s.sqlite", ManualClock(), counters, max_rows=1, max_queue=1)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=30),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_the_spool_is_a_map_from_identity_to_the_first_value(tmp_path_factory, sent, batches):
    counters = Counters()
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder / "s.sqlite", ManualClock(), counters, max_rows=1000, max_queue=1000)
    first: dict[int, float] = {}
    done, at, number = [], 0, 0
    while at < len(sent):
        size = batches[number % len(batches)]
        part = sent[at : at + size]
        at, number = at + size, number + 1
        readings = []
        for minute, value in part:
            first.setdefault(minute, float(value))
            time = f"2016-06-01T00:0{minute}:00"
            readings.append(Reading(time, "mast", "wind_speed", float(value), "m s-1"))
        done.append(spool.append(checked(*readings)))
    for future in done:
        future.result(20)
    found = {int(r.time[-4]): r.value for r in spool.after(0, 1000)}
    spool.close()
    assert found == first
    assert counters.readings_accepted == len(first)
    assert counters.duplicate + counters.conflicting == len(sent) - len(first)


WRITER = """
import sys
from pathlib import Path
from edge_agent.clock import SystemClock
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.metrics import Counters
from edge_agent.spool import Spool

spool = Spool(Path(sys.argv[1]), SystemClock(), Counters(), max_rows=10**6, max_queue=1000)
for number in range(100_000):
    time = f"2016-06-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
    reading = Reading(time, "mast", "wind_speed", 1.0, "m s-1")
    spool.append([(reading, check_reading(reading))]).result()
    print(number + 1, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path, counters):
    path = tmp_path / "s.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=REPOSITORY_ROOT, stdout=subprocess.PIPE
    )
    with writer:
        for _ in range(30):
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split(b"\n")[:-1]
    acknowledged = int(rest[-1]) if rest else acknowledged
    spool = Spool(path, ManualClock(), counters, max_rows=10**6, max_queue=10)
    assert len(spool.after(0, 10**6)) >= acknowledged
    spool.close()
