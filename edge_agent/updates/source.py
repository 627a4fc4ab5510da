"""Where releases come from.

`ReleaseSource` is the seam; `SignedSource` (`edge_agent.updates.signed`) stands in it and believes
signed metadata alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import Index
from edge_agent.updates.signed import SignedSource
from edge_agent.updates.transport import Body, FolderTransport, Transport
from edge_agent.updates.trust import Trust

if TYPE_CHECKING:
    from edge_agent.clock import Clock
    from edge_agent.config import AgentConfig


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


def make_source(config: AgentConfig, clock: Clock) -> ReleaseSource:
    """Return the source of a configuration.

    Raises
    ------
    InvalidConfig
        If a file that it names cannot be used.
    """
    trust = Trust(config.state / "trust", config.root)
    return SignedSource(make_transport(config), trust, clock, config.updates)


def make_transport(config: AgentConfig) -> Transport:
    """Return the transport of a configuration; raises as `make_source` does."""
    settings = config.updates
    if config.repository is not None:
        return FolderTransport(config.repository)
    assert settings.url is not None  # noqa: S101 - the configuration is valid
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
