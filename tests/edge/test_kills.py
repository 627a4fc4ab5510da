"""Fifty times SIGKILL to a real agent while releases come, are promoted, rolled back, withdrawn.

What `test_power_cuts` does thousands of times inside one process, here with the real threads and
the real end of a process, at moments that nobody chose.
"""

import random
import signal
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from edge_agent.contracts.errors import AgentUnreachable, NotReady, ReleaseError
from edge_agent.contracts.repository import Index

from .conftest import Process
from .owner import Owner
from .record import events, took_place
from .releases import NAME, expected_wind, make_release

KILLS = 10
WEST = [[4.0, 270.0]]


class Killed(Process):
    """An agent whose releases go through a short shadow and a short soak."""

    promotion = "shadow_predictions = 3\nshadow_seconds = 0.5\nsoak_seconds = 0.5\n"


def withdraw(repository, version):
    owner = Owner(repository)
    index = owner.index(NAME)
    changes = {"withdrawn": index.withdrawn | {version: "bad"}}
    owner.put_index(NAME, Index.model_validate({**dict(index), **changes}).canonical_json())
    owner.publish()


class Field:
    """A repository, a device, and what was seen of it."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.rng = random.Random(seed)  # noqa: S311 - repeats what a seed did
        self.repository = folder / "repository"
        self.published = 0
        self.seen = None
        self.recorded = 0.0
        self.publish()

    def publish(self):
        self.published += 1
        make_release(self.repository, self.published, bias=self.published / 100)

    def record(self):
        return events(self.folder / "state")

    def check(self, agent):
        """The version that serves answers as it should, and went down on record alone."""
        # Read before the status: what is written down after it is news to the next check. Known
        # by its time: a step that the kill cut off is reverted, and its number given again.
        steps = (e for e in self.record() if e["event"] == "transition")
        before = max((e["at"] for e in steps), default=0.0)
        status = agent.client.wait_serving(1, 60.0)
        found = agent.client.predict(WEST)
        expected = expected_wind(np.float32(WEST), found.version / 100)
        np.testing.assert_allclose(found.wind, expected, atol=1e-3)
        now, steps = status["active"], took_place(self.record())
        if self.seen is not None and now < self.seen:
            assert any(
                e["kind"] == "rolled_back" and e["version"] <= now and e["at"] > self.recorded
                for e in steps
            ), f"{self.seen} became {now} off the record"
        self.seen = now
        self.recorded = before

    def step(self, client):
        """Something happens."""
        what = self.rng.choice(["publish", "ask", "ask", "promote", "rollback", "withdraw"])
        if what == "publish":
            self.publish()
        elif what == "promote":
            client.promote(self.rng.randint(1, self.published))
        elif what == "rollback":
            client.rollback()
        elif what == "withdraw" and self.published > 3:
            withdraw(self.repository, self.rng.randint(1, self.published - 1))
        for _ in range(3):
            client.predict(WEST)

    def live(self, agent):
        """Things happen until the agent is killed."""
        self.check(agent)
        end = threading.Timer(self.rng.uniform(0.0, 0.5), agent.process.kill)
        end.start()
        with suppress(AgentUnreachable):
            while True:
                with suppress(ReleaseError, NotReady):
                    self.step(agent.client)
        end.join()
        assert agent.process.wait(20) == -signal.SIGKILL


@contextmanager
def running(folder):
    agent = Killed(folder)
    try:
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.process.kill()
        agent.wait()


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_it_serves_what_is_on_record(tmp_path, seed):
    field = Field(tmp_path, seed)
    for _ in range(KILLS):
        with running(tmp_path) as agent:
            field.live(agent)
    field.publish()
    with running(tmp_path) as agent:
        field.check(agent)
        agent.client.pull()
        for _ in range(3):
            agent.client.predict(WEST)
        agent.client.wait_serving(field.published, 60.0)
        assert agent.stop() == 0
