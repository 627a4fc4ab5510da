"""Machine modules: what they would submit. Between machines only that file changes."""

import importlib
import re

import pytest

from workflows.backfill.executor import BlockExecutor
from workflows.backfill.planner import Backlog, RunTime, plan
from workflows.backfill.windows import Window
from workflows.machine import machine_of


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "parsl.providers.cluster_provider.ClusterProvider.execute_wait",
        lambda _self, command, *_: (0, "77.server", "") if "qsub" in command else (1, "", ""),
    )
    monkeypatch.setattr("parsl.addresses.address_by_hostname", lambda: "10.0.0.1")

    def make(name):
        return importlib.import_module(f"configs.{name}").make_config(tmp_path)

    return make


def rendered(executor):
    """Return the script of the block that the planner would choose on a free cluster."""
    provider = executor.gaps
    backlog = Backlog(50, (RunTime(2, 20.0),))
    decision = plan([Window(8, 64, 7200.0, provider.partition)], backlog, provider.limits)
    return provider.script(decision.shape, executor.command(), "rbf-x-1"), decision.shape


@pytest.mark.parametrize("name", ["slurm", "slurm_gpu", "pbs"])
def test_every_call_gives_a_fresh_configuration(config, name):
    assert config(name) is not config(name)


@pytest.mark.parametrize("name", ["slurm", "slurm_gpu", "pbs"])
def test_what_every_cluster_needs(config, name):
    made = config(name)
    executor = made.executors[0]
    assert executor.encrypted
    assert executor.heartbeat_threshold <= 10
    assert executor.block_error_handler.__name__ == "noop_error_handler"
    assert (made.retries, made.usage_tracking) == (0, 0)
    assert made.strategy != "htex_auto_scale"


def test_slurm(config):
    executor = config("slurm").executors[0]
    assert isinstance(machine_of(config("slurm")), BlockExecutor)
    script, shape = rendered(executor)
    assert shape.nodes > 1
    for line in (
        "#SBATCH --partition=PARTITION",
        "#SBATCH --no-requeue",
        f"#SBATCH --nodes={shape.nodes}",
        f"#SBATCH --time={shape.minutes}",
        f"#SBATCH --cpus-per-task={shape.cores}",
        f"export PARSL_CORES={shape.cores}",
    ):
        assert re.search(f"^{re.escape(line)}(\\s|$)", script, re.MULTILINE), line
    assert "--exclusive" not in script
    assert "--account" not in script
    assert f"--workers {shape.cores // 2} --walltime {60 * shape.minutes}" in script
    assert "srun --ntasks" in script


def test_a_gpu_takes_one_task(config):
    script, shape = rendered(config("slurm_gpu").executors[0])
    assert (shape.nodes, shape.slots) == (1, 1)
    assert "#SBATCH --gres=gpu:1" in script
    assert "--workers 1 " in script
    assert "srun" not in script


def test_pbs(config, tmp_path):
    executor = config("pbs").executors[0]
    assert machine_of(config("pbs")).slots() == 16 * 4
    executor.provider.script_dir = str(tmp_path)
    executor.provider.submit("process_worker_pool.py", 1, "block")
    script = next(tmp_path.glob("block.*")).read_text()
    for line in ("#PBS -l walltime=00:10:00", "#PBS -l select=1:ncpus=16", "#PBS -r n"):
        assert line in script
    assert "export RBF_DEADLINE=" in script
    assert executor.drain_period == 580
