"""What an agent can be told and asked about its releases."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from edge_agent.changes import Changes
from edge_agent.journal import Swap
from edge_agent.promotion import Promotion
from edge_agent.shadow import Measured
from edge_agent.updates.poller import Poller

T = TypeVar("T")


class Commands:
    """A part of `EdgeAgent`; what changes something is carried out on the changes' thread."""

    _promotion: Promotion
    _changes: Changes
    _poller: Poller

    @property
    def promotion(self) -> Promotion:
        """Which release serves, and why; to be read, and changed by commands alone."""
        return self._promotion

    @property
    def measured(self) -> deque[Measured]:
        """Takes predictions beside what was measured in the house, for releases on trial."""
        return self._changes.trials.measured

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The last releases refused: ``version`` and ``reason``."""
        return [{"version": r.version, "reason": r.reason} for r in self._promotion.state.refused]

    @property
    def held(self) -> int | None:
        """Version that was rolled back from and stays out."""
        return self._promotion.state.held

    @property
    def swaps(self) -> list[Swap]:
        """The last changes of the active release, oldest first."""
        return list(self._promotion.journal.swaps)

    def rollback(self, *, by: str = "in-process") -> Future[int]:
        """Ask for the previous release; the future gives the version that then serves.

        It raises `NoSuchRelease` if there is none, and OSError if the disk fails.

        Parameters
        ----------
        by : str
            Who asks, for the audit record.
        """
        return self._changes.command("rollback", lambda: self._promotion.rollback(by), by=by)

    def promote(self, version: int, *, by: str = "in-process", pin: bool = False) -> Future[int]:
        """Ask for a release on this device to serve now; with `pin`, to stay.

        The future raises what `Promotion.promote` does.
        """
        name = f"{'pin' if pin else 'promote'} {version}"
        work = partial(self._promotion.promote, version, by, pin=pin)
        return self._changes.command(name, work, by=by)

    def unpin(self, *, by: str = "in-process") -> Future[int | None]:
        """Ask for the device to follow its channel again; gives what serves."""
        return self._changes.command("unpin", self._promotion.unpin, by=by)

    def hold(self, *, hold: bool = True, by: str = "in-process") -> Future[int | None]:
        """Ask for updates to stop, or to go on; gives what serves."""
        work = partial(self._promotion.hold, hold=hold)
        return self._changes.command("hold" if hold else "unhold", work, by=by)

    def pull(self, *, by: str = "in-process") -> Future[int | None]:
        """Ask for a look at the repository now; the future gives the version that then serves."""
        return self._poller.pull(by=by)

    def alone(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` where everything that changes what serves happens, with nothing between.

        Commands that it gives are carried out at once; it must not wait for `pull`.
        """
        return self._changes.submit(work)
