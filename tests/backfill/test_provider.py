"""The provider against a Slurm that is slow, fails, forgets and takes jobs it denies."""

import json
import time

import pytest
from parsl.jobs.states import JobState

from apps.trace import pool_ended, traced
from workflows.backfill.planner import Backlog, BlockShape, Limits, RunTime
from workflows.backfill.provider import STILLBORN, GapProvider
from workflows.backfill.slurm import Slurm
from workflows.errors import NoWindow, SchedulerError

BACKLOG = Backlog(20, (RunTime(1, 10.0),))


class FakeSlurm:
    """A scheduler in a dictionary, behind the commands."""

    def __init__(self):
        self.jobs = {}
        self.ended = {}
        self.asked = []
        self.broken = None
        self.deny = False
        self.empty = False
        self.pending = ""

    def __call__(self, command, _timeout):
        self.asked.append(command)
        if self.broken:
            raise SchedulerError(self.broken)
        return getattr(self, command[0])(command)

    def sinfo(self, _command):
        return "a|idle|0/4/0/4|1000\nb|idle|0/4/0/4|1000\n"

    def squeue(self, command):
        if "--me" not in command:
            return self.pending
        return "" if self.empty else "".join(f"{j}|{'|'.join(r)}\n" for j, r in self.jobs.items())

    def scontrol(self, command):
        if command[3:4] == ("partition",):
            return "PartitionName=p MaxTime=1-00:00:00 State=UP"
        if command[3:4] == ("job",):
            if command[4] in self.jobs:
                return f"JobId={command[4]} JobState={self.jobs[command[4]][0]}"
            if command[4] in self.ended:
                return f"JobId={command[4]} JobState={self.ended[command[4]]}"
            raise SchedulerError("scontrol: slurm_load_jobs error: Invalid job id specified")
        return ""

    def sbatch(self, command):
        job = str(100 + len(self.jobs))
        name = command[-1].rpartition("/")[2].removesuffix(".sh")
        self.jobs[job] = ("PENDING", "N/A", "N/A", "", name)
        if self.deny:
            raise SchedulerError("sbatch: Socket timed out on send/recv operation")
        return f"{job};cluster\n"

    def scancel(self, command):
        for job in command[1:]:
            self.jobs.pop(job)
            self.ended[job] = "CANCELLED"
        return ""

    def becomes(self, job, state, start=None, end=None):
        times = [
            "N/A" if t is None else time.strftime("%FT%T", time.localtime(t)) for t in (start, end)
        ]
        self.jobs[job] = (state, *times, "a", self.jobs[job][-1])


@pytest.fixture
def scheduler():
    return FakeSlurm()


@pytest.fixture
def make(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr("parsl.providers.SlurmProvider.execute_wait", lambda *_: (1, "", "none"))

    def make(**options):
        provider = GapProvider(
            blocks=tmp_path / "blocks",
            limits=Limits(max_cores=2, max_nodes=1),
            slurm=Slurm(run=scheduler),
            partition="p",
            exclusive=False,
            max_blocks=4,
            scheduler_options="#SBATCH --no-requeue",
            **options,
        )
        provider.backlog = BACKLOG
        return provider

    return make


def kinds(provider):
    found = []
    while not provider.events.empty():
        found.append(provider.events.get())
    return found


def test_a_block_is_what_the_planner_says(make, tmp_path):
    provider = make()
    job = provider.submit("watch --workers WORKERS --walltime WALLTIME", 1)
    shape = provider.blocks[job].shape
    script = next((tmp_path / "blocks").glob("*.sh")).read_text()
    assert f"#SBATCH --time={shape.minutes}\n" in script
    assert "#SBATCH --cpus-per-task=2" in script
    assert "--exclusive" not in script
    assert f"watch --workers 2 --walltime {60 * shape.minutes}" in script
    [(kind, event)] = kinds(provider)
    assert (kind, event["job"]) == ("block_asked", job)
    assert "window of 2 x 4" in event["reason"]
    assert provider.status([job])[0].state == JobState.PENDING


def test_no_block_without_work_and_one_word_about_it(make):
    provider = make()
    provider.backlog = Backlog(0, (RunTime(1, 10.0),))
    for _ in range(3):
        with pytest.raises(NoWindow):
            provider.submit("watch", 1)
    assert [kind for kind, _ in kinds(provider)] == ["block_declined"]


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("TIMEOUT", JobState.TIMEOUT),
        ("PREEMPTED", JobState.TIMEOUT),
        ("NODE_FAIL", JobState.FAILED),
        ("FAILED", JobState.FAILED),
        ("OUT_OF_MEMORY", JobState.FAILED),
        ("COMPLETED", JobState.COMPLETED),
        ("CANCELLED", JobState.CANCELLED),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_ends_are_told_apart_without_accounting(make, scheduler, state, seen, listed):
    provider = make()
    job = provider.submit("watch", 1)
    now = time.time()
    scheduler.becomes(job, "RUNNING", now - 50, now + 10)
    provider.refresh()
    assert provider.status([job])[0].state == JobState.RUNNING
    if listed:
        scheduler.becomes(job, state, now - 50, now)
    else:
        del scheduler.jobs[job]
        scheduler.ended[job] = state
    provider.refresh()
    provider.refresh()
    assert provider.status([job])[0].state == seen
    ended = [event for kind, event in kinds(provider) if kind == "block_ended"]
    assert [event["state"] for event in ended] == [state]


def test_an_empty_squeue_ends_nothing(make, scheduler):
    provider = make()
    job = provider.submit("watch", 1)
    scheduler.becomes(job, "RUNNING", time.time(), time.time() + 60)
    scheduler.empty = True
    for _ in range(5):
        provider.refresh()
    assert provider.status([job])[0].state == JobState.RUNNING


def test_a_job_that_slurm_has_forgotten_is_over(make, scheduler):
    provider = make()
    first, second = provider.submit("watch", 1), provider.submit("watch", 1)
    now = time.time()
    scheduler.becomes(first, "RUNNING", now - 100, now - 1)
    scheduler.becomes(second, "RUNNING", now - 10, now + 50)
    provider.refresh()
    scheduler.jobs.clear()
    provider.refresh()
    provider.refresh()
    assert [provider.blocks[j].state for j in (first, second)] == ["TIMEOUT", "GONE"]


def test_a_slurm_that_does_not_answer_changes_nothing_and_is_told_once(make, scheduler):
    provider = make()
    job = provider.submit("watch", 1)
    kinds(provider)
    scheduler.broken = "squeue: timed out"
    for _ in range(4):
        provider.refresh()
    assert len([c for c in scheduler.asked if "--me" in c]) == 1, "it rests"
    assert provider.status([job])[0].state == JobState.PENDING
    scheduler.broken = None
    provider.slurm._not_before = 0.0
    provider.refresh()
    assert [kind for kind, _ in kinds(provider)] == ["scheduler_silent", "scheduler_answers"]


def test_a_job_whose_answer_was_lost_is_found(make, scheduler):
    provider = make()
    scheduler.deny = True
    with pytest.raises(SchedulerError):
        provider.submit("watch", 1)
    assert provider.blocks == {}
    provider.slurm._not_before = 0.0
    provider.refresh()
    [job] = provider.blocks
    assert provider.blocks[job].shape.cores == 2
    assert kinds(provider)[-1][0] == "block_adopted"


def test_a_restarted_campaign_adopts_its_blocks_and_cancels_strangers_of_its_name(make, scheduler):
    old = make()
    job = old.submit("watch", 1)
    scheduler.jobs["7"] = ("PENDING", "N/A", "N/A", "", f"{old.tag}-unknown")
    scheduler.jobs["8"] = ("PENDING", "N/A", "N/A", "", "rbf-another-campaign")
    new = make()
    new.refresh()
    assert list(new.blocks) == [job]
    assert new.blocks[job].shape == old.blocks[job].shape
    assert set(scheduler.jobs) == {job, "8"}


def test_an_end_that_comes_nearer_is_a_recall(make, scheduler):
    provider = make()
    job = provider.submit("watch", 1)
    now = time.time()
    for left in (300, 302, 20, 20):
        scheduler.becomes(job, "RUNNING", now, now + left)
        provider.refresh()
    recalls = [event for kind, event in kinds(provider) if kind == "block_recalled"]
    assert len(recalls) == 1
    assert recalls[0]["seconds_left"] == pytest.approx(20, abs=2)


def test_fixed_blocks_ask_nobody(make, scheduler):
    provider = make(fixed=BlockShape(1, 2, 10))
    provider.submit("watch", 1)
    assert all(command[0] == "sbatch" for command in scheduler.asked)
    with pytest.raises(NoWindow):
        provider.submit("watch", 1)


def test_the_cost_of_a_block(make, scheduler, tmp_path):
    provider = make()
    job = provider.submit("watch", 1)
    folder = tmp_path / "blocks" / job
    folder.mkdir()
    began = time.time()
    with traced(folder, "simulate", "whole"):
        time.sleep(0.1)
    cut = traced(folder, "simulate", "cut")
    cut.__enter__()
    time.sleep(0.3)
    pool_ended(folder)
    time.sleep(0.3)
    scheduler.becomes(job, "FAILED", began, time.time() + 1)
    provider.refresh()
    event = dict(kinds(provider))["block_ended"]
    assert event["tasks"] == 1
    assert event["lost_seconds"] == pytest.approx(0.3, abs=0.1)
    assert event["task_seconds"] == pytest.approx(0.4, abs=0.1)


def test_a_checkpoint_saves_what_it_holds(make, scheduler, tmp_path):
    provider = make()
    job = provider.submit("watch", 1)
    folder = tmp_path / "blocks" / job
    folder.mkdir()
    checkpoint = tmp_path / "checkpoint"
    traced(folder, "simulate", "cut", str(checkpoint)).__enter__()
    time.sleep(0.3)
    checkpoint.write_text("state")
    scheduler.becomes(job, "TIMEOUT", time.time(), time.time())
    provider.refresh()
    assert dict(kinds(provider))["block_ended"]["lost_seconds"] <= 0.05


def test_stillborn_blocks_are_counted(make, scheduler):
    provider = make()
    for _ in range(STILLBORN):
        job = provider.submit("watch", 1)
        scheduler.becomes(job, "FAILED", time.time(), time.time())
        provider.refresh()
    assert provider.stillborn == STILLBORN


def test_requests_are_files_that_a_person_can_read(make, tmp_path):
    provider = make()
    provider.submit("watch", 1)
    request = json.loads(next((tmp_path / "blocks").glob("*.json")).read_text())
    assert request["shape"]["cores"] == 2
    assert request["reason"]
