import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apps.scenarios import Scenario
from edge_agent.contracts.observation import Reading
from edge_agent.contracts.site_state import SiteState
from workflows.errors import LedgerError
from workflows.ledger import ROLES, Ledger


def scenario(number):
    return Scenario(wind_speed=1.0 + number / 100, wind_from_direction=10.0)


def plan(ledger, role, count):
    start = ledger.next_sequence(role)
    planned = [(start + i, f"{role}-{start + i}", scenario(start + i)) for i in range(count)]
    ledger.plan(role, planned, None)
    return [digest for _, digest, _ in planned]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with closing(Ledger(path, "one")) as opened:
        yield opened


def test_another_campaign_is_refused(path):
    Ledger(path, "one").close()
    with pytest.raises(LedgerError, match="other settings"):
        Ledger(path, "two")
    Ledger(path, "one").close()


def test_another_schema_is_refused(path):
    ledger = Ledger(path, "one")
    ledger._db.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    ledger.close()
    with pytest.raises(LedgerError, match="schema 99"):
        Ledger(path, "one")


def test_a_ledger_of_before_there_were_states_gains_them(path):
    ledger = Ledger(path, "one")
    plan(ledger, "training", 2)
    ledger._db.execute("DROP TABLE site_state")
    ledger._db.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    ledger.close()
    with closing(Ledger(path, "one")) as again:
        assert again.states() == []
        state = SiteState(screen_loss_factor=1.2, log_error=0.1)
        again.add_state(state, "2016-06-01T12:00:00", (0.1, -0.1))
        [row] = again.states()
        assert (row.state, row.gains) == (state, (0.1, -0.1))
        assert len(again.simulations()) == 2


def test_garbage_is_refused(path):
    path.write_bytes(b"this is no ledger" * 100)
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger(path, "one")


def test_two_writers_are_refused_and_readers_are_not(ledger, path):
    plan(ledger, "training", 2)
    with pytest.raises(LedgerError, match="another campaign is running"):
        Ledger(path, "one")
    code = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())"
    )
    query = "SELECT count(*) FROM simulation"
    result = subprocess.run(
        [sys.executable, "-c", code, str(path), query], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "(2,)"


def test_readings_are_stored_once(ledger):
    readings = [
        Reading(f"2016-06-01T00:{m}0:00", "mast", "wind_speed", 5.0, "m s-1") for m in "123"
    ]
    assert ledger.store_readings(readings) == 3
    assert ledger.store_readings(readings) == 0
    assert ledger.readings("mast", since="2016-06-01T00:20:00") == readings[1:]
    assert ledger.readings("other") == []


def test_what_ended_stays_as_it_ended(ledger):
    first, second = plan(ledger, "training", 2)
    ledger.finish(first, 1.5)
    ledger.fail(second, "diverged")
    ledger.fail(first, "late news")
    ledger.finish(second, 9.9)
    rows = {row.digest: row for row in ledger.simulations()}
    assert (rows[first].state, rows[first].seconds) == ("done", 1.5)
    assert (rows[second].state, rows[second].reason) == ("failed", "diverged")


class LedgerMachine(RuleBasedStateMachine):
    """The ledger against a dictionary, with restarts anywhere."""

    @initialize()
    def start(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.ledger = Ledger(self.path, "c")
        self.states: dict[str, str] = {}
        self.versions: dict[int, int] = {}

    def teardown(self):
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()

    @rule(role=st.sampled_from(ROLES), count=st.integers(1, 4))
    def plan(self, role, count):
        self.states |= dict.fromkeys(plan(self.ledger, role, count), "planned")

    @rule(data=st.data(), ok=st.booleans())
    def end(self, data, ok):
        if self.states:
            digest = data.draw(st.sampled_from(sorted(self.states)))
            if ok:
                self.ledger.finish(digest, 1.0)
            else:
                self.ledger.fail(digest, "diverged")
            if self.states[digest] == "planned":
                self.states[digest] = "done" if ok else "failed"

    @rule()
    def train(self):
        number = self.ledger.add_candidate({"digests": []})
        assert number not in self.versions

    @rule(data=st.data())
    def reserve(self, data):
        candidates = self.ledger.candidates()
        if candidates:
            number = data.draw(st.sampled_from([c.number for c in candidates]))
            version = self.ledger.reserve_version(number, "2026-01-01T00:00:00+00:00")
            assert self.versions.setdefault(number, version) == version

    @rule()
    def restart(self):
        self.ledger.close()
        self.ledger = Ledger(self.path, "c")

    @invariant()
    def agrees(self):
        if hasattr(self, "ledger"):
            assert {r.digest: r.state for r in self.ledger.simulations()} == self.states
            assert sorted(self.versions.values()) == list(range(1, len(self.versions) + 1))


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
