"""A GPU partition of a Slurm cluster: one block is one GPU with its share of cores.

    python workflows/campaign.py --machine slurm_gpu --dry-run

As `configs/slurm.py`, which explains what is the same. Replace what is in CAPITALS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.layout import BLOCKS

if TYPE_CHECKING:
    from parsl.config import Config

PARTITION = os.environ.get(
    "RBF_PARTITION", "GPU_PARTITION"
)  # sinfo -o '%P %G' shows which have GPUs
ACCOUNT = os.environ.get("RBF_ACCOUNT", "")  # GPUs are often charged to one of their own
ADDRESS = os.environ.get("RBF_ADDRESS", "")  # of this node, as compute nodes see it; empty: ask DNS
GRES = os.environ.get("RBF_GRES", "gpu:1")  # such as gpu:a100:1
CORES = int(os.environ.get("RBF_CORES", "8"))  # that go with one GPU
MAX_BLOCKS = int(os.environ.get("RBF_MAX_BLOCKS", "4"))  # queued and running
MAX_MINUTES = int(os.environ.get("RBF_MAX_MINUTES", "30"))  # longest block
WORKER_INIT = os.environ.get("RBF_WORKER_INIT", "")  # such as: module load cuda


def make_config(run_dir: Path) -> Config:
    """Return the Parsl configuration of this partition.

    Parameters
    ----------
    run_dir : Path
        Folder for Parsl's logs and our blocks' files; compute nodes must see it.
    """
    from parsl.addresses import address_by_hostname
    from parsl.config import Config

    from workflows.backfill.executor import BlockExecutor
    from workflows.backfill.planner import Limits
    from workflows.backfill.provider import GapProvider

    bin_dir = Path(sys.executable).parent
    os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return Config(
        executors=[
            BlockExecutor(
                label="blocks",
                address=ADDRESS or address_by_hostname(),
                encrypted=True,
                max_workers_per_node=1,  # one task on one GPU
                available_accelerators=1,  # sets CUDA_VISIBLE_DEVICES for the worker
                heartbeat_period=2,
                heartbeat_threshold=10,
                block_error_handler=False,
                watch_command=f"{sys.executable} -m workflows.backfill.watcher",
                interchange_launch_cmd=[
                    sys.executable,
                    "-m",
                    "configs.with_parent",
                    str(bin_dir / "interchange.py"),
                ],
                provider=GapProvider(
                    blocks=Path(run_dir) / BLOCKS,
                    limits=Limits(
                        max_nodes=1,
                        max_cores=CORES,
                        max_tasks=1,
                        max_minutes=MAX_MINUTES,
                        margin_seconds=60,
                        start_seconds=15,  # CUDA takes its time
                        leave_seconds=12,
                    ),
                    partition=PARTITION,
                    account=ACCOUNT or None,
                    gres=GRES,
                    max_blocks=MAX_BLOCKS,
                    exclusive=False,
                    scheduler_options="#SBATCH --no-requeue",
                    worker_init=f"{WORKER_INIT}\nexport PATH={bin_dir}:$PATH\n".lstrip("\n"),
                    cmd_timeout=20,
                ),
            )
        ],
        strategy="none",
        strategy_period=1,
        retries=0,
        usage_tracking=0,
        run_dir=str(run_dir),
        initialize_logging=True,
    )
