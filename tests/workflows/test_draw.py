"""Drawing from a ledger: streams before there is a surrogate, its doubts afterwards."""

from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import workflows.draw
from edge_agent.contracts.observation import Reading
from workflows.config import Campaign, Steering
from workflows.draw import Draw
from workflows.ledger import Ledger


def campaign(**steering):
    return Campaign(name="t", steering=Steering(**steering))


@pytest.fixture
def ledger(tmp_path):
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as opened:
        yield opened


def draw(ledger, **steering):
    settings = campaign(**steering)
    return Draw(settings, settings.load_site(Path("t.toml")), ledger)


def readings(days, direction, start="2016-06-01T00:00:00", speed=6.0):
    first = datetime.fromisoformat(start)
    for i in range(144 * days):
        time = (first + timedelta(minutes=10 * i)).isoformat()
        yield Reading(time, "mast", "wind_from_direction", direction, "degree")
        yield Reading(time, "mast", "wind_speed", speed + 0.1 * np.sin(i), "m s-1")


@pytest.fixture
def doubts(monkeypatch, tmp_path):
    """A surrogate that is unsure of winds from around 200 degrees."""

    def run_onnx(_model, inputs):
        away = np.abs((inputs[:, 1] - 200.0 + 180.0) % 360.0 - 180.0)
        std = np.where(away < 20.0, 1.0, 0.01).astype(np.float32)
        return None, np.broadcast_to(std[:, None, None, None, None], (len(inputs), 3, 1, 2, 2))

    monkeypatch.setattr("apps.surrogates.export.run_onnx", run_onnx)
    monkeypatch.setattr(
        workflows.draw,
        "read_candidate",
        lambda _folder: SimpleNamespace(columns=("wind_speed", "wind_from_direction")),
    )
    (tmp_path / "candidate").mkdir()
    (tmp_path / "candidate" / "model.onnx").write_bytes(b"")
    return tmp_path / "candidate"


def trained(ledger, folder, digests=tuple(f"{i:064x}" for i in range(64))):
    number = ledger.add_candidate({"digests": list(digests)})
    ledger.update_candidate(number, "trained", folder=str(folder))
    ledger.update_candidate(number, "accepted")


def test_before_a_surrogate_training_is_spread_and_follows_the_weather(ledger):
    ledger.store_readings(readings(2, 270.0))
    drawing = draw(ledger, explore=0.5)
    drawn = drawing.next("training", 20)
    assert drawn.newest == "2016-06-02T23:50:00"
    west = [s for _, _, s in drawn.planned if abs(s.wind_from_direction - 270.0) < 45.0]
    assert 7 <= len(west) <= 16  # a cover has five
    # Asked again, and asked in two parts, it goes on as it would have.
    ledger.plan("training", drawn.planned[:8], drawn.newest)
    assert drawing.next("training", 12).planned == drawn.planned[8:]
    assert draw(ledger, explore=0.5).next("training", 12).planned == drawn.planned[8:]


def test_frozen_sets_follow_no_weather(ledger):
    ledger.store_readings(readings(2, 270.0))
    drawn = draw(ledger).next("evaluation", 16)
    assert drawn.newest is None
    assert [number for number, _, _ in drawn.planned] == list(range(16))
    assert np.ptp([s.wind_from_direction for _, _, s in drawn.planned]) > 200.0


def test_with_a_surrogate_training_goes_where_it_is_unsure(ledger, doubts):
    trained(ledger, doubts)
    drawn = draw(ledger, explore=1.0).next("training", 6)
    assert len({digest for _, digest, _ in drawn.planned}) == 6
    away = [abs(s.wind_from_direction - 200.0) for _, _, s in drawn.planned]
    assert max(away) < 20.0


def test_what_is_planned_is_not_drawn_again_after_a_restart(ledger, doubts):
    trained(ledger, doubts)
    first = draw(ledger).next("training", 6)
    ledger.plan("training", first.planned, first.newest)
    second = draw(ledger).next("training", 6)
    assert not {d for _, d, _ in first.planned} & {d for _, d, _ in second.planned}
    assert second.planned[0][0] == 6


def test_a_spent_pool_falls_back_to_the_stream(ledger, doubts):
    trained(ledger, doubts)
    drawn = draw(ledger).next("training", 400)
    assert len({digest for _, digest, _ in drawn.planned}) == 400
    assert [number for number, _, _ in drawn.planned][:256] == list(range(256))


def test_cover_by_request(ledger, doubts):
    trained(ledger, doubts)
    drawn = draw(ledger, method="cover", explore=1.0).next("training", 16)
    assert np.ptp([s.wind_from_direction for _, _, s in drawn.planned]) > 200.0


def test_only_winds_since_a_change_count(ledger):
    ledger.store_readings(readings(8, 90.0, speed=7.0))
    ledger.store_readings(readings(3, 270.0, start="2016-06-09T00:00:00", speed=12.0))
    watching = draw(ledger, explore=0.0)
    drawn = watching.next("training", 20)
    assert watching.changed_at is not None
    assert watching.changed_at >= "2016-06-08T12:00:00"
    assert all(200.0 < s.wind_from_direction < 340.0 for _, _, s in drawn.planned)
    everything = draw(ledger, explore=0.0, change=None).next("training", 20)
    assert any(s.wind_from_direction < 180.0 for _, _, s in everything.planned)


def test_tears_are_those_of_the_signatures_and_end(ledger):
    drawing = draw(ledger)
    drawn = drawing.next("tear", 10)
    ledger.plan("tear", drawn.planned, None)
    again = drawing.next("tear", 5)
    assert again.planned[0][0] == 10
    assert any(s.tears for _, _, s in drawn.planned)
    rest = drawing.next("tear", 10**6)
    assert len(rest.planned) == drawing.tears - 10
