"""The agent's third thread: looks for releases and downloads them.

What is to be downloaded, and what becomes of it, is decided on the thread of
`edge_agent.changes.Changes`; this one only waits: for its time, for the network, for the disk.
"""

from __future__ import annotations

import errno
import queue
import random
import threading
from concurrent.futures import Future
from typing import Any, NamedTuple

import structlog

from edge_agent.backoff import pause
from edge_agent.changes import Changes
from edge_agent.clock import Clock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import DigestMismatch, RbfError, ReleaseError, Untrusted
from edge_agent.metrics import Counters
from edge_agent.settings import UpdateSettings
from edge_agent.updates.fetch import Fetcher, Limits
from edge_agent.updates.source import ReleaseSource

log = structlog.get_logger(__name__)


class _Asked(NamedTuple):
    by: str
    done: Future[int | None]


class Poller:
    """Follows a release source.

    Parameters
    ----------
    config : AgentConfig
    clock : Clock
    source : ReleaseSource
    changes : Changes
        Running; decides, and takes what was downloaded.
    counters : Counters
    """

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        source: ReleaseSource,
        changes: Changes,
        counters: Counters,
    ) -> None:
        self.trouble: str | None = None
        """Why the source gives nothing now; none when it does."""
        self._config = config
        self._clock = clock
        self._source = source
        self._changes = changes
        self._counters = counters
        self._fetcher = Fetcher(
            source,
            config.state,
            name=config.name,
            limits=Limits(config.max_release_bytes, config.updates.reserve_bytes),
            counters=counters,
        )
        self._failures = 0
        self._stopping = False
        self._looked_at: float | None = None
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rbf-poller", daemon=True)

    def start(self) -> None:
        """Start the thread; the first look comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Break off what is under way and end; what has been downloaded stays."""
        self._stopping = True
        self._source.close()
        self._asked.put(None)
        self._thread.join()
        while not self._asked.empty():
            if (asked := self._asked.get()) is not None:
                asked.done.cancel()

    def pull(self, *, by: str) -> Future[int | None]:
        """Ask for a look now; the future gives the version that serves when it is over.

        Parameters
        ----------
        by : str
            Who asks, for the audit record.
        """
        asked = _Asked(by, Future())
        self._asked.put(asked)
        return asked.done

    def status(self) -> dict[str, Any]:
        """Return how following goes, as JSON values; times in s since the Unix epoch."""
        progress = self._fetcher.progress
        return {
            "device": self._config.device,
            "looked_at": self._looked_at,
            "refreshed_at": self._source.refreshed_at,
            "metadata_expires_at": self._source.expires_at,
            "failures": self._failures,
            "downloading": None if progress is None else progress._asdict(),
        }

    def _work(self) -> None:
        wait = 0.0
        while True:
            try:
                asked = self._asked.get(timeout=wait)
            except queue.Empty:
                self._look()
            else:
                if asked is None:
                    return
                self._look()
                self._answer(asked)
            if self._stopping:
                return
            wait = next_look(
                self._failures,
                self._config.poll_seconds,
                self._config.updates,
                random.random(),  # noqa: S311 - spreads load, hides nothing
            )

    def _answer(self, asked: _Asked) -> None:
        changes = self._changes
        asked.done.set_result(changes.command("pull", changes.serving, by=asked.by).result())

    def _look(self) -> None:
        self._looked_at = self._clock.now()
        try:
            self._follow()
        except (OSError, ReleaseError) as error:
            if self._stopping:
                return
            self._failed(reason_of(error), str(error))
        except Exception as error:  # a look may fail in any way; the agent goes on serving
            log.exception("looking for releases failed")
            self._failed("unexpected", repr(error))
        else:
            if self.trouble is not None:
                log.info("releases can be had again")
            self.trouble = None
            self._failures = 0

    def _follow(self) -> None:
        config, changes = self._config, self._changes
        index = self._source.index(config.name)
        ref = changes.submit(lambda: changes.wanted(index)).result()
        if ref is None:
            return
        started = self._clock.now()
        try:
            self._fetcher.fetch(ref)
        except (DigestMismatch, Untrusted):
            raise  # what came is not what was published: the next look may bring better
        except ReleaseError as error:
            refused = error
            changes.submit(lambda: changes.refuse(ref, refused)).result()
            return
        changes.submit(lambda: changes.take(ref, started=started)).result()

    def _failed(self, reason: str, detail: str) -> None:
        self._failures += 1
        self._counters.source_errors += 1
        self._counters.update_failures[reason] += 1
        if detail != self.trouble:
            log.warning("no release can be had now", reason=reason, detail=detail)
        self.trouble = detail


def next_look(failures: int, every: float, settings: UpdateSettings, chance: float) -> float:
    """Return how long to wait before the next look, s: pure.

    Parameters
    ----------
    failures : int
        Looks that failed, in a row.
    every : float, s
        Time between looks when all is well.
    settings : UpdateSettings
    chance : float
        In [0, 1): spreads devices that would otherwise come together.
    """
    if failures == 0:
        return every * (1.0 + settings.jitter * (chance - 0.5))
    return pause(failures, settings.retry_seconds, settings.retry_max_seconds, chance)


def reason_of(error: Exception) -> str:
    """Return the one word for a failure that counters and logs use."""
    if isinstance(error, RbfError):
        return str(error.data.get("reason", "unexpected"))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    return "disk"
