"""The maintenance log: what people at the house do to its screens, and see.

A TOML file that they write and the campaign reads again and again::

    [[event]]
    time = 2016-06-20T09:00:00
    kind = "washed"

    [[event]]
    time = 2016-07-04T14:30:00
    kind = "torn"
    tear = { panel = "west", centre = 27.0, width = 20.0 }

    [[event]]
    time = 2016-07-22T10:00:00
    kind = "mended"
    panel = "west"
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from edge_agent.contracts.model import Contract
from edge_agent.contracts.site_state import Tear


class Event(Contract):
    """One thing that happened."""

    time: datetime
    """Data time at which it was done or seen; without a time zone it is taken as UTC."""
    kind: Literal["washed", "torn", "mended"]
    """What."""
    tear: Tear | None = None
    """Of ``torn``: where, and how wide."""
    panel: str | None = None
    """Of ``mended``: every tear of this panel is."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.tear is not None) != (self.kind == "torn"):
            msg = "an event has a tear if, and only if, it is torn"
            raise ValueError(msg)
        if (self.panel is not None) != (self.kind == "mended"):
            msg = "an event has a panel if, and only if, it is mended"
            raise ValueError(msg)
        return self

    @property
    def at(self) -> datetime:
        """Its time, with a time zone."""
        return self.time if self.time.tzinfo else self.time.replace(tzinfo=UTC)


class MaintenanceLog(Contract):
    """The file."""

    event: tuple[Event, ...] = ()
    """In any order."""


class Known(NamedTuple):
    """What people know at a time."""

    tears: tuple[Tear, ...]
    """Tears that were seen and not mended yet."""
    latest: Event | None
    """The newest event."""


def read_log(path: Path) -> tuple[Event, ...]:
    """Return the events of a file, oldest first; none if there is no file yet.

    Raises
    ------
    InvalidConfig
        If it is not TOML or a field is wrong; names the field.
    """
    if not path.exists():
        return ()
    return tuple(sorted(MaintenanceLog.from_toml(path).event, key=lambda e: e.at))


def known(events: Sequence[Event], at: datetime) -> Known:
    """Return what is known at a data time (with a time zone).

    Parameters
    ----------
    events : sequence of Event
        Oldest first.
    at : datetime
    """
    tears: dict[tuple[str, float], Tear] = {}
    latest = None
    for event in events:
        if event.at > at:
            break
        latest = event
        if event.tear is not None:
            tears[event.tear.panel, event.tear.centre] = event.tear
        elif event.panel is not None:
            tears = {k: t for k, t in tears.items() if t.panel != event.panel}
    return Known(tuple(tears.values()), latest)
