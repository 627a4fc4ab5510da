"""What the ledger's tables hold, and their rows as Python sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from apps.scenarios import Scenario
from edge_agent.contracts.site_state import SiteState

SCHEMA_VERSION = 2

#: ``reference`` and ``held_out`` are the dearer simulator's runs, ``paired`` the cheap one's on the
#: same scenarios. ``tear`` runs are for the tear detector, never trained on.
Role = Literal[
    "selection", "calibration", "evaluation", "reference", "held_out", "paired", "training", "tear"
]
ROLES: tuple[Role, ...] = get_args(Role)
CandidateState = Literal["training", "trained", "accepted", "published", "refused", "failed"]

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE simulation (
    digest TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    scenario TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'done', 'failed')),
    seconds REAL,
    reason TEXT,
    data_until TEXT,
    planned_at REAL NOT NULL,
    ended_at REAL,
    UNIQUE (role, sequence)
) STRICT;
CREATE TABLE candidate (
    number INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    state TEXT NOT NULL,
    folder TEXT,
    version INTEGER UNIQUE,
    created TEXT,
    result TEXT NOT NULL DEFAULT '{}',
    started_at REAL NOT NULL,
    ended_at REAL
) STRICT;
CREATE TABLE reading (
    sensor TEXT NOT NULL,
    quantity TEXT NOT NULL,
    time TEXT NOT NULL,
    value REAL NOT NULL,
    unit TEXT NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (sensor, quantity, time)
) STRICT;
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;
"""
#: Of schema 2.
STATES = """
CREATE TABLE site_state (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    until TEXT NOT NULL,
    state TEXT NOT NULL,
    gains TEXT
) STRICT;
"""


@dataclass(frozen=True)
class StateRow:
    """The state of the house as it was estimated once."""

    until: str
    """Data time up to which readings were looked at, ISO 8601."""
    state: SiteState
    gains: tuple[float, ...] | None
    """What each interior sensor is off by, mean logarithm; none before it is learnt."""


@dataclass(frozen=True)
class SimulationRow:
    """One planned, done or failed simulation."""

    digest: str
    role: Role
    sequence: int
    scenario: Scenario
    state: Literal["planned", "done", "failed"]
    seconds: float | None
    reason: str | None
    data_until: str | None
    ended_at: float | None


@dataclass(frozen=True)
class CandidateRow:
    """One surrogate on its way to a release."""

    number: int
    task: dict[str, Any]
    state: CandidateState
    folder: str | None
    version: int | None
    created: str | None
    result: dict[str, Any]
    started_at: float
    ended_at: float | None
