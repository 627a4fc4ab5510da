"""The machine at hand: as many workers as it has cores, started at once. Run it from anywhere.

    python workflows/campaign.py --machine local

A machine module has one function, ``make_config``, which returns a fresh ``parsl.Config`` each
time it is called: Parsl refuses to load one object twice (Parsl#2871).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parsl.config import Config

WORKERS = os.cpu_count() or 1  # tasks that run at once, one core each


def make_config(run_dir: Path) -> Config:
    """Return the Parsl configuration of this machine.

    Parameters
    ----------
    run_dir : Path
        Folder for Parsl's logs.
    """
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider

    bin_dir = Path(sys.executable).parent  # not resolved: a venv's python is a link out of it
    # Parsl starts its programs by bare name; a venv that is not activated has them off PATH.
    os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return Config(
        executors=[
            HighThroughputExecutor(
                label="blocks",
                address="127.0.0.1",  # nothing listens beyond this machine
                loopback_address="127.0.0.1",
                encrypted=True,  # also on loopback: other users share it
                max_workers_per_node=WORKERS,
                cores_per_worker=1,
                heartbeat_period=2,  # a killed block is noticed after seconds, not minutes
                heartbeat_threshold=10,
                # With the driver killed, its interchange leaves too, and then its workers.
                interchange_launch_cmd=[
                    sys.executable,
                    "-m",
                    "configs.with_parent",
                    str(bin_dir / "interchange.py"),
                ],
                block_error_handler=False,  # a lost block is normal, not an error
                provider=LocalProvider(
                    init_blocks=1,
                    min_blocks=1,
                    max_blocks=1,
                    launcher=SimpleLauncher(),
                ),
            )
        ],
        strategy="simple",  # htex_auto_scale cancels blocks that have not registered yet
        strategy_period=1,
        retries=0,  # the campaign's ledger owns retries
        usage_tracking=0,
        run_dir=str(run_dir),
        initialize_logging=True,
    )
