"""What Slurm says, read: answers of two versions (tests/backfill/captured)."""

import itertools
import math
from datetime import datetime
from pathlib import Path

import pytest

from workflows.backfill.slurm import (
    Slurm,
    expand,
    hides_jobs,
    parse_duration,
    parse_jobs,
    parse_nodes,
    parse_partition,
    parse_pending,
    parse_reservations,
)
from workflows.backfill.windows import Window, read_gaps
from workflows.errors import SchedulerError

CAPTURED = Path(__file__).parent / "captured"


def read(version, name):
    return (CAPTURED / version / f"{name}.txt").read_text()


def at(text):
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
def answers():
    """Return a runner of commands that answers with what was captured."""

    def make(version):
        files = {"squeue": "pending", "sinfo": "sinfo"}

        def run(command, _timeout):
            name = files.get(command[0]) or {
                "reservation": "reservations", "partition": "partition", "config": "config",
            }[next(w for w in command if w in ("reservation", "partition", "config"))]  # fmt: skip
            return read(version, name)

        return Slurm(run=run)

    return make


def test_22_05_shows_the_hole(answers):
    now = at("2026-11-20T17:34:40")
    reading = answers("22.05").read("normal", (), now)
    assert {gap.node: (gap.cores, gap.seconds) for gap in reading.gaps if gap.cores} == {
        "node5": (2, 177.0),
        "node6": (4, 177.0),
    }
    assert reading.unplanned == 0
    assert not reading.hidden
    assert reading.windows() == (Window(2, 2, 177.0, "normal"), Window(1, 4, 177.0, "normal"))


def test_our_own_planned_start_ends_no_window(answers):
    reading = answers("22.05").read("normal", ["2"], at("2026-11-20T17:34:40"))
    # The reservation in ten minutes is left; the partition takes a day.
    assert {w.seconds for w in reading.windows()} == {602.0, 86400.0}


def test_24_05_states_arrays_lists_and_reservations():
    now = at("2026-11-20T18:00:00")
    nodes = parse_nodes(read("24.05", "sinfo"))
    usable = [name for name, good, _ in nodes if good]
    assert usable == ["r1i0n01", "r1i0n02", "r1i1n01"]
    promises, unplanned = parse_pending(read("24.05", "pending"), frozenset({"900"}), now)
    assert unplanned == 2
    promises += parse_reservations(read("24.05", "reservations"), now)
    gaps = {gap.node: (gap.cores, gap.seconds) for gap in read_gaps(nodes, promises)}
    assert gaps == {"r1i0n01": (64, 600.0), "r1i0n02": (32, 1800.0), "r1i1n01": (64, 600.0)}
    partition = parse_partition(read("24.05", "partition"))
    assert (partition.max_nodes, partition.max_seconds) == (16, 2.5 * 86400 + 1800)
    assert (partition.up, partition.grace_seconds) == (True, 60.0)


def test_private_jobs_are_noticed():
    assert hides_jobs(read("24.05", "config"))
    assert not hides_jobs(read("22.05", "config"))


def test_our_jobs():
    jobs = {job.id: job for job in parse_jobs(read("24.05", "jobs"))}
    assert jobs["901"].nodes == ("r1i0n01", "r1i0n02")
    assert jobs["901"].name == "rbf-abc-2|with a bar"
    assert jobs["902"].state == "PREEMPTED"
    assert jobs["903"].start is None
    assert [job.state for job in parse_jobs(read("22.05", "jobs"))][1:] == ["RUNNING"] * 2
    assert parse_jobs(read("22.05", "ended"))[0].state == "CANCELLED"


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", ()),
        ("(null)", ()),
        ("gpu1", ("gpu1",)),
        ("cn[001-003,7],gpu1", ("cn001", "cn002", "cn003", "cn7", "gpu1")),
        ("r[1-2]n[09-10]", ("r1n09", "r1n10", "r2n09", "r2n10")),
        ("a[1-2]-ib,b", ("a1-ib", "a2-ib", "b")),
    ],
)
def test_lists_of_nodes(text, nodes):
    assert expand(text) == nodes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("UNLIMITED", math.inf), ("30:00", 1800), ("1-00:00:00", 86400), ("02:30:10", 9010)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


def test_a_slurm_that_fails_is_asked_less_and_less_often():
    now, asked = [0.0], []

    def run(command, _timeout):
        asked.append(now[0])
        raise SchedulerError("no answer", command=command[0], returncode=1)

    slurm = Slurm(run=run, clock=lambda: now[0])
    for _ in range(300):
        if not slurm.resting:
            with pytest.raises(SchedulerError):
                slurm.jobs()
        now[0] += 1
    pauses = [b - a for a, b in itertools.pairwise(asked)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert slurm.failures == len(asked)


def test_a_forgotten_job_is_an_answer_and_no_failure():
    def run(_command, _timeout):
        raise SchedulerError("scontrol: slurm_load_jobs error: Invalid job id specified")

    slurm = Slurm(run=run)
    assert slurm.job_state("7") is None
    assert slurm.failures == 0
    assert not slurm.resting


def test_the_state_of_one_job():
    slurm = Slurm(run=lambda *_: read("22.05", "job").replace("\n", " "))
    assert slurm.job_state("3") == "RUNNING"
