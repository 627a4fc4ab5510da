"""Where releases come from.

`ReleaseSource` is the seam. `SignedSource` (`edge_agent.updates.signed`) believes signed metadata
alone; `FolderSource` reads a plain repository folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_agent.contracts.errors import InvalidConfig, ReleaseError, UpdateUnavailable
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import INDEX, TARGETS, Index, stored_path
from edge_agent.updates.store import parse, read_bounded
from edge_agent.updates.transport import Body, FolderTransport, Transport

if TYPE_CHECKING:
    from edge_agent.clock import Clock
    from edge_agent.config import AgentConfig

MAX_INDEX_BYTES = 16 * 2**20


class ReleaseSource(Protocol):
    """Where releases come from; used by one thread, but for `close`."""

    expires_at: float | None
    """When what it said last is no longer to be believed, s since the Unix epoch; none: never."""
    refreshed_at: float | None
    """When it last gave an index, s since the Unix epoch; none before."""

    def index(self, name: str) -> Index:
        """Return what releases of model `name` there are, and who gets which.

        Raises
        ------
        OSError
            If the source cannot be reached (`UpdateUnavailable`), or the disk fails.
        ReleaseError
            If what it says must not be believed (`Untrusted`) or makes no sense.
        """
        ...

    def open(self, target: TargetFile, offset: int = 0) -> AbstractContextManager[Body]:
        """Open a file for the time of a block; the caller checks length and digest.

        Raises
        ------
        UpdateUnavailable
            Here or while it is read: it does not come.
        Untrusted
            If the source does not vouch for the file.
        """
        ...

    def close(self) -> None:
        """Make whoever is reading fail, now and later; from any thread."""
        ...


class FolderSource:
    """A repository in a folder; nothing is signed yet.

    Parameters
    ----------
    repository : Path
        Holds ``metadata/`` and ``targets/``; need not exist yet.
    """

    def __init__(self, repository: Path) -> None:
        self.expires_at: float | None = None
        self.refreshed_at: float | None = None
        self._repository = repository
        self._transport = FolderTransport(repository)

    def index(self, name: str) -> Index:
        """Read the index; see `ReleaseSource.index`."""
        path = self._repository / INDEX
        index = parse(Index, read_bounded(path, MAX_INDEX_BYTES), str(path))
        if index.name != name:
            msg = f"{path} is of model {index.name!r}, this agent serves {name!r}"
            raise ReleaseError(msg, reason="name")
        return index

    @contextmanager
    def open(self, target: TargetFile, offset: int = 0) -> Iterator[Body]:
        """Open a target; see `ReleaseSource.open`."""
        path = f"{TARGETS}/{stored_path(target)}"
        with self._transport.open(path, offset=offset, seconds=0.0) as body:
            if body is None:
                msg = f"{self._repository / path} is not there"
                raise UpdateUnavailable(msg, reason="missing")
            yield body

    def close(self) -> None:
        """End the reading; see `ReleaseSource.close`."""
        self._transport.close()


def make_source(config: AgentConfig, clock: Clock) -> ReleaseSource:
    """Return the source of a configuration.

    Raises
    ------
    InvalidConfig
        If a file that it names cannot be used.
    """
    if config.root is None:
        return FolderSource(config.repository)
    from edge_agent.updates.signed import SignedSource
    from edge_agent.updates.trust import Trust

    trust = Trust(config.state / "trust", config.root)
    return SignedSource(make_transport(config), trust, clock, config.updates)


def make_transport(config: AgentConfig) -> Transport:
    """Return the transport of a configuration; raises as `make_source` does."""
    settings = config.updates
    if settings.url is None:
        return FolderTransport(config.repository)
    from edge_agent.updates.http import HttpTransport, tls_context

    token = None
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"updates.token_file: {settings.token_file} cannot be read: {error}"
            raise InvalidConfig(msg, field="updates.token_file") from error
    return HttpTransport(
        settings.url,
        read_seconds=settings.read_seconds,
        token=token,
        context=tls_context(settings.ca_file) if settings.url.startswith("https:") else None,
    )
