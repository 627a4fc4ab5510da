"""The trial's problem on our site, the trial's families, and a row of the table."""

import numpy as np
import pytest

from apps.simulators.base import Fidelity
from apps.surrogates.symmetry import symmetries
from benchmarks import surrogates
from benchmarks.trial import networks, problem
from benchmarks.trial.columns import Columns, mirrored
from benchmarks.trial.peers import PEERS

COARSE = Fidelity(cells=(12, 8, 6))


def test_the_houses_are_what_the_trial_had(site):
    found = problem.houses(site, 3, 0, 64)
    assert found[:16] == problem.houses(site, 3, 0, 16), "the first runs are the same"
    assert found[16:20] == problem.houses(site, 3, 16, 20)
    torn = [h for h in found if h.scenario.tears]
    assert len(torn) == 32
    per_wall = [
        sum(h.scenario.tears[0].panel == p for h in torn) for p in problem.space(site).panels
    ]
    assert per_wall == [8, 8, 8, 8]
    for house in found:
        house.scenario.check(house.site)
        assert house.scenario.wind_speed == 5.0
        assert symmetries(house.site) == symmetries(site)
        wall, roof, drag, *hole = house.state
        assert {(p.screen.linear, p.screen.constant) for p in house.site.panels} == {
            (0.0, wall), (0.0, roof),
        }  # fmt: skip
        assert house.site.panels[-1].screen.constant == roof
        assert {c.drag_area_density for c in house.site.canopy} == {drag}
        assert 1 <= min(wall, roof) <= max(wall, roof) <= 5
        assert 0.05 <= drag <= 0.6
        assert tuple(hole) == problem.space(site).tear(house.scenario.tears)
        assert hole[2] == 0 or 5 <= hole[2] <= 40


def test_runs_are_made_once_and_found_again(small_site, tmp_path):
    made = problem.simulated(small_site, COARSE, 3, 0, 4, tmp_path)
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.nc")}
    assert len(files) == 4
    some = problem.simulated(small_site, COARSE, 3, 1, 4, tmp_path)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.nc")} == files
    assert some.digests == made.digests[1:]
    np.testing.assert_array_equal(some.wind, made.wind[1:])
    assert made.columns == (
        "wind_speed", "wind_from_direction", "wall_loss", "roof_loss", "canopy_drag",
        "tear_panel", "tear_centre", "tear_width",
    )  # fmt: skip
    # Each house is another one: wind of 5 m/s all of them, and no two alike.
    assert len({w.tobytes() for w in made.wind}) == 4


def test_columns_are_scaled_and_a_hole_is_told_by_place_and_width(small_site, make_houses):
    data = make_houses(40, tears=True)
    columns = Columns.of(data, small_site)
    scaled = columns(data.inputs)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=0.02)
    torn = columns.raw(data.inputs)[:, -6:-2]
    panel = data.state[:, 1]
    np.testing.assert_array_equal(torn.argmax(axis=1)[panel > 0], panel[panel > 0] - 1)
    np.testing.assert_array_equal(torn.sum(axis=1), panel > 0)
    images = columns.raw(mirrored(data, small_site).inputs).reshape(4, 40, -1)
    # The place is from the wall's middle: a mirror changes its sign at most, and no width.
    for image in images:
        np.testing.assert_allclose(np.abs(image[:, -2]), np.abs(images[0][:, -2]), atol=1e-6)
        np.testing.assert_allclose(image[:, -1], images[0][:, -1], atol=1e-6)


@pytest.fixture
def short(monkeypatch):
    """Few steps of gradient descent."""
    whole = networks.descend

    def descend(network, loss, steps, **settings):
        whole(network, loss, min(steps, 60), **settings)

    monkeypatch.setattr(networks, "descend", descend)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_learns(small_site, make_houses, name):
    truth, data = make_houses(24, 9, tears=True), make_houses(96, tears=True)
    wind = PEERS[name].fit(data, small_site)(truth)
    assert wind.shape == truth.wind.shape
    ratio = (data.wind / data.wind_speed[:, None, None, None, None]).mean(axis=0)
    blind = ratio * truth.wind_speed[:, None, None, None, None]
    error = surrogates.speed_error(truth.wind, wind)
    assert error < 0.9 * surrogates.speed_error(truth.wind, blind), error


def test_a_row_of_ours(small_site, make_houses):
    sets = (make_houses(n, seed, tears=True) for n, seed in ((16, 1), (24, 2), (24, 3)))
    of = surrogates.Problem(small_site, *sets)
    row = surrogates.measured("pod_gp", False, of.training, of)
    assert row["model"] == "pod_gp, no mirrors"
    assert row["trial"] == "0.888"
    assert row["aim_met"] == "no"
    assert 0.8 < row["coverage"] < 1
    assert row["parity"] < 1e-5
    assert set(surrogates.COLUMNS) <= set(row)
