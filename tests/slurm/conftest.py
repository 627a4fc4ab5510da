"""A real Slurm of six nodes on this machine, and campaigns on it."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from workflows.edge import wait_until
from workflows.layout import RunFolder

HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")


def missing():
    """Return why there can be no cluster, or None."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if absent:
        return f"no Slurm: {', '.join(absent)} not found (Debian: slurmctld slurmd slurm-client)"
    if os.geteuid() != 0:
        return "a cluster on this machine needs root"
    return None


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.env = os.environ | {
            "RBF_SLURM_DIR": str(folder),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "PORT": str(20000 + 10 * (os.getpid() % 1000)),
        }

    def start(self):
        done = subprocess.run(
            [HERE / "start.sh"], env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def stop(self):
        subprocess.run([HERE / "stop.sh"], env=self.env, timeout=120)

    def run(self, *command):
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    def job(self, *options, seconds):
        """Submit a job of somebody else."""
        return self.run(
            "sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", f"sleep {seconds}"
        )

    def jobs(self, prefix=""):
        """Return the states of the jobs that have not ended, by id."""
        lines = self.run("squeue", "-h", "-o", "%i|%T|%j").splitlines()
        rows = [line.split("|") for line in lines]
        return {job: state for job, state, name in rows if name.startswith(prefix)}

    def records(self):
        """Return Slurm's own records of ended jobs: state, start and end (Unix time), by id."""
        found = {}
        for line in (self.folder / "log" / "jobcomp.txt").read_text().splitlines():
            row = dict(re.findall(r"(\w+)=(\S*)", line))
            times = [_time(row[key]) for key in ("StartTime", "EndTime")]
            found[row["JobId"]] = (row["JobState"], *times)
        return found

    def pid(self, daemon):
        return int((self.folder / "run" / f"{daemon}.pid").read_text())

    def kill_controller(self, job):
        """Kill slurmctld once its saved state has a running job as it is now.

        It saves up to five seconds after a change. One that starts from an older state takes the
        job for one that waits, launches it again, and drains its node ("Duplicate jobid").
        """
        mark = f"saved-{job}"
        self.run("scontrol", "update", f"JobId={job}", f"Comment={mark}")
        assert wait_until(lambda: mark.encode() in self.saved(), 60.0), "no state was saved"
        os.kill(self.pid("slurmctld"), signal.SIGKILL)

    def saved(self):
        try:
            return (self.folder / "ctld" / "job_state").read_bytes()
        except FileNotFoundError:  # it is just being replaced
            return b""

    def clear(self):
        """Cancel everything and wait for idle nodes."""
        jobs = list(self.jobs())
        if jobs:
            self.run("scancel", *jobs)
        assert wait_until(lambda: not self.jobs(), 30.0)
        idle = lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").splitlines()) == {"idle"}  # noqa: E731
        assert wait_until(idle, 60.0), self.run("sinfo", "-N")


def _time(text):
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


class Run:
    """One campaign with configs/slurm.py."""

    def __init__(self, cluster, root, text, **settings):
        self.cluster = cluster
        self.folder = RunFolder(root / "run")
        self.file = root / "campaign.toml"
        self.file.write_text(text)
        defaults = {
            "PARTITION": "normal", "ADDRESS": "127.0.0.1", "CORES": "2", "MAX_NODES": "1",
            "MAX_BLOCKS": "1", "MARGIN": "15", "POLL": "1", "MAX_MINUTES": "5",
        }  # fmt: skip
        settings = {key: str(value) for key, value in settings.items()}
        self.env = cluster.env | {f"RBF_{k}": v for k, v in (defaults | settings).items()}
        self.process = None

    def start(self, *arguments):
        command = [
            sys.executable, "workflows/campaign.py", "--machine", "slurm", "--plain",
            "--campaign", str(self.file), "--out", str(self.folder.root), *arguments,
        ]  # fmt: skip
        self.folder.root.parent.mkdir(exist_ok=True)
        with (self.folder.root.parent / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(command, env=self.env, stdout=output, stderr=output)
        return self

    def wait(self, seconds):
        status = self.process.wait(seconds)
        output = (self.folder.root.parent / "output.txt").read_text()
        assert status == 0, output[-3000:]

    def query(self, sql, *values):
        if not self.folder.ledger.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.folder.ledger}?mode=ro", uri=True)) as base:
                return base.execute(sql, values).fetchall()
        except sqlite3.OperationalError:  # its tables are just being made
            return []

    def events(self, kind):
        rows = self.query("SELECT data FROM event WHERE kind = ? ORDER BY sequence", kind)
        return [json.loads(data) for (data,) in rows]

    def ends(self):
        return {event["job"]: event for event in self.events("block_ended")}

    def busy_block(self, but=()):
        """Return the running job of a block that is inside a simulation."""
        for job, state in self.cluster.jobs("rbf-").items():
            folder = self.folder.blocks / job
            if state != "RUNNING" or job in but or not folder.is_dir():
                continue
            for path in folder.glob("tasks-*.tsv"):
                lines = path.read_text().splitlines()
                if lines and lines[-1].startswith("start\tsimulate"):
                    return job
        return None

    def pools(self, job):
        """Return the pool's processes of a block, the watcher and the tracker left out."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            command = " ".join(process.info["cmdline"] or [])
            where = (process.info["environ"] or {}).get("RBF_DEADLINE", "")
            if f"/{job}/" in where and "resource_tracker" not in command:
                found.append(process)
        return found

    def finished(self):
        return {path.name: path.stat().st_ino for path in self.folder.simulations.glob("*.nc")}

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "serve" in command and str(self.folder.agent / "edge.toml") in command:
                process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def cluster():
    why = missing()
    if why is not None:
        pytest.skip(why)
    # Not in pytest's own folder: munged refuses a way that others may not pass.
    folder = Path(f"/var/tmp/rbf-slurm-test-{os.getpid()}")
    cluster = Cluster(folder)
    folder.mkdir(mode=0o755)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def campaign(cluster, tmp_path):
    """Return a function that makes campaigns; they end with the test."""
    runs = []

    def make(text, **settings):
        root = tmp_path / f"c{len(runs)}"
        root.mkdir()
        runs.append(Run(cluster, root, text, **settings))
        return runs[-1]

    cluster.clear()
    yield make
    for run in runs:
        run.stop()
    cluster.clear()


@pytest.fixture
def until():
    """Return a function that waits for a value that is true."""

    def wait(get, seconds, what=""):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := get():
                return value
            time.sleep(0.2)
        raise AssertionError(what or f"not within {seconds} s")

    return wait
