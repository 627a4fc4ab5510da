"""An agent that serves while its repository is attacked, and what must be seen of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.api.exposition import exposition
from edge_agent.clock import ManualClock
from edge_agent.config import AgentConfig
from edge_agent.metrics import Stages
from edge_agent.settings import PromotionSettings, UpdateSettings
from edge_agent.updates.store import stored_versions
from tests.edge.owner import Owner, first_root
from tests.edge.releases import NAME, Made, make_release, publish_release
from tests.edge.web import Site, website

INPUTS = np.array([[4.0, 270.0]], dtype=np.float32)


class Scene:
    """A repository behind a web server, and an agent that follows it and answers all the time."""

    def __init__(self, folder: Path, url: str, site: Site, logs: list[dict]) -> None:
        self.folder, self.url, self.site, self.logs = folder, url, site, logs
        self.repository = folder / "repository"
        self.clock = ManualClock()
        self.served: set[int] = set()
        """Versions that answered."""
        self.agent: EdgeAgent
        self._over: threading.Event
        self._client: threading.Thread
        self._problems: list[Exception] = []

    @property
    def owner(self) -> Owner:
        """Signs at the scene's time."""
        from datetime import UTC, datetime

        return Owner(self.repository, now=datetime.fromtimestamp(self.clock.now(), UTC))

    def publish(self, version: int, **options) -> Made:
        made = make_release(self.repository, version, bias=float(version), publish=False, **options)
        publish_release(made, owner=self.owner)
        return made

    def start(self, url: str | None = "", **settings) -> None:
        """Start the agent, and a client that never stops asking; without `url` in a folder."""
        url = self.url if url == "" else url
        config = AgentConfig(
            name=NAME,
            repository=None if url else self.repository,
            root=self.folder / "root.json",
            state=self.folder / "state",
            poll_seconds=3600,
            updates=UpdateSettings(
                **{"url": url, "retry_seconds": 3600, "retry_max_seconds": 3600} | settings
            ),
            promotion=PromotionSettings(shadow_predictions=0),
        )
        self.agent = EdgeAgent(config, clock=self.clock).start()
        self._over = threading.Event()
        self._client = threading.Thread(target=self._ask)
        self._client.start()
        self.pull()  # it looks by itself as it starts; what comes after is the test's
        self.agent._poller.trouble = None

    def stop(self) -> None:
        """Stop both; every answer must have been good."""
        self._over.set()
        self._client.join(30)
        self.agent.close()
        assert not self._problems, self._problems[0]

    def restart(self) -> None:
        self.stop()
        self.start()

    def pull(self) -> int | None:
        return self.agent.pull().result(60)

    def refused(self, reason: str, *, serving: int = 1) -> None:
        """A look brings nothing; its reason is in status, log and metric; serving goes on."""
        before = self.agent.counters.update_failures[reason]
        known = set(stored_versions(self.folder / "state" / "releases"))
        self.logs.clear()
        assert self.pull() == serving
        assert self.agent.source_trouble is not None
        assert self.agent.counters.update_failures[reason] == before + 1, (
            self.agent.source_trouble,
            self.agent.counters.update_failures,
        )
        metrics = exposition(self.agent, Stages(), "test")
        assert f'rbf_update_failures_total{{reason="{reason}"}} {before + 1}' in metrics
        assert any(line.get("reason") == reason for line in self.logs), self.logs
        assert set(stored_versions(self.folder / "state" / "releases")) == known
        asked = self.agent.counters.answered
        for _ in range(3):
            assert self.agent.predict(INPUTS).version == serving
        assert self.agent.counters.answered > asked
        self.agent._poller.trouble = None  # so that the next look is logged even if it fails alike

    def _ask(self) -> None:
        while not self._over.is_set():
            if not self.agent.ready:
                self._over.wait(0.005)
                continue
            try:
                answer = self.agent.predict(INPUTS)
                assert np.isfinite(answer.wind).all()
                self.served.add(answer.version)
            except Exception as error:  # noqa: BLE001 - told by `stop`
                self._problems.append(error)
                return
            self._over.wait(0.001)


@pytest.fixture
def logs() -> Iterator[list[dict]]:
    lines: list[dict] = []

    def keep(_logger, _name, event):
        lines.append(dict(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], wrapper_class=structlog.BoundLogger)
    yield lines
    structlog.configure(**before)


@pytest.fixture
def scene(tmp_path: Path, logs: list[dict]) -> Iterator[Scene]:
    """Release 1 serves; nobody has done anything bad yet."""
    with website(tmp_path / "repository") as (url, site):
        scene = Scene(tmp_path, url, site, logs)
        scene.publish(1)
        shutil.copy(first_root(scene.repository), tmp_path / "root.json")
        scene.start()
        try:
            assert scene.pull() == 1, scene.agent.source_trouble
            yield scene
        finally:
            scene.stop()
