"""Spools, outboxes and receivers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from edge_agent.clock import ManualClock
from edge_agent.contracts.observation import Reading, check_reading
from edge_agent.metrics import Counters
from edge_agent.outbox import Outbox
from edge_agent.spool import Spool
from workflows.observations import ObservationStore

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

ROOT = Path(__file__).parents[2]


def reading(n: int, value: float = 1.0, sensor: str = "mast") -> Reading:
    """The n-th second's."""
    time = f"2016-06-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
    return Reading(time, sensor, "wind_speed", value, "m s-1")


def checked(*readings):
    return [(r, check_reading(r)) for r in readings]


def make_spool(folder: Path, *, hold: bool = True, **bounds) -> Spool:
    bounds = {"max_rows": 1000, "max_queue": 1000, "record_seconds": 0.01} | bounds
    return Spool(folder / "s.sqlite", ManualClock(), Counters(), hold=hold, **bounds)


@pytest.fixture
def spool(tmp_path):
    spool = make_spool(tmp_path)
    yield spool
    spool.close()


@pytest.fixture
def outbox(spool):
    return Outbox(spool, "house", 2**20)


@pytest.fixture
def store(tmp_path):
    with ObservationStore(tmp_path / "observations.sqlite") as store:
        yield store


def python(code: str, *arguments: object, failpoint: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "RBF_FAILPOINT": failpoint},
        stdout=subprocess.PIPE,
        text=True,
    )
