"""The estimated state follows readings and people; the campaign follows it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workflows.state_keeper
from apps.candidates import MODEL
from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.features import MastLogLaw
from edge_agent.contracts.observation import Reading
from edge_agent.contracts.site_state import SiteState, Tear
from workflows.config import Campaign, Following, ScenarioRange, Training
from workflows.following import JUMP, NEW_ERROR, Seen, followed, moved, together, told
from workflows.ledger import Ledger
from workflows.maintenance import Known, MaintenanceLog, known, read_log
from workflows.state_keeper import StateKeeper
from workflows.tasks import state_of, training_task

START = datetime(2016, 6, 1, tzinfo=UTC)
WEST = Tear(panel="west", centre=27.0, width=20.0)
FACTORS = np.geomspace(0.5, 3.0, 9)


class Table:
    """A house whose sensors read less the denser its screens are."""

    factors = FACTORS

    def __init__(self, slopes=(-0.5, -0.8, -0.3)):
        self.slopes = np.array(slopes)

    def at(self, winds, factor):
        return 0.4 * winds[:, :1] * np.exp(np.log(factor) * self.slopes)

    def predict(self, winds):
        return np.stack([self.at(winds, f) for f in self.factors], axis=1)


def winds(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(2, 9, n), rng.uniform(0, 360, n)], axis=1)


def seen(factor, n=48, seed=0, noise=0.1):
    some = winds(n, seed)
    gusts = np.exp(noise * np.random.default_rng(seed + 1).standard_normal((n, 3)))
    return Seen(some, Table().at(some, factor) * gusts, START, START + timedelta(hours=12))


def test_dust_is_followed_and_its_error_shrinks():
    state = SiteState(log_error=NEW_ERROR)
    for day in range(12):
        factor = 1.0 + 0.04 * day
        state = followed(state, Table(), seen(factor, seed=day), None, 1.0)
        assert abs(np.log(state.screen_loss_factor / factor)) < 4 * state.log_error
    assert state.screen_loss_factor > 1.25
    assert state.log_error < NEW_ERROR
    assert state.readings == 144


def test_a_wash_that_nobody_told_is_believed_at_once():
    state = SiteState(screen_loss_factor=2.5, log_error=0.05)
    washed = followed(state, Table(), seen(1.0), None, 0.5)
    assert washed.screen_loss_factor == pytest.approx(1.0, abs=0.12)
    near = followed(state, Table(), seen(2.4), None, 0.5)
    assert near.log_error < 0.07, "drift is joined with what was known"
    assert JUMP > 3


def test_a_calm_makes_it_less_certain_and_moves_nothing():
    state = SiteState(screen_loss_factor=1.3, log_error=0.05)
    silent = Seen(np.empty((0, 2)), np.empty((0, 3)), None, None)
    after = followed(state, Table(), silent, None, 4.0)
    assert after.screen_loss_factor == pytest.approx(1.3)
    assert after.log_error > 0.15


def test_readings_are_brought_together_by_instant():
    def reading(sensor, quantity, minute, value):
        time = (START + timedelta(minutes=minute)).isoformat()
        return Reading(time, sensor, quantity, value, "m s-1")

    site = Campaign(name="t").load_site(Path("t.toml"))
    mast = [reading("mast", "wind_speed", m, 5.0) for m in (0, 10, 20, 30)]
    mast += [reading("mast", "wind_from_direction", m, 90.0) for m in (0, 10, 30)]
    inside = {
        "wu31": [reading("wu31", "wind_speed", m, 1.0) for m in (0, 20, 30)],
        "wu30": [reading("wu30", "wind_speed", m, 2.0) for m in (10,)],
    }
    found = together(mast, inside, MastLogLaw.for_site(site), 10)
    assert found.winds.shape == (3, 2)
    np.testing.assert_array_equal(found.measured, [[1, np.nan], [np.nan, 2], [1, np.nan]])
    assert (found.since, found.until) == (START, START + timedelta(minutes=30))
    assert len(together(mast, inside, MastLogLaw.for_site(site), 2).winds) == 2
    assert together(mast, {"wu31": []}, MastLogLaw.for_site(site), 2).since is None


EVENTS = """
[[event]]
time = 2016-06-20T09:00:00
kind = "mended"
panel = "west"

[[event]]
time = 2016-06-10T09:00:00
kind = "torn"
tear = { panel = "west", centre = 27.0, width = 20.0 }

[[event]]
time = 2016-06-05T09:00:00Z
kind = "washed"
"""


def test_the_log_tells_what_is_known_when(tmp_path):
    path = tmp_path / "log.toml"
    assert read_log(path) == ()
    path.write_text(EVENTS)
    events = read_log(path)
    assert [e.kind for e in events] == ["washed", "torn", "mended"]
    for day, tears, latest in ((1, (), None), (6, (), "washed"), (11, (WEST,), "torn"),
                               (21, (), "mended")):  # fmt: skip
        news = known(events, datetime(2016, 6, day, tzinfo=UTC))
        assert news.tears == tears
        assert (news.latest and news.latest.kind) == latest


@pytest.mark.parametrize(
    "wrong", ['kind = "torn"', 'kind = "mended"', 'kind = "washed"\npanel = "west"', 'kind = "x"']
)
def test_a_log_that_says_half_is_refused(tmp_path, wrong):
    path = tmp_path / "log.toml"
    path.write_text(f"[[event]]\ntime = 2016-06-01T00:00:00\n{wrong}\n")
    with pytest.raises(InvalidConfig, match="event"):
        read_log(path)


def test_what_people_tell_changes_the_state_once():
    events = MaintenanceLog.model_validate(
        {"event": [{"time": START + timedelta(hours=1), "kind": "washed"}]}
    ).event
    news = known(events, START + timedelta(hours=2))
    dusty = SiteState(screen_loss_factor=2.0, log_error=0.05)
    assert told(dusty, news, START).screen_loss_factor == 1.0
    assert told(dusty, news, START + timedelta(hours=1)) == dusty, "told before"
    torn = told(dusty, Known((WEST,), None), None)
    assert torn.tears == (WEST,)
    assert moved(torn, dusty, 0.05)
    assert not moved(dusty, dusty, 0.05)


@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0), st.floats(0.01, 0.5))
def test_a_state_has_moved_if_and_only_if_by_a_step(one, other, step):
    a, b = SiteState(screen_loss_factor=one), SiteState(screen_loss_factor=other)
    assert moved(a, b, step) == (abs(np.log(one) - np.log(other)) >= step)
    assert moved(a, None, step) == (abs(np.log(one)) >= step)


@pytest.fixture
def campaign():
    return Campaign(
        name="t",
        scenarios=ScenarioRange(screen_loss_factor=(0.5, 3.0)),
        training=Training(family="pod_gp"),
        following=Following(every_hours=12),
    )


@pytest.fixture
def site(campaign):
    return campaign.load_site(Path("t.toml"))


@pytest.fixture
def expects(monkeypatch, tmp_path):
    """A surrogate that expects of the sensors what `Table` says."""

    class Fake(Table):
        def __init__(self, model, columns, weights, factors, others=None):
            super().__init__()
            self.factors, self.columns = factors, columns
            self.model, self.weights, self.others = model, weights, others

    class Known:
        columns = ("wind_speed", "wind_from_direction", "screen_loss_factor")

    monkeypatch.setattr(workflows.state_keeper, "SurrogateTable", Fake)
    monkeypatch.setattr(workflows.state_keeper, "read_candidate", lambda _folder: Known)
    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / MODEL).write_bytes(b"")
    return folder


def published(ledger, folder):
    number = ledger.add_candidate({"digests": []})
    ledger.update_candidate(number, "trained", folder=str(folder))
    ledger.update_candidate(number, "accepted")


def record(hours, factor, site, start=START):
    rng = np.random.default_rng(7)
    law = MastLogLaw.for_site(site)
    for i in range(int(hours * 6)):
        time = (start + timedelta(minutes=10 * i)).replace(tzinfo=None).isoformat()
        speed, direction = float(rng.uniform(4, 9)), float(rng.uniform(0, 360))
        yield Reading(time, "mast", "wind_speed", speed, "m s-1")
        yield Reading(time, "mast", "wind_from_direction", direction, "degree")
        wind = law.from_readings({"wind_speed": [speed], "wind_from_direction": [direction]})
        for name, value in zip((s.name for s in site.sensors), Table().at(wind[None], factor)[0],
                               strict=True):  # fmt: skip
            yield Reading(time, name, "wind_speed", float(value), "m s-1")


def test_the_keeper_waits_for_a_surrogate_and_for_time(campaign, site, expects, tmp_path):
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        keeper = StateKeeper(campaign, site, ledger)
        assert not keeper.look(), "no readings"
        assert not keeper.hears
        ledger.store_readings(record(24, 1.6, site))
        assert keeper.hears
        assert not keeper.look(), "no surrogate"
        published(ledger, expects)
        assert keeper.look()
        assert keeper.state.screen_loss_factor == pytest.approx(1.6, rel=0.1)
        assert not keeper.look(), "nothing new"
        again = StateKeeper(campaign, site, ledger)
        assert again.state == keeper.state, "it is remembered"
        assert not again.look()
        [(_, kind, event)] = ledger.events("state_estimated")
        assert kind == "state_estimated"
        assert event["readings"] > 100


def test_a_campaign_of_one_house_keeps_no_state(site, expects, tmp_path):
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        ledger.store_readings(record(24, 1.6, site))
        published(ledger, expects)
        keeper = StateKeeper(Campaign(name="t"), site, ledger)
        assert not keeper.follows
        assert not keeper.hears
        assert not keeper.look()


def test_gains_are_learnt_while_the_screens_are_new(campaign, site, expects, tmp_path):
    following = Following(every_hours=12, new_days=1.0)
    campaign = campaign.model_copy(update={"following": following})
    off = 1.2  # every sensor reads a fifth too much

    def readings(hours, factor, start=START):
        for r in record(hours, factor, site, start):
            inside = r.sensor != "mast"
            yield r._replace(value=off * r.value) if inside else r

    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        published(ledger, expects)
        ledger.store_readings(readings(26, 1.0))
        keeper = StateKeeper(campaign, site, ledger)
        assert keeper.look()
        np.testing.assert_allclose(ledger.states()[-1].gains, np.log(off), atol=0.02)
        ledger.store_readings(readings(24, 1.5, START + timedelta(hours=26)))
        assert keeper.look()
        assert keeper.state.screen_loss_factor == pytest.approx(1.5, rel=0.12)


def test_a_log_that_cannot_be_read_is_said_once_and_stops_nothing(
    campaign, site, expects, tmp_path
):
    path = tmp_path / "log.toml"
    path.write_text("[[event]]\nkind = 3")
    following = Following(every_hours=6, log=str(path))
    campaign = campaign.model_copy(update={"following": following})
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        published(ledger, expects)
        keeper = StateKeeper(campaign, site, ledger)
        for k in range(2):
            ledger.store_readings(record(12, 1.2, site, START + timedelta(hours=12 * k)))
            assert keeper.look()
        assert len(ledger.events("maintenance_log_unreadable")) == 1


def test_the_training_is_told_the_state(campaign, site, tmp_path):
    from workflows.layout import RunFolder

    state = SiteState(screen_loss_factor=1.4, log_error=0.1)
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        task = training_task(campaign, site, RunFolder(tmp_path), ledger, state)
        assert task.site_state == state
        assert [s.name for s in task.space.scalars] == ["screen_loss_factor"]
        ledger.add_candidate(task.model_dump(mode="json"))
        assert state_of(ledger.candidates()[-1]) == state
        plain = training_task(Campaign(name="t"), site, RunFolder(tmp_path), ledger, state)
        assert plain.site_state is None
