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
from dataclasses import dataclass, replace
from pathlib import Path

_FIELDS = ("what", "stage", "name", "checkpoint", "time")
_POOLS = "pools-"


@dataclass(frozen=True)
class TaskRun:
    """One run of a task in a block."""

    stage: str
    name: str
    started: float
    """Unix time, s."""
    ended: float
    """Unix time, s; of a run that was cut off the latest it can have been."""
    whole: bool
    """Whether its process said that it ended."""
    checkpoint: str
    """File that it goes on from, empty if it has none."""

    def lost(self) -> float:
        """Return the seconds of work that were lost; what a checkpoint of this run holds is not."""
        if self.whole:
            return 0.0
        saved = self.started
        with suppress(OSError):
            saved = max(saved, Path(self.checkpoint).stat().st_mtime if self.checkpoint else 0.0)
        return max(0.0, self.ended - saved)


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


def pool_ended(folder: Path) -> None:
    """Note that the workers on this host are gone, whatever they were at."""
    with (folder / f"{_POOLS}{platform.node()}").open("a", encoding="utf-8") as file:
        file.write(f"{time.time():.3f}\n")


def read_runs(folder: Path, end: float) -> list[TaskRun]:
    """Return the runs of a block's folder, in no order; a line half written is left out.

    Parameters
    ----------
    folder : Path
    end : float
        Of the block, Unix time, s. A run that was cut off ended then at the latest, or with its
        host's pool, or when the same task began again.
    """
    runs: list[TaskRun] = []
    for path in folder.glob("tasks-*.tsv"):
        host = path.stem.removeprefix("tasks-").rpartition("-")[0]
        ends = [*_pool_ends(folder / f"{_POOLS}{host}"), end]
        begun: TaskRun | None = None
        for what, stage, name, checkpoint, at in _lines(path):
            if what == "end" and begun is not None and begun.name == name:
                runs.append(replace(begun, ended=float(at), whole=True))
                begun = None
            elif what == "start":
                runs += [begun] if begun is not None else []
                last = min((e for e in ends if e >= float(at)), default=float(at))
                begun = TaskRun(stage, name, float(at), last, False, checkpoint)
        runs += [begun] if begun is not None else []
    return [run if run.whole else _until_again(run, runs) for run in runs]


def _until_again(run: TaskRun, runs: list[TaskRun]) -> TaskRun:
    again = [o.started for o in runs if o.name == run.name and o.started > run.started]
    return replace(run, ended=min([run.ended, *again]))


def _pool_ends(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def _lines(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines(keepends=True):
        parts = line.rstrip("\n").split("\t")
        if len(parts) == len(_FIELDS) and line.endswith("\n"):
            yield parts


def _append(path: Path, *parts: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\t".join([*parts, f"{time.time():.3f}"]) + "\n")
