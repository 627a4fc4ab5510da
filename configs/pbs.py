"""A PBS Pro cluster, in blocks of a fixed shape.

    python workflows/campaign.py --machine pbs

PBS does not tell ordinary users what it has planned, so there are no windows to plan for: short
blocks are what finds gaps here. Tasks know their deadline all the same: the batch script writes the
file that `apps.deadline` reads. Replace what is in CAPITALS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.layout import BLOCKS

if TYPE_CHECKING:
    from parsl.config import Config

QUEUE = os.environ.get("RBF_QUEUE", "QUEUE")  # qstat -Q shows which there are
ACCOUNT = os.environ.get("RBF_ACCOUNT", "ACCOUNT")  # what is charged
ADDRESS = os.environ.get("RBF_ADDRESS", "")  # of this node, as compute nodes see it; empty: ask DNS
CORES = int(os.environ.get("RBF_CORES", "16"))  # of one block
THREADS = int(os.environ.get("RBF_THREADS", "1"))  # the campaign's resources.threads
MAX_BLOCKS = int(os.environ.get("RBF_MAX_BLOCKS", "4"))  # queued and running
MINUTES = int(os.environ.get("RBF_MINUTES", "10"))  # of one block
LEAVE_SECONDS = 20  # before the end, when tasks write their checkpoints
WORKER_INIT = os.environ.get("RBF_WORKER_INIT", "")  # such as: module load python

DEADLINE = """
export RBF_DEADLINE={blocks}/$PBS_JOBID/deadline.json
mkdir -p $(dirname $RBF_DEADLINE)
echo "{{\\"ends_at\\": $(($(date +%s) + {seconds})), \\"stop\\": false}}" > $RBF_DEADLINE
"""


def make_config(run_dir: Path) -> Config:
    """Return the Parsl configuration of this cluster.

    Parameters
    ----------
    run_dir : Path
        Folder for Parsl's logs and our blocks' files; compute nodes must see it.
    """
    from parsl.addresses import address_by_hostname
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SimpleLauncher
    from parsl.providers import PBSProProvider

    bin_dir = Path(sys.executable).parent
    os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    deadline = DEADLINE.format(blocks=Path(run_dir) / BLOCKS, seconds=60 * MINUTES - 5)
    return Config(
        executors=[
            HighThroughputExecutor(
                label="blocks",
                address=ADDRESS or address_by_hostname(),
                encrypted=True,
                cores_per_worker=THREADS,
                max_workers_per_node=CORES // THREADS,
                drain_period=60 * MINUTES - LEAVE_SECONDS,  # no task starts after this
                heartbeat_period=2,
                heartbeat_threshold=10,
                block_error_handler=False,
                interchange_launch_cmd=[
                    sys.executable,
                    "-m",
                    "configs.with_parent",
                    str(bin_dir / "interchange.py"),
                ],
                provider=PBSProProvider(
                    queue=QUEUE,
                    account=ACCOUNT,
                    cpus_per_node=CORES,
                    nodes_per_block=1,
                    init_blocks=1,
                    min_blocks=0,
                    max_blocks=MAX_BLOCKS,
                    walltime=f"{MINUTES // 60:02}:{MINUTES % 60:02}:00",
                    scheduler_options="#PBS -r n",  # no rerun: the campaign asks anew
                    worker_init=f"{WORKER_INIT}\nexport PATH={bin_dir}:$PATH{deadline}".lstrip(),
                    launcher=SimpleLauncher(),
                    cmd_timeout=60,
                ),
            )
        ],
        strategy="simple",  # htex_auto_scale cancels queued blocks
        strategy_period=5,
        retries=0,
        usage_tracking=0,
        run_dir=str(run_dir),
        initialize_logging=True,
    )
