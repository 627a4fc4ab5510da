"""The way to active in a running agent: shadow, soak, commands, withdrawal, restarts, old files."""

import json
import math
import time

import numpy as np
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.client import RemoteAgent
from edge_agent.contracts.errors import NoSuchRelease, ProtocolError, ReleaseError
from edge_agent.contracts.repository import Index
from edge_agent.field import FieldServices
from edge_agent.journal import Journal
from edge_agent.settings import PromotionSettings

from .conftest import listening, wait_until, wind
from .device import Clock
from .owner import Owner
from .releases import NAME, expected_wind, make_release, model_bytes

WEST = [[4.0, 270.0]]
CALM = [[0.5, 270.0]]


@pytest.fixture
def config(config):
    promotion = PromotionSettings(
        shadow_predictions=5, shadow_seconds=3600.0, soak_seconds=7200.0, latency_ms=1e6
    )
    return config.model_copy(update={"promotion": promotion})


@pytest.fixture
def clock():
    return Clock(time.time())  # remote calls compare their own with it


@pytest.fixture
def agent(config, clock):
    make_release(config.repository, 1)
    with EdgeAgent(config, clock=clock) as agent:
        assert agent.pull().result(20) == 1, "the first serves at once"
        yield agent


def look(agent):
    return agent.pull().result(20)


def state(agent):
    return agent.promotion.state


def ask(agent, rows, count=5):
    for _ in range(count):
        agent.predict(rows)


def reasons(agent):
    return {r["version"]: r["reason"].partition(":")[0] for r in agent.refused}


def withdraw(config, *versions):
    owner = Owner(config.repository)
    index = owner.index(NAME)
    changes = {"withdrawn": dict.fromkeys(versions, "bad")}
    owner.put_index(NAME, Index.model_validate({**dict(index), **changes}).canonical_json())
    owner.publish()


def test_a_release_serves_after_so_many_predictions_in_the_shadow(agent, config):
    make_release(config.repository, 2, bias=0.01)
    assert look(agent) == 1
    assert agent.versions == [1, 2], "loaded beside the active one"
    assert agent.predict(WEST, version=2).version == 2, "and can be asked"
    ask(agent, WEST, 3)
    assert look(agent) == 1
    assert agent.status()["trials"]["shadow"]["compared"] == 3, "of the active one's live inputs"
    ask(agent, WEST, 2)
    assert look(agent) == 2
    assert (state(agent).name_of(2), state(agent).previous) == ("soaking", 1)
    assert agent.counters.transitions["active:predictions"] == 1


def test_between_two_looks_at_the_repository_trials_go_on_by_themselves(agent, config):
    make_release(config.repository, 2, bias=0.01)
    look(agent)
    ask(agent, WEST)
    wait_until(lambda: agent.versions[0] == 2)


def test_a_quiet_site_gets_its_updates_too(agent, config, clock):
    make_release(config.repository, 2, bias=5.0)
    look(agent)
    clock.advance(3599.0)
    assert look(agent) == 1
    clock.wall += 86400.0
    assert look(agent) == 1, "a jump of the wall clock shortens nothing"
    clock.steady += 1.0
    assert look(agent) == 2
    assert state(agent).soak is not None
    clock.steady += 7200.0
    look(agent)
    assert (state(agent).soak, state(agent).name_of(2)) == (None, "active")


@pytest.mark.parametrize(
    ("release", "rows", "reason"),
    [
        ({"model": model_bytes(nan_below=1.0)}, CALM, "errors"),
        ({"bias": 100.0}, WEST, "disagreement"),
    ],
)
def test_a_bad_release_is_refused_in_the_shadow_once_and_a_newer_one_taken(
    agent, config, release, rows, reason
):
    make_release(config.repository, 2, **release)
    look(agent)
    ask(agent, rows)
    assert look(agent) == 1
    assert reasons(agent) == {2: reason}
    look(agent)
    assert (agent.versions, agent.counters.releases_refused) == ([1], 1)
    make_release(config.repository, 3, bias=0.01)
    look(agent)
    ask(agent, rows)
    assert look(agent) == 3


def test_measurements_in_the_house_refuse_what_no_score_would(config, clock):
    make_release(config.repository, 1)
    with EdgeAgent(config, clock=clock) as agent:
        look(agent)
        field = FieldServices(agent)
        make_release(config.repository, 2, bias=0.4)  # too near to disagree
        look(agent)
        for minute in range(10):
            time = f"2016-06-01T00:{minute:02}:00"
            readings = wind(time, 9.0, 270.0)
            prediction = agent.predict_readings(readings)
            inside = [
                readings[0]._replace(sensor=name, value=s.wind_speed)
                for name, s in prediction.sensors.items()
            ]
            good, bad = agent.check_readings([*readings, *inside])
            assert not bad
            agent.observe(good, prediction)
        field.side.look()
        assert len(agent.measured) == 9, "the last instant may still be filling"
        assert look(agent) == 1
        assert reasons(agent) == {2: "accuracy"}
        field.close()


def test_a_release_that_fails_while_it_soaks_is_rolled_back_by_itself(agent, config):
    make_release(config.repository, 2, model=model_bytes(nan_below=1.0))
    look(agent)
    ask(agent, WEST)
    assert look(agent) == 2
    assert math.isnan(agent.predict(CALM).wind[0, 0, 0, 0, 0])
    look(agent)
    assert agent.versions == [1]
    assert reasons(agent) == {2: "errors"}
    assert look(agent) == 1, "and not tried again"
    assert agent.swaps[-1].cause == "errors"


def test_live_requests_that_the_engine_fails_roll_it_back(agent, config, monkeypatch):
    make_release(config.repository, 2, bias=0.01)
    look(agent)
    agent.promote(2).result(20)
    look(agent)

    def fails(_rows):
        msg = "no"
        raise ReleaseError(msg)

    monkeypatch.setattr(agent.slot().model, "run", fails)
    with pytest.raises(ReleaseError):
        agent.predict(WEST)
    look(agent)
    assert agent.versions == [1]
    np.testing.assert_allclose(agent.predict(WEST).wind, expected_wind(np.float32(WEST)), atol=1e-4)


def test_a_trial_goes_on_after_a_restart(agent, config):
    make_release(config.repository, 2, bias=0.01)
    look(agent)
    ask(agent, WEST, 4)
    look(agent)
    agent.close()
    with EdgeAgent(config, clock=Clock(1_780_000_000.0)) as again:
        assert again.versions == [1, 2]
        assert state(again).shadow.compared == 4
        again.pull().result(20)
        ask(again, WEST, 1)
        assert look(again) == 2


def test_refusals_and_withdrawals_survive_a_restart(agent, config):
    make_release(config.repository, 2, golden_error=1.0)
    look(agent)
    withdraw(config, 1)
    assert look(agent) == 1, "nothing else can serve"
    agent.close()
    with EdgeAgent(config) as again:
        assert look(again) == 1
        assert again.status()["withdrawn"] == [1]
        assert [r["version"] for r in again.refused] == [2]
        assert again.counters.releases_refused == 0
        make_release(config.repository, 3)
        assert look(again) == 3, "anything good is better, at once"


def test_a_withdrawn_release_gives_way_on_record(agent, config):
    for version in (2, 3):
        make_release(config.repository, version, bias=version / 100)
        look(agent)
        agent.promote(version).result(20)
    withdraw(config, 3, 2)
    assert look(agent) == 1
    assert (agent.swaps[-1].reason, agent.swaps[-1].cause) == ("rollback", "withdrawn")
    with pytest.raises(ReleaseError, match="withdrawn"):
        agent.promote(3).result(20)
    with pytest.raises(NoSuchRelease):
        agent.rollback().result(20)


def test_commands_over_the_socket_alone_and_on_record(agent, config):
    for version in (2, 3):
        make_release(config.repository, version, bias=version / 100)
        look(agent)
        ask(agent, WEST)
        look(agent)
    with listening(agent) as server:
        with RemoteAgent(f"unix:{config.socket_path}") as unix:
            assert unix.pin(2) == 2
            assert look(agent) == 2, "the channel's 3 is not taken"
            with pytest.raises(ReleaseError, match="pinned to release 2"):
                unix.promote(3)
            assert unix.unpin() == 2
            assert unix.hold() == 2
            make_release(config.repository, 4)
            assert look(agent) == 2
            assert unix.unhold() == 2
            look(agent)
            assert state(agent).candidate == 4
            assert unix.promote(4) == 4
            assert unix.promote(1) == 1
            assert look(agent) == 1, "4 is held"
            with pytest.raises(NoSuchRelease, match="not on this device"):
                unix.promote(9)
            listed = {r["version"]: r["state"] for r in unix.releases()["releases"]}
            assert listed == {4: "previous", 3: "stored", 2: "stored", 1: "active"}
            assert state(agent).held == 4
        with RemoteAgent(server.http) as tcp:
            for command in (tcp.hold, tcp.unhold, tcp.unpin):
                with pytest.raises(ProtocolError):
                    command()
            for command in (tcp.promote, tcp.pin):
                with pytest.raises(ProtocolError):
                    command(2)
    lines = (config.state / "journal.jsonl").read_bytes().splitlines()
    events = [json.loads(line) for line in lines]
    commands = [e["command"] for e in events if e["event"] == "command" and e["command"] != "pull"]
    assert commands == ["pin 2", "promote 3", "unpin", "hold", "unhold", "promote 4", "promote 1",
                        "promote 9"]  # fmt: skip
    steps = [e for e in events if e["event"] == "transition"]
    assert [e["sequence"] for e in steps] == list(range(1, len(steps) + 1))
    assert [(e["kind"], e["version"]) for e in steps if e["kind"] == "rolled_back"] == [
        ("rolled_back", 2), ("rolled_back", 1)
    ]  # fmt: skip


def test_files_of_the_first_format_are_read_and_put_aside(agent, config):
    make_release(config.repository, 2)
    look(agent)
    agent.promote(2).result(20)
    agent.rollback().result(20)
    agent.close()
    swap = {"event": "swap", "version": 1, "from_version": 2, "reason": "rollback",
            "loading_started_at": 1.0, "swapped_at": 2.0, "finished_at": 3.0}  # fmt: skip
    old = json.dumps(swap).encode() + b"\n"
    (config.state / "journal.jsonl").write_bytes(old)
    (config.state / "active.json").write_text(
        '{"active":1,"format":"rbf-active/1","held":2,"previous":2}'
    )
    with EdgeAgent(config) as again:
        assert (again.versions, again.held) == ([1, 2], 2)
        assert [s.reason for s in again.swaps] == ["rollback", "restart"]
        assert look(again) == 1
    assert (config.state / "journal.1.jsonl").read_bytes() == old
    first = (config.state / "journal.jsonl").read_bytes().splitlines()[0]
    assert json.loads(first) == {"event": "format", "format": "rbf-journal/2"}


def test_the_record_stands_in_for_a_state_that_is_lost(agent, config):
    make_release(config.repository, 2, bias=100.0)
    look(agent)
    ask(agent, WEST)
    look(agent)
    agent.close()
    (config.state / "active.json").write_text("rubbish")
    assert Journal(config.state).read_state().refusal(2) is not None
    with EdgeAgent(config) as again:
        assert look(again) == 1, "2 lies on the disk and stays refused"


def test_a_state_without_any_record_serves_the_newest_that_verifies(agent, config):
    make_release(config.repository, 2)
    look(agent)
    agent.promote(2).result(20)
    agent.close()
    for name in ("active.json", "journal.jsonl"):
        (config.state / name).unlink()
    with EdgeAgent(config) as again:
        assert again.versions == [2]
        assert again.counters.transitions["restored:damaged"] == 1


def test_a_disk_that_has_lost_everything_is_filled_again(agent, config):
    make_release(config.repository, 2)
    look(agent)
    agent.close()
    for version in (1, 2):
        (config.state / "releases" / str(version) / "model.onnx").write_bytes(b"rust")
    with EdgeAgent(config) as again:
        assert again.pull().result(20) == 2
    for name in ("1", "2"):
        (config.state / "releases" / name / "model.onnx").write_bytes(b"rust")
    with EdgeAgent(config) as again:
        assert again.pull().result(20) == 2, "the recorded one itself"


def test_a_candidate_that_does_not_load_after_a_restart_is_fetched_again(agent, config):
    make_release(config.repository, 2)
    look(agent)
    agent.close()
    (config.state / "releases" / "2" / "model.onnx").write_bytes(b"rust")
    with EdgeAgent(config) as again:
        assert again.counters.transitions["dropped:damaged"] == 1
        wait_until(lambda: state(again).candidate == 2)
