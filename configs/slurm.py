"""A Slurm cluster, in blocks that fit the gaps of its queue.

    python workflows/campaign.py --machine slurm --dry-run     # what would be asked for, and why
    python workflows/campaign.py --machine slurm

Run it on a login node, with the run folder (``--out``) and this checkout on a file system that the
compute nodes see. Copy this file, and replace what is in CAPITALS; each can also be set in the
environment, as ``RBF_PARTITION`` and so on. Nothing else of the project knows the cluster.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.layout import BLOCKS

if TYPE_CHECKING:
    from parsl.config import Config

PARTITION = os.environ.get("RBF_PARTITION", "PARTITION")  # one that takes small jobs; sinfo -s
ACCOUNT = os.environ.get("RBF_ACCOUNT", "")  # what is charged; empty: your default
QOS = os.environ.get("RBF_QOS", "")  # empty: your default
ADDRESS = os.environ.get("RBF_ADDRESS", "")  # of this node, as compute nodes see it; empty: ask DNS
MAX_NODES = int(os.environ.get("RBF_MAX_NODES", "4"))  # of one block
CORES = int(os.environ.get("RBF_CORES", "16"))  # of one block on a node; a small part fits sooner
MEMORY_GB = int(os.environ.get("RBF_MEMORY_GB", "0"))  # of one block on a node; 0: the default
MAX_BLOCKS = int(os.environ.get("RBF_MAX_BLOCKS", "4"))  # queued and running; be a good neighbour
MAX_MINUTES = int(os.environ.get("RBF_MAX_MINUTES", "60"))  # longest block; short ones fit gaps
MARGIN_SECONDS = float(os.environ.get("RBF_MARGIN", "60"))  # two rounds of the scheduler's backfill
LEAVE_SECONDS = float(os.environ.get("RBF_LEAVE", "12"))  # before its end a block takes no task
POLL_SECONDS = float(os.environ.get("RBF_POLL", "5"))  # between looks at our own jobs
FIXED_MINUTES = int(os.environ.get("RBF_FIXED_MINUTES", "0"))  # over 0: blocks of that length only
WORKER_INIT = os.environ.get("RBF_WORKER_INIT", "")  # such as: module load python


def make_config(run_dir: Path) -> Config:
    """Return the Parsl configuration of this cluster.

    Parameters
    ----------
    run_dir : Path
        Folder for Parsl's logs and our blocks' files; compute nodes must see it.
    """
    from parsl.addresses import address_by_hostname
    from parsl.config import Config

    from workflows.backfill.executor import BlockExecutor
    from workflows.backfill.planner import BlockShape, Limits
    from workflows.backfill.provider import GapProvider

    bin_dir = Path(sys.executable).parent  # not resolved: a venv's python is a link out of it
    # Parsl starts its programs by bare name; a venv that is not activated has them off PATH.
    os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    fixed = BlockShape(1, CORES, FIXED_MINUTES, partition=PARTITION) if FIXED_MINUTES else None
    return Config(
        executors=[
            BlockExecutor(
                label="blocks",
                address=ADDRESS or address_by_hostname(),  # where compute nodes find this one
                encrypted=True,  # everything between the nodes
                max_workers_per_node=CORES,  # the watcher says how many for each block
                heartbeat_period=2,  # a dead block is noticed after ten seconds, not two minutes
                heartbeat_threshold=10,
                block_error_handler=False,  # Parsl's gives everything up when one block is lost
                idle_seconds=15,  # a block without work is given back
                watch_command=f"{sys.executable} -m workflows.backfill.watcher",
                # With the driver killed, its interchange leaves too, and then its pools.
                interchange_launch_cmd=[
                    sys.executable,
                    "-m",
                    "configs.with_parent",
                    str(bin_dir / "interchange.py"),
                ],
                provider=GapProvider(
                    blocks=Path(run_dir) / BLOCKS,
                    poll_seconds=POLL_SECONDS,  # Parsl's own would look once a minute
                    fixed=fixed,
                    limits=Limits(
                        max_nodes=MAX_NODES,
                        max_cores=CORES,
                        max_minutes=MAX_MINUTES,
                        margin_seconds=MARGIN_SECONDS,
                        start_seconds=5,  # from the block's start to its first task
                        leave_seconds=LEAVE_SECONDS,
                    ),
                    partition=PARTITION,
                    account=ACCOUNT or None,
                    qos=QOS or None,
                    mem_per_node=MEMORY_GB or None,
                    max_blocks=MAX_BLOCKS,
                    exclusive=False,  # Parsl's default takes whole nodes: no gap is that large
                    # A requeued block would come back minutes later; the campaign asks anew.
                    scheduler_options="#SBATCH --no-requeue",
                    # On the compute node; PATH for the pool, which is started by bare name.
                    worker_init=f"{WORKER_INIT}\nexport PATH={bin_dir}:$PATH\n".lstrip("\n"),
                    cmd_timeout=20,  # Slurm is slow at times; then asked again, less often
                ),
            )
        ],
        strategy="none",  # the executor scales by itself; htex_auto_scale cancels queued blocks
        strategy_period=1,
        retries=0,  # the campaign's ledger owns retries
        usage_tracking=0,
        run_dir=str(run_dir),
        initialize_logging=True,
    )
