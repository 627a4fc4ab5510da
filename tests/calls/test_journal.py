"""The journal against a model: nothing is carried out twice, no answer within the bounds lost."""

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_agent.calls.contract import Call, Outcome, issued_at, new_request_id
from edge_agent.calls.journal import AHEAD_SECONDS, CallJournal
from edge_agent.contracts.errors import (
    InvalidInput,
    NoSuchRequest,
    RequestExpired,
    SpoolError,
)

NOW = 1.7e9
ROLLBACK = Call(command="rollback")


def outcome(number, padding=0):
    return Outcome(result={"active": number, "padding": "x" * padding})


@pytest.fixture
def journal(tmp_path):
    journal = CallJournal(tmp_path / "calls.sqlite", max_bytes=10_000, max_calls=100)
    yield journal
    journal.close()


def test_a_call_is_begun_ended_and_found(journal):
    made = new_request_id(NOW)
    with pytest.raises(NoSuchRequest):
        journal.find(made)
    assert journal.begin(made, ROLLBACK, standing=b"2", now=NOW) is None
    assert [(r.state, r.standing) for r in journal.begun()] == [("begun", b"2")]
    journal.end(made, outcome(1), now=NOW)
    assert journal.begin(made, ROLLBACK, standing=b"1", now=NOW) == outcome(1)
    row = journal.find(made)
    assert (row.state, row.executions, row.outcome) == ("ended", 1, outcome(1))
    with pytest.raises(InvalidInput, match="another call"):
        journal.begin(made, Call(command="pull"), standing=b"", now=NOW)


def test_void_calls_are_begun_again(journal):
    made = new_request_id(NOW)
    journal.begin(made, ROLLBACK, standing=b"2", now=NOW)
    journal.void(made)
    assert journal.begun() == []
    assert journal.begin(made, ROLLBACK, standing=b"3", now=NOW) is None
    assert journal.find(made).executions == 2


def test_calls_from_the_future_are_refused(journal):
    with pytest.raises(InvalidInput, match="future"):
        journal.begin(new_request_id(NOW + 2 * AHEAD_SECONDS), ROLLBACK, standing=b"", now=NOW)


def test_files_that_cannot_be_used_are_said(tmp_path, journal):
    path = tmp_path / "other.sqlite"
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(SpoolError, match="schema 99"):
        CallJournal(path, max_bytes=1, max_calls=1)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SpoolError, match="cannot be opened"):
        CallJournal(path, max_bytes=1, max_calls=1)
    journal._base.execute("PRAGMA query_only = 1")
    with pytest.raises(SpoolError, match="ask again later"):
        journal.begin(new_request_id(NOW), ROLLBACK, standing=b"", now=NOW)


class Journal(RuleBasedStateMachine):
    """Callers that ask, ask again, and ask late; an agent that is killed at any point."""

    MAX_BYTES, MAX_CALLS = 2000, 12

    @initialize()
    def start(self):
        memory = Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.path = Path(self.folder.name) / "calls.sqlite"
        self.journal = self.open()
        self.carried_out = {}
        self.answers = {}
        self.begun = set()
        self.asked = []
        self.clock = NOW

    def open(self):
        return CallJournal(self.path, max_bytes=self.MAX_BYTES, max_calls=self.MAX_CALLS)

    def teardown(self):
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()

    def ask(self, made, padding, crash):
        try:
            known = self.journal.begin(made, ROLLBACK, standing=b"", now=self.clock)
        except RequestExpired:
            # Never for one that has had no effect and could not have been forgotten.
            assert made in self.carried_out or issued_at(made) <= self.newest_forgotten()
            return
        if known is not None:
            assert known == self.answers[made]
            return
        self.begun.add(made)
        if crash == "before":
            return
        assert made not in self.carried_out, "carried out twice"
        self.carried_out[made] = outcome(len(self.carried_out), padding)
        if crash == "after":
            return
        self.end(made)

    def end(self, made):
        self.journal.end(made, self.carried_out[made], now=self.clock)
        self.answers[made] = self.carried_out[made]
        self.begun.discard(made)

    def newest_forgotten(self):
        known = {row.id for row in self.journal.rows()}
        return max((issued_at(i) for i in self.asked if i not in known), default=0.0)

    def restart(self):
        """What `settle` does: the effect tells what became of each."""
        self.journal.close()
        self.journal = self.open()
        for row in self.journal.begun():
            if row.id in self.carried_out:
                self.end(row.id)
            else:
                self.journal.void(row.id)
                self.begun.discard(row.id)

    @rule(
        padding=st.integers(0, 600),
        crash=st.sampled_from([None, None, "before", "after"]),
        late=st.integers(0, 3),
    )
    def call(self, padding, crash, late):
        self.clock += 1
        made = new_request_id(self.clock - late)
        self.asked.append(made)
        self.ask(made, padding, crash)
        if crash is not None:
            self.restart()

    @rule(data=st.data(), crash=st.sampled_from([None, "before", "after"]))
    def ask_again(self, data, crash):
        if self.asked:
            made = data.draw(st.sampled_from(self.asked))
            self.ask(made, 0, crash)
            self.restart()

    @invariant()
    def within_bounds(self):
        if not hasattr(self, "journal"):
            return
        rows = self.journal.rows()
        # What was begun and had no effect stays until the next call ends.
        assert len(rows) <= self.MAX_CALLS + sum(row.state == "void" for row in rows)
        sizes = [r for r in rows if r.outcome is not None]
        held = self.journal._base.execute("SELECT sum(length(outcome)) FROM calls").fetchone()[0]
        assert (held or 0) <= self.MAX_BYTES or len(sizes) == 1
        assert self.journal._bytes == (held or 0)
        # The latest answers are there.
        if self.answers:
            assert rows
        assert not self.begun


TestJournal = Journal.TestCase
TestJournal.settings = settings(max_examples=30, stateful_step_count=30)
