"""The agent's third thread: looks for releases and downloads them.

What is to be downloaded, and what becomes of it, is decided on the thread of
`edge_agent.changes.Changes`; this one only waits: for its time, for the network, for the disk.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import structlog

from edge_agent.changes import Changes
from edge_agent.clock import Clock
from edge_agent.config import AgentConfig
from edge_agent.contracts.errors import DigestMismatch, ReleaseError
from edge_agent.metrics import Counters
from edge_agent.updates.fetch import fetch
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
    releases : Path
        Where downloaded releases lie.
    counters : Counters
    """

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        source: ReleaseSource,
        changes: Changes,
        releases: Path,
        counters: Counters,
    ) -> None:
        self.trouble: str | None = None
        """Why the source gives nothing now; none when it does."""
        self._config = config
        self._clock = clock
        self._source = source
        self._changes = changes
        self._releases = releases
        self._counters = counters
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="rbf-poller", daemon=True)

    def start(self) -> None:
        """Start the thread; the first look comes at once."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way and end."""
        self._asked.put(None)
        self._thread.join()

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

    def _work(self) -> None:
        due = self._clock.monotonic()
        while True:
            wait = max(0.0, min(due - self._clock.monotonic(), self._config.poll_seconds))
            try:
                asked = self._asked.get(timeout=wait)
            except queue.Empty:
                self._look()
            else:
                if asked is None:
                    return
                self._look()
                self._answer(asked)
            due = self._clock.monotonic() + self._config.poll_seconds

    def _answer(self, asked: _Asked) -> None:
        changes = self._changes
        asked.done.set_result(changes.command("pull", changes.serving, by=asked.by).result())

    def _look(self) -> None:
        try:
            self._follow()
        except OSError as error:
            self._note_trouble(str(error))
        except ReleaseError as error:
            self._note_trouble(str(error))
        except Exception:  # a look may fail in any way; the agent goes on serving
            self._counters.source_errors += 1
            log.exception("looking for releases failed")
        else:
            self.trouble = None

    def _follow(self) -> None:
        config, changes = self._config, self._changes
        index = self._source.index(config.name)
        ref = changes.submit(lambda: changes.wanted(index)).result()
        if ref is None:
            return
        started = self._clock.now()
        try:
            fetch(
                self._source,
                ref,
                self._releases,
                name=config.name,
                max_bytes=config.max_release_bytes,
            )
        except DigestMismatch:
            raise  # what came is not what was published: the next look may bring better
        except ReleaseError as error:
            refused = error
            changes.submit(lambda: changes.refuse(ref, refused)).result()
            return
        changes.submit(lambda: changes.take(ref, started=started)).result()

    def _note_trouble(self, reason: str) -> None:
        self._counters.source_errors += 1
        if reason != self.trouble:
            log.warning("no release can be had now", reason=reason)
        self.trouble = reason
