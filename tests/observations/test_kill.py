"""SIGKILL and full disks."""

import os
import signal
import subprocess

import pytest

from edge_agent.outbox import Outbox
from edge_agent.settings import UpstreamSettings
from edge_agent.upstream import FolderTransport, Upstream
from workflows.observations import ObservationStore, take_folder

from .conftest import checked, make_spool, python, reading

RECEIVER = """
import sys
from pathlib import Path
from workflows.observations import ObservationStore, take_folder
with ObservationStore(Path(sys.argv[1])) as store:
    take_folder(store, Path(sys.argv[2]))
"""

SENDER = """
import sys
from pathlib import Path
from edge_agent.clock import SystemClock
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.metrics import Counters
from edge_agent.outbox import Outbox
from edge_agent.settings import UpstreamSettings
from edge_agent.spool import Spool
from edge_agent.upstream import FolderTransport, Upstream
path, clock = Path(sys.argv[1]), SystemClock()
spool = Spool(path, clock, Counters(), max_rows=10**6, max_queue=10**6, hold=True)
settings = UpstreamSettings(folder=sys.argv[2], batch_rows=7, batch_seconds=0.02)
outbox, transport = Outbox(spool, "house", 2**24), FolderTransport(Path(sys.argv[2]))
upstream = Upstream(outbox, transport, settings, clock)
upstream.start()
n = int(sys.argv[3])
while True:
    t = f"2016-06-{1 + n // 86400:02d}T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
    r = Reading(t, "mast", "wind_speed", float(n % 97), "m s-1")
    spool.append([(r, check_reading(r))]).result(20)
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("point", ["observations.commit", "observations.stored"])
def test_a_receiver_that_is_killed_stores_each_batch_once(tmp_path, point):
    folder = tmp_path / "inbox"
    spool = make_spool(tmp_path)
    spool.append(checked(*(reading(n) for n in range(6)))).result(20)
    upstream = Upstream(
        Outbox(spool, "house", 2**20),
        FolderTransport(folder),
        UpstreamSettings(folder=folder, batch_rows=2),
        spool._clock,
    )
    while upstream.step():
        pass
    spool.close()
    path = tmp_path / "o.sqlite"
    for _ in range(2):
        process = python(RECEIVER, path, folder, failpoint=point)
        process.communicate(timeout=30)
        assert process.returncode == -9
    with ObservationStore(path) as store:
        take_folder(store, folder)
        assert store.counts() == {"batches": 3, "readings": 6, "predictions": 0}


def test_a_sender_killed_between_delivery_and_note_sends_again(tmp_path):
    folder = tmp_path / "inbox"
    process = python(SENDER, tmp_path / "s.sqlite", folder, 0, failpoint="upstream.sent")
    acknowledged = {int(line) for line in process.communicate(timeout=30)[0].split()}
    assert process.returncode == -9
    settle_and_compare(tmp_path, folder, acknowledged)


def test_what_has_a_receipt_arrives_once_whenever_the_sender_is_killed(tmp_path):
    folder = tmp_path / "inbox"
    acknowledged: set[int] = set()
    for trial in range(4):
        start = max(acknowledged, default=-1) + 1
        process = python(SENDER, tmp_path / "s.sqlite", folder, start)
        for _ in range(20 + 7 * trial):
            acknowledged.add(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        # Not communicate(): it reads past what readline has read ahead.
        acknowledged |= {int(line) for line in process.stdout.read().split()}
        process.wait(30)
        process.stdout.close()
    settle_and_compare(tmp_path, folder, acknowledged)


def settle_and_compare(tmp_path, folder, acknowledged):
    spool = make_spool(tmp_path, max_rows=10**6)
    clock = spool._clock
    upstream = Upstream(
        Outbox(spool, "house", 2**24),
        FolderTransport(folder),
        UpstreamSettings(folder=folder),
        clock,
    )
    clock.advance(60)
    while upstream.step():
        pass
    spool.close()
    with ObservationStore(tmp_path / "o.sqlite") as store:
        while take_folder(store, folder):
            pass
        times = [r.time for _, r in store.readings(limit=10**6)]
    assert len(times) == len(set(times))
    missing = {n for n in acknowledged if stamp(n) not in set(times)}
    assert not missing
    # One append may have been committed whose receipt the kill swallowed.
    assert len(times) <= len(acknowledged) + 4


def stamp(n):
    return f"2016-06-{1 + n // 86400:02d}T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(spool, first=0):
    """Append until the disk is full; return what has a receipt, and the reason of the refusal."""
    receipts = []
    while True:
        part = [reading(first + len(receipts) + i) for i in range(50)]
        error = spool.append(checked(*part)).exception(20)
        if error is not None:
            return receipts, error.reason
        receipts += part


def test_a_full_disk_costs_receipts_and_nothing_that_had_one(small_disk):
    spool = make_spool(small_disk, max_rows=10**6)
    receipts, reason = fill(spool)
    assert reason == "disk"
    assert fill(spool, len(receipts)) == ([], "disk")
    spool.close()
    # Room again: the agent comes up and takes what its senders repeat.
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    spool = make_spool(small_disk, max_rows=10**6)
    kept = [(r.time, r.value) for r in spool.after(0, 10**6)]
    assert kept == [(r.time, r.value) for r in receipts]
    assert spool.append(checked(reading(len(receipts)))).result(20).new == 1
    spool.close()


def test_a_disk_that_has_room_again_is_used_without_a_restart(small_disk):
    spool = make_spool(small_disk, max_rows=10**6)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(600_000))
    receipts, reason = fill(spool)
    assert reason == "disk"
    filler.unlink()
    assert spool.append(checked(reading(len(receipts)))).result(20).new == 1
    assert len(spool.after(0, 10**6)) == len(receipts) + 1
    spool.close()
