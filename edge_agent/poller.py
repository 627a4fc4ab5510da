"""The agent's second thread: looks for releases, swaps them in, and carries out commands.

Everything that changes what serves happens here, one thing after the other, while requests go on.
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
from edge_agent.contracts.repository import ReleaseRef
from edge_agent.metrics import Counters
from edge_agent.promotion import decide
from edge_agent.slots import Slots
from edge_agent.updates.fetch import fetch
from edge_agent.updates.source import ReleaseSource
from edge_agent.updates.store import prune

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Poller:
    """Follows a channel of a release source.

    Parameters
    ----------
    config : AgentConfig
    clock : Clock
    source : ReleaseSource
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
        source: ReleaseSource,
        slots: Slots,
        counters: Counters,
        after_swap: Callable[[], None],
    ) -> None:
        self.refusals: dict[int, str] = {}
        """Version to the reason for which it was refused last."""
        self.trouble: str | None = None
        """Why the source gives nothing now; none when it does."""
        self._config = config
        self._clock = clock
        self._source = source
        self._slots = slots
        self._counters = counters
        self._after_swap = after_swap
        self._refused: dict[int, str] = {}
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rbf-poller", daemon=True)

    def start(self) -> None:
        """Start the thread; the first look comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way and end."""
        self._commands.put(None)
        self._thread.join()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on this thread; the future gives what it returns or raises."""
        done: Future[T] = Future()

        def command() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                done.set_exception(error)
            else:
                done.set_result(result)

        self._commands.put(command)
        return done

    def command(self, name: str, work: Callable[[], T], *, by: str) -> Future[T]:
        """Run a command on this thread and put it on the audit record, whatever comes of it."""

        def recorded() -> T:
            try:
                result = work()
            except Exception as error:
                self._audit(name, by, f"{type(error).__name__}: {error}")
                raise
            self._audit(name, by, "done")
            return result

        return self.submit(recorded)

    def rollback(self) -> int:
        """Swap the previous release back in; on this thread only. See `Slots.rollback`."""
        slot = self._slots.rollback()
        log.warning("rolled back", version=slot.version, held=self._slots.held)
        self._after_swap()
        return slot.version

    def poll(self) -> int | None:
        """Look once, whatever happens; on this thread only. Return the version that serves."""
        # By now no request can be using what the last swap retired.
        self._slots.free_retired()
        try:
            self._poll()
        except Exception:  # a poll may fail in any way; the agent goes on serving
            self._counters.source_errors += 1
            log.exception("looking for releases failed")
        active = self._slots.pair.active
        return None if active is None else active.version

    def _work(self) -> None:
        due = self._clock.monotonic()
        while True:
            wait = max(0.0, min(due - self._clock.monotonic(), self._config.poll_seconds))
            try:
                command = self._commands.get(timeout=wait)
            except queue.Empty:
                self.poll()
                due = self._clock.monotonic() + self._config.poll_seconds
                continue
            if command is None:
                return
            command()

    def _poll(self) -> None:
        config = self._config
        try:
            offered = self._source.current(config.name, config.channel)
        except (OSError, ReleaseError) as error:
            self._note_trouble(str(error))
            return
        active = self._slots.pair.active
        decision = decide(
            offered,
            active=None if active is None else active.version,
            held=self._slots.held,
            refused=self._refused,
        )
        if offered is None or not decision.load:
            self.trouble = None
            return
        try:
            self._take(offered)
        except ReleaseError as error:
            self._refuse(offered, error)
        except OSError as error:
            self._note_trouble(f"release {offered.version}: {error}")
        except Exception as error:  # a release that breaks us must not be tried for ever
            log.exception("a release cannot be loaded", version=offered.version)
            msg = f"it cannot be loaded: {error!r}"
            self._refuse(offered, ReleaseError(msg, reason="unexpected"))
        else:
            self.trouble = None

    def _take(self, offered: ReleaseRef) -> None:
        config, slots = self._config, self._slots
        started = self._clock.now()
        was = slots.pair.active
        fetch(
            self._source,
            offered,
            slots.releases,
            name=config.name,
            max_bytes=config.max_release_bytes,
        )
        slots.promote(offered.version, started=started)
        log.info(
            "release serves", version=offered.version, was=None if was is None else was.version
        )
        self._after_swap()
        serving = {s.version for s in slots.pair if s is not None}
        prune(slots.releases, keep=config.keep_releases, never=serving)

    def _refuse(self, offered: ReleaseRef, error: ReleaseError) -> None:
        self.trouble = None
        self._refused[offered.version] = offered.manifest.sha256
        self.refusals[offered.version] = f"{type(error).__name__}: {error}"
        self._counters.releases_refused += 1
        log.error("release refused", version=offered.version, reason=str(error))
        try:
            self._slots.journal.event(
                "refused", version=offered.version, reason=str(error), at=self._clock.now()
            )
        except OSError as failure:
            self._note_trouble(f"journal: {failure}")

    def _audit(self, name: str, by: str, outcome: str) -> None:
        active = self._slots.pair.active
        try:
            self._slots.journal.event(
                "command",
                command=name,
                by=by,
                outcome=outcome,
                active=None if active is None else active.version,
                at=self._clock.now(),
            )
        except OSError as failure:  # the command is carried out; the record is behind
            log.error("the audit record cannot be written", reason=str(failure))

    def _note_trouble(self, reason: str) -> None:
        self._counters.source_errors += 1
        if reason != self.trouble:
            log.warning("no release can be had now", reason=reason)
        self.trouble = reason
