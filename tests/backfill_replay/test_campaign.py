import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workflows.backfill.planner import BlockShape, Limits, RunTime
from workflows.backfill.replay.campaign import SimulatedCampaign, windows_from_plan
from workflows.backfill.replay.profile import Profile
from workflows.backfill.replay.results import as_json
from workflows.backfill.replay.scheduler import Conservative, Easy
from workflows.backfill.replay.simulation import Machine
from workflows.backfill.replay.slurm import Slurm
from workflows.backfill.replay.study import Study, run
from workflows.backfill.replay.swf import Job, Trace, TraceError
from workflows.backfill.replay.tasks import Strategy, Work, cut, read_run_times
from workflows.backfill.replay.validation import agreement, free_running
from workflows.backfill.windows import Window

ROOT = Path(__file__).resolve().parents[2]
WORK = Work((RunTime(1, 100.0), RunTime(4, 40.0)), frozen=2, first=2, training_seconds=30)
LIMITS = Limits(max_nodes=2, max_cores=4)
AWARE = Strategy("a", knows_deadline=True)
BLIND = Strategy("b", BlockShape(1, 2, 7))


def busy(procs=8, seed=0, jobs=60):
    rng = np.random.default_rng(seed)
    submits = np.sort(rng.integers(0, 6000, jobs))
    made = []
    for i, at in enumerate(submits):
        run_ = int(rng.integers(10, 600))
        made.append(Job(i + 1, float(at), int(rng.integers(1, procs + 1)),
                        float(run_ + rng.integers(0, 600)), float(run_), float(at)))  # fmt: skip
    return Trace("t", procs, 0, tuple(made))


def test_windows_hold_what_is_free_and_no_more():
    profile = Profile(10, 40)
    profile.take(10, 50, 5)
    profile.take(110, 200, 37)
    windows = windows_from_plan(profile, 10, 16)
    assert {w for w in windows if w.seconds == 100} == {Window(2, 16, 100), Window(3, 11, 100)}
    assert {w for w in windows if w.seconds > 100} == {Window(1, 3, np.inf)}


def test_a_task_that_knows_the_end_loses_nothing():
    work = Work((), checkpoint_every=30, checkpoint_seconds=1)
    found = cut(1000, 100, work, AWARE, resumed=True)
    assert (found.wall, found.lost, found.finished) == (100, 0, False)
    assert found.kept == 100 - 1 - 3 - 1  # going on, three on the way, one at the end
    assert found.kept + found.lost + found.overhead == 100


def test_a_task_that_does_not_loses_what_it_did_since_the_last_checkpoint():
    work = Work((), checkpoint_every=30, checkpoint_seconds=1)
    found = cut(1000, 100, work, BLIND, resumed=False)
    assert (found.kept, found.lost, found.overhead) == (90, 7, 3)
    assert cut(50, 100, work, BLIND, resumed=False).finished


@pytest.mark.parametrize("kind", [Slurm, Easy, Conservative])
@pytest.mark.parametrize(
    "strategy", [AWARE, BLIND, Strategy("c", BlockShape(1, 4, 2, 4), tasks_per_slot=1)]
)
def test_accounts_add_up(kind, strategy):
    trace = busy()
    machine = Machine(kind(trace.procs), trace.jobs)
    campaign = SimulatedCampaign(machine, strategy, WORK, LIMITS, 30)
    machine.run(6000)
    account = campaign.stop()
    machine.run(1e5)
    held = sum((machine.ends[n] - machine.starts[n]) for n in machine.starts if n < 0)
    assert account.finished > 0
    assert account.blocks == len(account.waited) == sum(n < 0 for n in machine.starts)
    assert account.allocated >= held
    assert account.idle >= 0
    parts = account.worked + account.lost + account.overhead + account.idle
    assert parts == pytest.approx(account.allocated)
    if strategy.knows_deadline:
        assert account.lost == 0
    # Nobody of the others is lost, and the campaign leaves nothing behind.
    assert {j.number for j in trace.jobs} <= machine.starts.keys()
    assert machine.scheduler.idle == trace.procs


@pytest.mark.parametrize("kind", [Slurm, Easy, Conservative])
def test_planned_blocks_on_an_idle_machine_start_at_once(kind):
    machine = Machine(kind(8), (Job(1, 0, 1, 1, 1),))
    campaign = SimulatedCampaign(machine, AWARE, WORK, LIMITS)
    machine.run(3600)
    account = campaign.stop()
    assert max(account.waited) == 0
    assert account.first_model is not None
    assert account.models >= 2
    # 8 cores, 100 core-seconds each: less what starts, ends and trainings take.
    assert 0.8 * 288 < account.finished <= 288


def test_the_study_is_deterministic_and_serialises():
    trace = busy(jobs=30)
    study = Study(trace, WORK, starts=2, length=1500, limits=LIMITS, poll_seconds=60)
    first, second = (run(study, workers) for workers in (1, 2))
    assert first == second or json.dumps(as_json(first)) == json.dumps(as_json(second))
    assert len(first.rows) == 3 * len(study.strategies)
    json.dumps(as_json(first), allow_nan=False)


def test_a_machine_too_small_for_any_simulation_is_named():
    study = Study(busy(procs=2), Work((RunTime(4, 40.0),)))
    with pytest.raises(TraceError, match="no measured run time"):
        run(study)


def test_agreement():
    trace = busy(jobs=3)
    found = free_running(trace, {j.number: j.logged_start + 30 * j.number for j in trace.jobs})
    assert (found.jobs, found.median, found.bias) == (3, 60, 60)
    assert found.within_minute == pytest.approx(2 / 3)
    assert agreement([]).jobs == 0


def test_command_on_thousands_of_nodes(tmp_path):
    rng = np.random.default_rng(3)
    at = np.sort(rng.integers(0, 3 * 86400, 300))
    lines = ["; MaxProcs: 4096"]
    for i, submit in enumerate(at, 1):
        run_, procs = rng.integers(60, 20000), 2 ** rng.integers(4, 12)
        lines.append(
            f"{i} {submit} 0 {run_} {procs} -1 -1 {procs} {2 * run_} -1 1 1 1 -1 -1 -1 -1 -1"
        )
    (tmp_path / "t.swf").write_text("\n".join(lines))
    command = [sys.executable, "benchmarks/backfill_replay.py", "--trace", tmp_path / "t.swf"]
    options = ["--json", tmp_path / "r.json", "--starts", "1", "--weeks", "0.1"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "planned blocks" in done.stdout
    assert "| slurm | together | all |" in done.stdout
    assert len(json.loads((tmp_path / "r.json").read_text())["rows"]) == 15
    missing = subprocess.run([*command[:-1], "none"], cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 2
    assert "none" in missing.stderr


def test_reads_the_published_scaling():
    times = read_run_times(ROOT / "data" / "reference" / "cfd_scaling_notre_dame.csv")
    assert times[0] == RunTime(1, 3458.0, 286.0)
    assert [t.cores for t in times] == [1, 2, 4, 8, 16, 24, 32, 64]
