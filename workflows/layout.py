"""Where everything of a run lies."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: A Unix socket's path is at most 107 bytes long (Linux, unix(7)).
SOCKET_PATH_LIMIT = 107

#: Folder of the blocks in the folder of Parsl's logs, which is all that a machine module is told.
BLOCKS = "blocks"


@dataclass(frozen=True)
class RunFolder:
    """One campaign's folder."""

    root: Path

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.root / "ledger.sqlite"

    @property
    def simulations(self) -> Path:
        """Simulations, one netCDF file each, named by digest."""
        return self.root / "simulations"

    @property
    def ensembles(self) -> Path:
        """Manifests of sets of simulations, named by digest."""
        return self.root / "ensembles"

    @property
    def candidates(self) -> Path:
        """Trained surrogates, published or refused, a folder each."""
        return self.root / "candidates"

    @property
    def repository(self) -> Path:
        """What the edge pulls from."""
        return self.root / "repository"

    @property
    def keys(self) -> Path:
        """Keyring that publishing needs."""
        return self.root / "keys" / "online"

    @property
    def root_keys(self) -> Path:
        """Keyring of the repository's root, unless its owner keeps it elsewhere."""
        return self.root / "keys" / "root"

    @property
    def checkpoints(self) -> Path:
        """Simulations that go on later."""
        return self.root / "checkpoints"

    @property
    def blocks(self) -> Path:
        """What blocks of a batch scheduler write, a folder for each job."""
        return self.parsl / BLOCKS

    @property
    def parsl(self) -> Path:
        """Parsl's own logs."""
        return self.root / "runinfo"

    @property
    def agent(self) -> Path:
        """The edge agent's configuration, state and log."""
        return self.root / "agent"

    @property
    def inbox(self) -> Path:
        """Where the edge agent puts its batches of observations."""
        return self.agent / "upstream"

    @property
    def observations(self) -> Path:
        """The observations that came, each once."""
        return self.root / "observations.sqlite"

    @property
    def replay_log(self) -> Path:
        """One line per request that the replay made."""
        return self.agent / "replay.csv"

    @property
    def summary(self) -> Path:
        """The figures of the campaign."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    @property
    def socket(self) -> Path:
        """The agent's Unix socket; elsewhere when the folder's own path is too long for one."""
        path = self.agent / "agent.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"rbf-{os.getuid()}-{name}" / "agent.sock"
