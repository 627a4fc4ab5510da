"""When the poller looks, and that nobody waits for it."""

import errno
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import EdgeAgent
from edge_agent.contracts.errors import DigestMismatch, RbfError, UpdateUnavailable
from edge_agent.settings import UpdateSettings
from edge_agent.updates.poller import next_look, reason_of

from .conftest import wait_until
from .owner import first_root
from .releases import make_release
from .web import silent, website

CHANCE = st.floats(0, 1, exclude_max=True)


@given(
    failures=st.integers(1, 10**9),
    first=st.floats(1e-3, 1e3),
    more=st.floats(1, 1e4),
    every=st.floats(1e-3, 1e6),
    chance=CHANCE,
)
def test_failing_looks_come_ever_more_slowly_and_for_ever(failures, first, more, every, chance):
    settings = UpdateSettings(retry_seconds=first, retry_max_seconds=first * more)
    wait = next_look(failures, every, settings, chance)
    assert first / 2 <= wait <= first * more
    assert wait <= next_look(failures + 1, every, settings, chance)
    assert next_look(10**9, every, settings, chance) >= first * more / 2


@given(every=st.floats(1e-3, 1e6), jitter=st.floats(0, 1), chance=CHANCE)
def test_looks_are_spread_round_the_interval(every, jitter, chance):
    wait = next_look(0, every, UpdateSettings(jitter=jitter), chance)
    assert every * (1 - jitter / 2) <= wait * (1 + 1e-9)
    assert wait <= every * (1 + jitter / 2) * (1 + 1e-9)
    assert wait > 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpdateUnavailable("x", reason="slow"), "slow"),
        (DigestMismatch("x", reason="digest"), "digest"),
        (RbfError("x"), "unexpected"),
        (OSError(errno.ENOSPC, "full"), "disk_full"),
        (OSError(errno.EDQUOT, "full"), "disk_full"),
        (OSError(errno.EIO, "broken"), "disk"),
    ],
)
def test_every_failure_has_one_word(error, reason):
    assert reason_of(error) == reason


@pytest.fixture
def followed(config, tmp_path):
    """An agent behind a server that has gone silent in the middle of release 3."""
    with website(tmp_path / "repository") as (url, site):
        make_release(tmp_path / "repository", 1)
        changes = {"repository": None, "updates": config.updates.model_copy(update={"url": url})}
        with EdgeAgent(config.model_copy(update=changes)) as agent:
            assert agent.pull().result(30) == 1
            make_release(tmp_path / "repository", 2, bias=2.0)
            assert agent.pull().result(30) == 2
            site.tricks["model.onnx"] = silent
            make_release(tmp_path / "repository", 3, bias=3.0)
            yield agent, site


def test_no_command_waits_for_a_download(followed):
    agent, site = followed
    asked = agent.pull()
    before = len(site.asked("model.onnx"))
    wait_until(lambda: len(site.asked("model.onnx")) > 2 or before > 2)
    progress = agent.status()["updates"]["downloading"]
    assert progress["version"] == 3
    assert progress["expected"] > progress["received"]
    assert agent.rollback().result(20) == 1
    assert not asked.done()


def test_stopping_breaks_a_download_off(followed):
    agent, site = followed
    first, second = agent.pull(), agent.pull()
    wait_until(lambda: len(site.asked("model.onnx")) > 2)
    closing = threading.Thread(target=agent.close)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert first.result(1) == 2
    assert second.cancelled()
    assert agent.counters.source_errors == 0, "an end is no failure"


def test_either_a_folder_or_an_address(config, tmp_path):
    values = config.model_dump()
    with pytest.raises(ValueError, match="either repository"):
        type(config)(**(values | {"repository": None}))
    with pytest.raises(ValueError, match="either repository"):
        type(config)(**(values | {"updates": {"url": "http://127.0.0.1/"}}))
    with pytest.raises(ValueError, match="an address is given as url"):
        type(config)(**(values | {"repository": "https://example.org/"}))
    for url in ("ftp://host/", "host", "file:///tmp"):
        with pytest.raises(ValueError, match="neither http"):
            UpdateSettings(url=url)
    with pytest.raises(ValueError, match="https:// alone"):
        UpdateSettings(url="http://example.org/", token_file=tmp_path)
    assert UpdateSettings(url="http://example.org/").time_limit(1000) == 21.0
    assert first_root(tmp_path).name == "1.root.json"
