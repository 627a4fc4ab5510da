"""What ran in a block: a line when a task starts and one when it ends, beside the deadline file.

Every process writes a file of its own, so that lines never mix, also on a network file system. From
them the campaign says how much of a block was spent in tasks and what was lost when it died.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TaskRun:
    """One run of a task in a block."""

    stage: str
    name: str
    started: float
    """Unix time, s."""
    ended: float | None
    """Unix time, s; None if its process never said so."""
    checkpoint: str
    """File that it goes on from, empty if it has none."""

    def lost(self, at: float) -> float:
        """Return the seconds of work lost if the task died at a time (Unix time, s).

        What a checkpoint of this run holds is not lost.
        """
        if self.ended is not None:
            return 0.0
        saved = self.started
        with suppress(OSError):
            saved = max(saved, Path(self.checkpoint).stat().st_mtime if self.checkpoint else 0.0)
        return max(0.0, at - saved)


@contextmanager
def traced(folder: Path | None, stage: str, name: str, checkpoint: str = "") -> Iterator[None]:
    """Write down when the body starts and ends; nothing without a folder."""
    if folder is None:
        yield
        return
    path = folder / f"tasks-{platform.node()}-{os.getpid()}.tsv"
    _append(path, "start", stage, name, checkpoint)
    try:
        yield
    finally:  # a task that raises has ended too; one whose process is killed has not
        _append(path, "end", stage, name, checkpoint)


def read_runs(folder: Path) -> list[TaskRun]:
    """Return the runs of a block's folder, in no order; a line half written is left out."""
    runs = []
    for path in folder.glob("tasks-*.tsv"):
        begun: tuple[str, str, float, str] | None = None
        for line in path.read_text().splitlines(keepends=True):
            parts = line.rstrip("\n").split("\t")
            if len(parts) != 5 or not line.endswith("\n"):
                continue
            what, stage, name, checkpoint, at = parts
            if begun is not None:
                ended = float(at) if (what, name) == ("end", begun[1]) else None
                runs.append(TaskRun(begun[0], begun[1], begun[2], ended, begun[3]))
            begun = (stage, name, float(at), checkpoint) if what == "start" else None
        if begun is not None:
            runs.append(TaskRun(begun[0], begun[1], begun[2], None, begun[3]))
    return runs


def _append(path: Path, *parts: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\t".join([*parts, f"{time.time():.3f}"]) + "\n")
