"""The agent's second thread: swaps releases and carries out commands.

Everything that changes what serves happens here, one thing after the other, while requests go on.
What is slow and can wait, such as a download, happens on the poller's thread instead
(`edge_agent.updates.poller`), so that no command waits for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

from edge_agent.clock import Clock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.repository import Index, ReleaseRef
from edge_agent.contracts.rollout import offered
from edge_agent.offers import Offer
from edge_agent.promotion import Promotion
from edge_agent.trials import LOOK_SECONDS, Trials
from edge_agent.updates.store import prune

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: How long a look at the trials may take where somebody waits for its outcome, s.
PULL_SECONDS = 1.0


class Changes:
    """Decides what is wanted, and lets it serve.

    Parameters
    ----------
    config : AgentConfig
    clock : Clock
    promotion : Promotion
        Called by this thread alone once it runs.
    trials : Trials
    """

    def __init__(
        self, config: AgentConfig, clock: Clock, promotion: Promotion, trials: Trials
    ) -> None:
        self.trials = trials
        """What is on trial; for this thread alone, but for its ``measured``."""
        self._config = config
        self._clock = clock
        self._promotion = promotion
        self._offer: Offer | None = None
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rbf-changes", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way and end."""
        self._commands.put(None)
        self._thread.join()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on this thread; the future gives what it returns or raises.

        Called on this thread, it runs at once.
        """
        done: Future[T] = Future()

        def command() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                done.set_exception(error)
            else:
                done.set_result(result)

        if threading.current_thread() is self._thread:
            command()
        else:
            self._commands.put(command)
        return done

    def command(self, name: str, work: Callable[[], T], *, by: str) -> Future[T]:
        """Run a command on this thread and put it on the audit record, whatever comes of it."""

        def recorded() -> T:
            try:
                result = work()
            except Exception as error:
                self.audit(name, by, f"{type(error).__name__}: {error}")
                raise
            self.audit(name, by, "done")
            return result

        return self.submit(recorded)

    def serving(self) -> int | None:
        """Return the version that serves, or none."""
        active = self._promotion.slots.pair.active
        return None if active is None else active.version

    def wanted(self, index: Index) -> ReleaseRef | None:
        """Return the release to download and `take`, or none; on this thread only.

        Parameters
        ----------
        index : Index
            Verified by the source.

        Raises
        ------
        OSError
            If the disk takes no record of what the index withdraws.
        """
        config = self._config
        # By now no request can be using what the last swap retired.
        self._promotion.slots.free_retired()
        self._promotion.follow(index)
        self.trials.look(PULL_SECONDS)
        ref = offered(index, device=config.device, channel=config.channel)
        if ref is None:
            return None
        self._offer = Offer(ref, pinned=index.pins.get(config.device) == ref.version)
        return ref if self._promotion.wants(self._offer).take else None

    def take(self, ref: ReleaseRef, *, started: float) -> None:
        """Let a downloaded release into the shadow or serve, or refuse it; on this thread only.

        Parameters
        ----------
        ref : ReleaseRef
            What `wanted` gave; its files are in the store.
        started : float, s since the Unix epoch
            When the work on it began.

        Raises
        ------
        OSError
            If the disk fails; worth another try.
        """
        offer = self._offer
        if offer is None or offer.ref != ref:
            offer = Offer(ref)
        promotion = self._promotion
        promotion.take(offer, started=started)
        self.trials.look()
        prune(
            promotion.slots.releases,
            keep=self._config.keep_releases,
            never={s.version for s in promotion.slots.loaded},
        )

    def refuse(self, ref: ReleaseRef, error: ReleaseError) -> None:
        """Remember that a release is no good, by its manifest; on this thread only."""
        self._promotion.refuse(ref, error)

    def audit(self, name: str, by: str, outcome: str) -> None:
        """Put a command on the audit record; on this thread only."""
        try:
            self._promotion.journal.event(
                "command",
                command=name,
                by=by,
                outcome=outcome,
                active=self.serving(),
                at=self._clock.now(),
            )
        except OSError as failure:  # the command is carried out; the record is behind
            log.error("the audit record cannot be written", reason=str(failure))

    def _work(self) -> None:
        due = time.monotonic()
        while True:
            wait = max(0.0, due - time.monotonic()) if self.trials.running else None
            try:
                command = self._commands.get(timeout=wait)
            except queue.Empty:
                command = self._look
            if command is None:
                return
            command()
            if time.monotonic() >= due:
                due = time.monotonic() + LOOK_SECONDS

    def _look(self) -> None:
        try:
            self.trials.look()
        except Exception:  # whatever a trial does, commands and releases go on
            log.exception("a look at a trial failed")
