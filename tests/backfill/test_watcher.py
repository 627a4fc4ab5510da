"""The watcher: the deadline file, and whom it lets live."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from apps.deadline import FileDeadline
from workflows.backfill.watcher import DEADLINE, LAUNCH, LEAVE, SAFETY, Launch, Watcher
from workflows.edge import wait_until

POOL = """echo "$RBF_DEADLINE $*" >> {log}
trap 'echo TERM >> {log}' TERM
while true; do sleep 0.05; done
"""


class Campaign:
    """The campaign's side of the folder: a heartbeat."""

    def __init__(self, folder, command):
        self.folder = folder
        self.launch = Launch("first", command, leave_seconds=5.0)
        self.beating = True
        self.launch.write(folder / LAUNCH)
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self):
        while self.folder.exists():
            if self.beating:
                self.launch = replace(self.launch, beat=self.launch.beat + 1)
                self.launch.write(self.folder / LAUNCH)
            time.sleep(0.2)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "pool.log"


@pytest.fixture
def campaign(tmp_path, log):
    script = tmp_path / "pool.sh"
    script.write_text(POOL.format(log=log))
    folder = tmp_path / "blocks"
    folder.mkdir()
    campaign = Campaign(folder, f"sh {script} --block_id={{block_id}}")
    yield campaign
    campaign.beating = False


@pytest.fixture
def watcher(campaign):
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.backfill.watcher", "--blocks", str(campaign.folder),
         "--job", "5", "--workers", "3", "--walltime", "60", "--no-slurm", "--patience", "2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    for child in [*psutil.Process(process.pid).children(recursive=True)] if alive(process) else []:
        child.kill()
    process.kill()
    process.communicate()


def alive(process):
    return process.poll() is None


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def deadline(campaign):
    return json.loads((campaign.folder / "5" / DEADLINE).read_bytes())


def test_the_pool_runs_and_knows_its_deadline(campaign, watcher, log):
    assert wait_until(lambda: lines(log), 10)
    assert alive(watcher)
    path, *options = lines(log)[0].split()
    assert path == str(campaign.folder / "5" / DEADLINE)
    assert options[:2] == ["--block_id=5", "--max_workers_per_node=3"]
    drain = int(options[2].removeprefix("--drain_period="))
    assert drain == pytest.approx(60 - 5, abs=5)
    assert deadline(campaign)["ends_at"] == pytest.approx(time.time() + 60 - SAFETY, abs=8)


def test_sigterm_asks_tasks_to_stop_and_the_pool_hears_nothing(campaign, watcher, log):
    assert wait_until(lambda: lines(log), 10)
    watcher.send_signal(signal.SIGTERM)
    for child in psutil.Process(watcher.pid).children(recursive=True):
        child.send_signal(signal.SIGTERM)
    assert wait_until(lambda: deadline(campaign)["stop"], 5)
    assert FileDeadline(campaign.folder / "5" / DEADLINE).stop_requested()
    assert alive(watcher)
    assert "TERM" not in lines(log)
    children = psutil.Process(watcher.pid).children(recursive=True)
    (campaign.folder / "5" / LEAVE).touch()
    assert watcher.wait(10) == 0
    assert not [child for child in children if child.is_running()]


def test_a_silent_campaign_is_waited_for_a_little(campaign, watcher, log):
    assert wait_until(lambda: lines(log), 10)
    campaign.beating = False
    assert watcher.wait(10) == 0
    assert "silent" in watcher.stderr.read()


def test_the_next_campaign_gets_the_block(campaign, watcher, log):
    assert wait_until(lambda: lines(log), 10)
    first = psutil.Process(watcher.pid).children()[0]
    campaign.launch = replace(campaign.launch, generation="second")
    assert wait_until(lambda: len(lines(log)) == 2, 10)
    assert alive(watcher)
    assert not first.is_running()


def test_a_pool_that_is_killed_ends_the_block_with_a_failure(campaign, watcher, log):
    assert wait_until(lambda: lines(log), 10)
    os.kill(psutil.Process(watcher.pid).children()[0].pid, signal.SIGKILL)
    assert watcher.wait(10) == signal.SIGKILL
    assert campaign.beating


def test_an_end_that_moves_is_written_and_silence_keeps_what_was_known(campaign):
    ends = iter([time.time() + 600, None, time.time() + 20])
    now = [next(ends)]

    def end(_job):
        now[0] = next(ends, now[0])
        return now[0]

    watcher = Watcher(campaign.folder, "6", 1, 60.0, period=0.0, end=end)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    path = campaign.folder / "6" / DEADLINE
    try:
        assert wait_until(
            lambda: path.exists() and FileDeadline(path).remaining() < 20 - SAFETY, 10
        )
    finally:
        (campaign.folder / "6" / LEAVE).touch()
        thread.join(10)
    assert not thread.is_alive()
