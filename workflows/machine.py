"""What the campaign asks of a machine beside running tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from workflows.backfill.planner import Backlog

if TYPE_CHECKING:
    from parsl.config import Config


class Machine(Protocol):
    """Where tasks run."""

    def slots(self) -> int:
        """Return how many tasks run at once when everything asked for is up."""
        ...

    def set_backlog(self, backlog: Backlog) -> None:
        """Take note of the work that is left.

        Raises
        ------
        MachineError
            If the machine cannot be brought to work.
        """
        ...

    def take_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (kind, data) of what happened since the last call, for log and ledger."""
        ...

    def blameless(self, error: BaseException) -> bool:
        """Return whether a lost worker went for no fault of its task."""
        ...


class FixedMachine:
    """A machine that is there as a whole, such as this one.

    Parameters
    ----------
    workers : int
        Tasks that run at once.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def slots(self) -> int:
        """Return the number of workers."""
        return self._workers

    def set_backlog(self, backlog: Backlog) -> None:
        """Ignore it: nothing is to be asked for."""

    def take_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return nothing."""
        return []

    def blameless(self, error: BaseException) -> bool:  # noqa: ARG002 - the interface
        """Return False: nobody but a task ends a worker here."""
        return False


def machine_of(config: Config) -> Machine:
    """Return the machine of a Parsl configuration."""
    from workflows.backfill.executor import BlockExecutor

    executor = config.executors[0]
    if isinstance(executor, BlockExecutor):
        return executor
    provider = executor.provider
    blocks = provider.max_blocks * provider.nodes_per_block
    return FixedMachine(int(executor.max_workers_per_node * blocks))


def event_line(kind: str, data: Mapping[str, Any]) -> str:
    """Return what a machine did in one line for a person."""
    job = f" {data['job']}" if "job" in data else ""
    said = data.get("reason") or data.get("error") or ""
    if kind == "block_ended":
        said = (
            f"{data['state']} after {data['ran_seconds']:.0f} s: {data['tasks']} tasks,"
            f" {data['lost_seconds']:.1f} s of work lost"
        )
    if kind == "block_recalled":
        said = f"must go in {data['seconds_left']:.0f} s"
    return f"{kind.replace('_', ' ')}{job}: {said}".removesuffix(": ")
