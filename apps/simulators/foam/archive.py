"""A stopped case as one file, whole or not there, and back."""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from edge_agent.contracts.storage import replacing

_NOTE = "rbf-note.json"
#: Not needed to go on.
_LEFT_OUT = {"0.orig", "postProcessing"}


@dataclass(frozen=True)
class Note:
    """What the case files do not know."""

    digest: str
    """Of the simulation."""
    wall: float
    """Wall time so far, s."""
    cpu: float
    """CPU time so far, s."""
    done: int
    """Iterations done and written."""
    progress: float
    """Share of the work done, an estimate."""


def save(folder: Path, path: Path, note: Note) -> None:
    """Write a case folder to `path`; raises `OSError`, nothing is left behind."""
    (folder / _NOTE).write_text(json.dumps(asdict(note)))

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if set(Path(member.name).parts) & _LEFT_OUT else member

    with (
        replacing(path) as partial,
        tarfile.open(partial, "w:gz", compresslevel=1) as archive,
    ):
        archive.add(folder, arcname=".", filter=wanted)


def load(path: Path, folder: Path) -> Note | None:
    """Unpack a checkpoint; None, and an empty folder, if there is none that can be read."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        return Note(**json.loads((folder / _NOTE).read_text()))
    except FileNotFoundError:
        pass  # the run has not been stopped before
    except (OSError, EOFError, ValueError, TypeError, tarfile.TarError, zlib.error) as error:
        structlog.get_logger().warning(
            "checkpoint cannot be read, the run begins anew", path=str(path), error=str(error)
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return None
