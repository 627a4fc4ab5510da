"""The agent's second thread: swaps releases and carries out commands.

Everything that changes what serves happens here, one thing after the other, while requests go on.
What is slow and can wait, such as a download, happens on the poller's thread instead
(`edge_agent.updates.poller`), so that no command waits for it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

from edge_agent.clock import Clock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.repository import Index, ReleaseRef
from edge_agent.contracts.rollout import offered
from edge_agent.metrics import Counters
from edge_agent.promotion import decide
from edge_agent.slots import Slots
from edge_agent.updates.store import prune

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Changes:
    """Decides what is wanted, and lets it serve.

    Parameters
    ----------
    config : AgentConfig
    clock : Clock
    slots : Slots
        Changed by this thread alone once it runs.
    counters : Counters
    after_swap : callable
        Called on this thread after each swap.
    """

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        slots: Slots,
        counters: Counters,
        after_swap: Callable[[], None],
    ) -> None:
        self.refusals: dict[int, str] = {}
        """Version to the reason for which it was refused last."""
        self._config = config
        self._clock = clock
        self._slots = slots
        self._counters = counters
        self._after_swap = after_swap
        self._refused: dict[int, str] = {}
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

    def rollback(self) -> int:
        """Swap the previous release back in; on this thread only. See `Slots.rollback`."""
        slot = self._slots.rollback()
        log.warning("rolled back", version=slot.version, held=self._slots.held)
        self._after_swap()
        return slot.version

    def serving(self) -> int | None:
        """Return the version that serves, or none."""
        active = self._slots.pair.active
        return None if active is None else active.version

    def wanted(self, index: Index) -> ReleaseRef | None:
        """Return the release to download and `take`, or none; on this thread only.

        Parameters
        ----------
        index : Index
            Verified by the source.
        """
        # By now no request can be using what the last swap retired.
        self._slots.free_retired()
        offer = offered(index, device=self._config.device, channel=self._config.channel)
        decision = decide(
            offer,
            active=self.serving(),
            held=self._slots.held,
            refused=self._refused,
        )
        return offer if decision.load else None

    def take(self, ref: ReleaseRef, *, started: float) -> None:
        """Let a downloaded release serve, or refuse it; on this thread only.

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
        config, slots = self._config, self._slots
        was = self.serving()
        try:
            slots.promote(ref.version, started=started)
        except OSError:
            raise
        except ReleaseError as error:
            self.refuse(ref, error)
            return
        except Exception as error:  # a release that breaks us must not be tried for ever
            log.exception("a release cannot be loaded", version=ref.version)
            msg = f"it cannot be loaded: {error!r}"
            self.refuse(ref, ReleaseError(msg, reason="unexpected"))
            return
        log.info("release serves", version=ref.version, was=was)
        self._after_swap()
        serving = {s.version for s in slots.pair if s is not None}
        prune(slots.releases, keep=config.keep_releases, never=serving)

    def refuse(self, ref: ReleaseRef, error: ReleaseError) -> None:
        """Remember that a release is no good, by its manifest; on this thread only.

        Raises
        ------
        OSError
            If the disk does not take the record.
        """
        self._refused[ref.version] = ref.manifest.sha256
        self.refusals[ref.version] = f"{type(error).__name__}: {error}"
        self._counters.releases_refused += 1
        log.error("release refused", version=ref.version, reason=str(error))
        self._slots.journal.event(
            "refused", version=ref.version, reason=str(error), at=self._clock.now()
        )

    def audit(self, name: str, by: str, outcome: str) -> None:
        """Put a command on the audit record; on this thread only."""
        try:
            self._slots.journal.event(
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
        while (command := self._commands.get()) is not None:
            command()
