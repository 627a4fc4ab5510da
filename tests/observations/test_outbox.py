import sqlite3

import pytest

from edge_agent.contracts.errors import SpoolError
from edge_agent.contracts.observation import PredictionRecord, unpack
from edge_agent.outbox import Outbox
from edge_agent.spool_schema import SCHEMA

from .conftest import checked, make_spool, python, reading


def record(version=1):
    return PredictionRecord(1.0, None, version, (5.0, 270.0), {"middle": 1.0}, False, None)


def test_a_batch_holds_what_was_in_none_and_is_forgotten_when_delivered(spool, outbox):
    assert outbox.cut(10) is None
    spool.append(checked(*(reading(n) for n in range(15)))).result(20)
    assert outbox.cut(10, at_least=16) is None
    outbox.cut(10).result(20)
    outbox.cut(10, at_least=5).result(20)
    assert outbox.backlog() | {"batch_bytes": 0} == {
        "uncut": 0, "batches": 2, "batch_bytes": 0, "batch_readings": 15, "batches_refused": 0,
    }  # fmt: skip
    first = outbox.waiting()
    found = unpack(first.packed)
    assert (found.site, found.spool, found.number) == ("house", spool.id, 1)
    assert [r.time for r in found.readings()] == [reading(n).time for n in range(10)]
    outbox.delivered(1).result(20)
    assert outbox.waiting().number == 2
    outbox.refused(2, "no").result(20)
    assert outbox.waiting() is None
    assert outbox.backlog()["batches_refused"] == 1


def test_numbers_are_not_given_twice(tmp_path):
    spool = make_spool(tmp_path)
    outbox = Outbox(spool, "house", 2**20)
    spool.append(checked(reading(0))).result(20)
    outbox.cut(1).result(20)
    outbox.delivered(1).result(20)
    spool.close()
    spool = make_spool(tmp_path)
    spool.append(checked(reading(1))).result(20)
    outbox = Outbox(spool, "house", 2**20)
    outbox.cut(1).result(20)
    assert outbox.waiting().number == 2
    spool.close()


def test_records_follow_without_waiting_and_travel_once(spool, outbox):
    for version in range(3):
        spool.record(record(version))
    # The writer looks every 10 ms; a commit of a reading takes waiting records along.
    spool.append(checked(reading(0))).result(20)
    outbox.cut(10).result(20)
    assert [p.version for p in unpack(outbox.waiting().packed).predictions] == [0, 1, 2]
    assert spool.read("SELECT count(*) FROM records") == [(0,)]
    assert outbox.cut(10) is None


def test_records_are_on_disk_when_the_spool_is_closed(tmp_path):
    spool = make_spool(tmp_path, record_seconds=3600)
    spool.record(record())
    spool.close()
    spool = make_spool(tmp_path)
    assert spool.read("SELECT count(*) FROM records") == [(1,)]
    spool.close()


def test_the_oldest_records_go_first(tmp_path):
    spool = make_spool(tmp_path, max_records=5)
    for version in range(5):
        spool.record(record(version))
    spool.append(checked(reading(0))).result(20)
    spool.record(record(5))
    spool.append(checked(reading(1))).result(20)
    assert spool.read("SELECT min(sequence), count(*) FROM records") == [(2, 5)]
    assert spool._counters.records_dropped == 1
    spool.close()


def test_what_has_a_receipt_is_never_dropped(tmp_path):
    spool = make_spool(tmp_path, max_rows=20)
    outbox = Outbox(spool, "house", 2**20)
    for n in range(20):
        spool.append(checked(reading(n))).result(20)
    with pytest.raises(SpoolError) as caught:
        spool.append(checked(reading(20))).result(20)
    assert caught.value.reason == "full"
    assert spool._counters.rejected["full"] == 1
    outbox.cut(100).result(20)
    for n in range(20, 35):
        spool.append(checked(reading(n))).result(20)
    kept = [r.time for r in spool.after(0, 1000)]
    assert kept == [reading(n).time for n in range(15, 35)]
    assert len(unpack(outbox.waiting().packed).readings()) == 20
    assert spool._counters.readings_dropped == 0
    spool.close()


def test_batches_are_bounded(spool):
    outbox = Outbox(spool, "house", 100)
    spool.append(checked(*(reading(n) for n in range(3)))).result(20)
    outbox.cut(1).result(20)
    assert outbox.cut(1) is None
    assert outbox.backlog()["uncut"] == 2


def test_the_file_of_the_first_version_is_taken_on(tmp_path):
    with sqlite3.connect(tmp_path / "s.sqlite") as old:
        old.execute(SCHEMA.partition(";\n")[0])
        old.execute("PRAGMA user_version = 1")
        old.execute(
            "INSERT INTO readings (instant, time, sensor, quantity, value, unit, received_at)"
            " VALUES (0, '1970-01-01T00:00:00', 'mast', 'wind_speed', 1.0, 'm s-1', 1.0)"
        )
    old.close()
    spool = make_spool(tmp_path)
    outbox = Outbox(spool, "house", 2**20)
    outbox.cut(10).result(20)
    assert len(unpack(outbox.waiting().packed).readings()) == 1
    spool.close()


CUTTER = """
import sys
from pathlib import Path
from edge_agent.clock import SystemClock
from edge_agent.metrics import Counters
from edge_agent.outbox import Outbox
from edge_agent.spool import Spool
from edge_agent.contracts.observation import Reading, check_reading
spool = Spool(Path(sys.argv[1]), SystemClock(), Counters(), max_rows=1000, max_queue=10, hold=True)
r = Reading("2016-06-01T00:00:00", "mast", "wind_speed", 1.0, "m s-1")
spool.append([(r, check_reading(r))]).result(20)
print("kept", flush=True)
Outbox(spool, "house", 2**20).cut(10).result(20)
"""


def test_a_cut_that_is_killed_did_not_happen(tmp_path):
    process = python(CUTTER, tmp_path / "s.sqlite", failpoint="spool.cut")
    assert process.communicate(timeout=20)[0] == "kept\n"
    assert process.returncode == -9
    spool = make_spool(tmp_path)
    outbox = Outbox(spool, "house", 2**20)
    assert outbox.waiting() is None
    assert outbox.backlog()["uncut"] == 1
    outbox.cut(10).result(20)
    assert len(unpack(outbox.waiting().packed).readings()) == 1
    spool.close()
