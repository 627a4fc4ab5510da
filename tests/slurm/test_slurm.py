"""Campaigns on a real Slurm: in a hole of its plan, and through everything that ends blocks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from apps.datasets import read_simulation

pytestmark = [pytest.mark.campaign, pytest.mark.slurm, pytest.mark.timeout(900)]

CAMPAIGN = """
name = "slow"
seed = 7
[fidelity]
cells = [{cells}]
[resources]
batch = {batch}
[frozen]
selection = 4
calibration = 4
evaluation = 16
[training]
first = 8
growth = 4
min_improvement = 0.0
[replay]
rate = 20.0
minimum_answers = 1
[budget]
simulations = {simulations}
wall_seconds = 600
"""

#: Many solver steps fit into this; a single one never takes as long here, s.
STEP_SECONDS = 1.5

#: Share of a block's core-seconds inside tasks, between its first task and its last.
BUSY = 0.95


def text(simulations, cells="44, 32, 16", batch=2):
    """Return a campaign file; its tasks take seconds, so that they are met in their middle."""
    return CAMPAIGN.format(simulations=simulations, cells=cells, batch=batch)


def check_result(run):
    """Assert that a campaign has ended whole, and repeated nothing."""
    states = run.query("SELECT state, count(*) FROM simulation GROUP BY state")
    assert [state for state, _ in states] == ["done"], states
    done = {f"{digest}.nc" for (digest,) in run.query("SELECT digest FROM simulation")}
    assert done == set(run.finished())
    for name in done:
        assert read_simulation(run.folder.simulations / name).digest == name.removesuffix(".nc")
    candidates = run.query("SELECT state, task FROM candidate ORDER BY number")
    trained = run.query("SELECT count(*) FROM simulation WHERE role = 'training'")[0][0]
    assert len(json.loads(candidates[-1][1])["digests"]) == trained
    assert "published" in [state for state, _ in candidates]
    assert not [state for state, _ in candidates if state in ("training", "trained", "failed")]


def test_a_dry_run_shows_windows_blocks_and_script_and_submits_nothing(cluster, campaign):
    run = campaign(text(4), CORES=3)
    done = subprocess.run(
        [sys.executable, "workflows/campaign.py", "--machine", "slurm", "--dry-run",
         "--campaign", str(run.file), "--out", str(run.folder.root)],
        env=run.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "windows in normal: 1\n  6 nodes x 4 cores x 86400 s" in done.stdout
    assert "block 1: 1 x 3 cores x" in done.stdout
    for line in ("#SBATCH --no-requeue", "#SBATCH --cpus-per-task=3", "trap '' TERM"):
        assert line in done.stdout
    assert "#SBATCH --exclusive" not in done.stdout
    assert not run.folder.root.exists()
    assert not cluster.jobs()


def test_in_a_hole(cluster, campaign, until, record_property):
    """Two nodes for three minutes are free; the walltime expires in the middle of simulations."""
    first = cluster.job("-N4", "--exclusive", "-t3", "-Jfirst", seconds=178)
    until(lambda: cluster.jobs().get(first) == "RUNNING", 30)
    wide = cluster.job("-N6", "--exclusive", "-t5", "-Jwide", seconds=2)
    until(lambda: cluster.run("squeue", "-h", "-j", wide, "-o", "%S") != "N/A", 60)

    # Blocks of one minute that give tasks no time to end: all expire within simulations. The
    # grid is fine enough that an idle machine does not finish within the first of them.
    small = campaign(
        text(40, cells="64, 48, 24", batch=1), MAX_MINUTES=1, MAX_NODES=2, CORES=1, LEAVE=4
    )
    small.start()
    fixed = campaign(text(8), FIXED_MINUTES=10, CORES=1).start()
    [waiting] = until(lambda: [e["job"] for e in fixed.events("block_asked")], 120)
    until(lambda: wide in cluster.records(), 240)
    small.wait(400)
    fixed.stop()
    check_result(small)

    records = cluster.records()
    ends = small.ends()
    blocks = sorted(ends, key=lambda job: records[job][1])
    _, first_start, first_end = records[first]
    _, wide_start, _ = records[wide]
    inside = [job for job in blocks if records[job][1] < first_end]
    assert first_start < records[inside[0]][1] < first_end - 60, "it starts in the hole"
    assert ends[inside[0]]["waited_seconds"] < 10, "at once"
    assert sum(ends[job]["tasks"] for job in inside) > 0, "it finished work there"
    assert all(records[job][2] <= first_end for job in inside), "it never asked for more"
    # Without us the wide job would have started when the first one ended.
    record_property("wide_delayed_seconds", wide_start - first_end)
    assert wide_start - first_end < 60
    # From Slurm's records: on a slow machine squeue has forgotten the job by now (MinJobAge).
    if waiting in cluster.jobs():
        cluster.run("scancel", waiting)
    until(lambda: waiting in cluster.records(), 120)
    fixed_start = cluster.records()[waiting][1]
    assert fixed_start is None or fixed_start >= wide_start

    assert len(blocks) > 1
    assert small.events("task_unfinished"), "a simulation went on in another block"
    assert not small.events("task_lost")
    assert sum(end["lost_seconds"] for end in ends.values()) <= STEP_SECONDS


def test_whatever_ends_a_block(cluster, campaign, until, record_property):
    # More work than can be done here, so that no block is asked for a minute or ends by itself.
    run = campaign(text(1200), PARTITION="scavenge").start()
    seen = []
    costs = {}

    def next_block():
        job = until(lambda: run.busy_block(seen), 150, "no block at work")
        seen.append(job)
        time.sleep(2)  # some work to lose
        return job

    def ended(job, *states, seconds=120):
        end = until(lambda: run.ends().get(job), seconds, f"{job} has not ended")
        assert end["state"] in states, end
        costs[states[0]] = end["lost_seconds"]
        return end

    job = next_block()
    cluster.job("-N6", "--exclusive", "-t1", "-Jurgent", seconds=1)
    # It writes its checkpoints and goes by itself, before Slurm has to end it.
    end = ended(job, "COMPLETED", "PREEMPTED")
    assert end["recalled"]
    assert end["lost_seconds"] <= STEP_SECONDS

    job = next_block()
    cluster.run("scancel", job)
    # Slurm's KillWait is all the grace there is; a busy machine may need longer.
    ended(job, "CANCELLED")

    job = next_block()
    before = run.finished()
    for process in run.pools(job):
        process.kill()
    assert ended(job, "FAILED")["lost_seconds"] > 0

    job = next_block()
    cluster.kill_controller(job)
    time.sleep(4)  # for so long nobody answers
    cluster.start()
    until(lambda: cluster.jobs().get(job) == "RUNNING", 30, "the block outlives its controller")
    assert job not in run.ends()

    node = cluster.run("squeue", "-h", "-j", job, "-o", "%N")
    os.kill(cluster.pid(f"slurmd.{node}"), signal.SIGKILL)
    ended(job, "NODE_FAIL", seconds=180)
    cluster.start()

    assert run.busy_block(seen) or next_block()
    run.process.kill()
    run.process.wait()
    assert run.process.returncode == -signal.SIGKILL
    before |= run.finished()
    run.file.write_text(text(8))  # enough is done
    run.start("--resume").wait(300)
    check_result(run)
    after = run.finished()
    assert {name: after[name] for name in before} == before, "something finished was repeated"
    until(lambda: not cluster.jobs("rbf-"), 30, "an orphan job")
    record_property("lost_seconds", costs)


def test_blocks_are_spent_inside_tasks(campaign, record_property):
    """On an idle cluster, with simulations of a few seconds."""
    run = campaign(text(24, cells="64, 48, 24", batch=1), CORES=2)
    run.start().wait(600)
    check_result(run)
    ends = list(run.ends().values())
    weight = sum(end["task_seconds"] for end in ends)
    busy = sum(end["busy"] * end["task_seconds"] for end in ends if end["busy"]) / weight
    record_property("busy", busy)
    assert busy >= BUSY, ends
