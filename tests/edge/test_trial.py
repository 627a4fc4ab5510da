"""What a trial has shown and what follows; and two releases side by side."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import shadow
from edge_agent.columns import Columns
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.observation import PredictionRecord, Reading
from edge_agent.measured import Pairs
from edge_agent.settings import PromotionSettings
from edge_agent.shadow import Beside
from edge_agent.trial import ENOUGH, Evidence, allowed_difference, judge

SETTINGS = PromotionSettings(
    shadow_predictions=100, shadow_seconds=1000.0, soak_seconds=500.0, accuracy=0.1
)


def verdict(phase="shadow", allowed=1.0, **seen):
    found = judge(phase, Evidence(**seen), SETTINGS, allowed)
    return found.outcome, found.rule


def test_nothing_seen_decides_nothing():
    assert verdict() == ("on", None)


def test_enough_predictions_or_the_time_pass_a_shadow_and_the_time_alone_a_soak():
    assert verdict(compared=99) == ("on", None)
    assert verdict(compared=100) == ("passed", "predictions")
    assert verdict(seconds=1000.0) == ("passed", "time")
    assert verdict("soak", compared=10_000) == ("on", None)
    assert verdict("soak", seconds=500.0) == ("passed", "time")


def test_one_error_fails_it_even_at_the_end():
    for phase in ("shadow", "soak"):
        assert verdict(phase, compared=100, seconds=1e4, errors=1) == ("failed", "errors")
    lenient = SETTINGS.model_copy(update={"errors": 1})
    assert judge("shadow", Evidence(errors=1), lenient).outcome == "on"


def test_it_is_slow_if_most_runs_are():
    assert verdict(compared=ENOUGH - 1, slow=ENOUGH - 1) == ("on", None)
    assert verdict(compared=40, slow=20) == ("on", None)
    assert verdict(compared=40, slow=21) == ("failed", "latency")


def test_measurements_outrank_the_active_release():
    n = ENOUGH
    assert verdict(differed=n, difference=2.0 * n) == ("failed", "disagreement")
    assert verdict(differed=n, difference=math.nan) == ("failed", "disagreement")
    assert verdict(differed=n - 1, difference=2.0 * n) == ("on", None)
    better = {"measured": n, "worse": -0.5 * n, "worse_squares": 0.25 * n}
    assert verdict(differed=n, difference=2.0 * n, **better) == ("on", None)
    assert verdict("soak", differed=n, difference=2.0 * n) == ("on", None)


@given(st.lists(st.floats(-2, 2), min_size=ENOUGH, max_size=200))
def test_accuracy_asks_for_the_margin_and_for_two_standard_errors(worse):
    found = verdict(measured=len(worse), worse=sum(worse), worse_squares=sum(w * w for w in worse))
    mean, error = np.mean(worse), np.std(worse, ddof=1) / math.sqrt(len(worse))
    clear = min(mean - 0.1, mean - 2 * error)
    if abs(clear) > 1e-6:
        assert found == (("failed", "accuracy") if clear > 0 else ("on", None))


def test_a_short_shadow_looks_at_what_it_has():
    short = PromotionSettings(shadow_predictions=5)
    evidence = Evidence(compared=5, differed=5, difference=10.0)
    assert judge("shadow", evidence, short, 1.0).rule == "disagreement"


def test_what_two_scores_explain():
    assert allowed_difference((0.1, 0.2), SETTINGS) == pytest.approx(3 * 0.3)
    assert allowed_difference((0.0, 0.0), SETTINGS) == pytest.approx(3 * 0.05)


class Model:
    """Gives `wind`, in `seconds` of a clock that stands otherwise."""

    now = 0.0

    def __init__(self, wind=1.0, seconds=1e-3):
        self.wind, self.seconds = wind, seconds
        self.inputs = []

    def run(self, inputs):
        Model.now += self.seconds
        self.inputs.append(inputs.tolist())
        if self.wind is None:
            msg = "no"
            raise ReleaseError(msg)
        wind = np.full((1, 3, 2, 2, 2), self.wind, np.float32)
        return {"wind": wind, "wind_std": np.ones_like(wind)}


WIND = Columns(("wind_speed", "wind_from_direction"))


@pytest.fixture
def beside(monkeypatch):
    monkeypatch.setattr(shadow.time, "perf_counter", lambda: Model.now)

    def make(model, other, columns=WIND, wanted=None):
        def slot(model, columns):
            return SimpleNamespace(
                version=1,
                model=model,
                columns=columns,
                sensing=SimpleNamespace(
                    inside=[(None, i) for i, n in enumerate(columns.names) if n in ("in_a", "in_b")]
                ),
                limits=((0.0, 15.0), (0.0, 360.0), *[(-1.0, 10.0)] * 5)[: len(columns.names)],
                release=SimpleNamespace(grid="grid"),
                sensor_names=("middle", "corner"),
                sensor_weights=np.full((8, 2), 1 / 8, np.float32),
            )

        return Beside(slot(model, wanted or columns), slot(other, columns), columns, SETTINGS)

    return make


def test_a_row_shows_errors_time_and_difference(beside):
    row = [4.0, 270.0]
    same = beside(Model(2.0), Model(2.0)).row(row)
    assert same == Evidence(compared=1, differed=1)
    assert beside(Model(3.0), Model(2.0)).row(row).difference == pytest.approx(0.5)
    assert beside(Model(3.0), Model(2.0)).row([16.0, 270.0]).differed == 0, "outside the range"
    for bad in (None, math.nan, math.inf):
        assert beside(Model(bad), Model(2.0)).row(row) == Evidence(compared=1, errors=1)
        assert beside(Model(2.0), Model(bad)).row(row) == Evidence(), "not this release's fault"
        assert beside(Model(bad), Model(2.0)).measured(row, {"middle": 1.0}) == Evidence(errors=1)


@pytest.mark.parametrize(
    ("seconds", "others", "slow"), [(0.06, 0.01, 1), (0.06, 0.04, 0), (0.04, 0.001, 0)]
)
def test_slow_is_beyond_the_limit_and_twice_the_other(beside, seconds, others, slow):
    pair = beside(Model(1.0, seconds), Model(1.0, others))
    assert [pair.row([4.0, 270.0]).slow for _ in range(2)] == [slow, slow], "whoever goes first"


def test_measurements_show_whose_error_is_larger(beside):
    pair = beside(Model(3.0), Model(1.0))
    speed = math.sqrt(3)
    found = pair.measured([4.0, 270.0], {"middle": speed, "corner": 3 * speed, "roof": 9.0})
    # Errors: 2 and 0 times the speed here, 0 and 2 times there.
    assert found.measured == 1
    assert found.worse == pytest.approx(0.0, abs=1e-5)
    found = pair.measured([4.0, 270.0], {"middle": speed})
    assert found.worse == pytest.approx(2 * speed, rel=1e-5)
    assert found.worse_squares == pytest.approx(found.worse**2)
    assert pair.measured([4.0, 270.0], {"roof": 1.0}) == Evidence()


def test_columns_are_found_by_name_or_nothing_is_compared(beside):
    other = Model()
    turned = beside(other, Model(), wanted=Columns(("wind_from_direction", "wind_speed")))
    assert turned.possible
    turned.row([4.0, 270.0])
    assert other.inputs == [[[270.0, 4.0]]]
    strange = Columns(("wind_speed", "air_temperature"))
    assert not beside(Model(), Model(), wanted=strange).possible


HOUSE = Columns((*WIND.names, "loss", "in_a"), {"loss": 1.0, "in_a": SILENT})


def test_a_column_that_the_rows_lack_takes_its_default(beside):
    model, other = Model(), Model()
    pair = beside(model, other, columns=WIND, wanted=HOUSE)
    assert pair.possible
    assert pair.row([4.0, 270.0]).compared == 1
    assert (model.inputs, other.inputs) == ([[[4.0, 270.0, 1.0, SILENT]]], [[[4.0, 270.0]]])
    assert beside(model, other, columns=HOUSE, wanted=WIND).possible
    needy = Columns((*WIND.names, "loss"))
    assert not beside(model, other, columns=WIND, wanted=needy).possible
    assert beside(model, other, columns=HOUSE, wanted=needy).possible, "the rows hold it"


def test_a_state_that_nobody_gave_is_each_releases_own(beside):
    model, other = Model(), Model()
    moved = HOUSE._replace(defaults={"loss": 1.5, "in_a": SILENT})
    pair = beside(model, other, columns=HOUSE, wanted=moved)
    pair.row([4.0, 270.0, 1.0, SILENT])
    assert (model.inputs[-1][0][2], other.inputs[-1][0][2]) == (1.5, 1.0)
    pair.row([4.0, 270.0, 2.0, 0.5])
    assert (model.inputs[-1], other.inputs[-1]) == ([[4.0, 270.0, 2.0, 0.5]],) * 2


def test_measurements_are_not_shown_to_what_they_judge(beside):
    model, other = Model(), Model()
    pair = beside(model, other, columns=HOUSE)
    assert pair.measured([4.0, 270.0, 1.0, 0.5], {"middle": 1.0}).measured == 1
    assert model.inputs == other.inputs == [[[4.0, 270.0, 1.0, SILENT]]]


def record(**changes):
    fields = {
        "wall_time": 0.0, "data_time": None, "version": 3, "inputs": (4.0, 270.0),
        "sensors": {"middle": 1.0, "corner": 2.0}, "out_of_range": False,
        "staleness_seconds": None,
    }  # fmt: skip
    return PredictionRecord(**fields | changes)


def test_predictions_and_interior_readings_of_a_minute_come_together():
    found = []
    pairs = Pairs(found.append)
    minute = 60_000_000

    def reading(sensor, speed, instant):
        pairs.readings([(Reading("", sensor, "wind_speed", speed, "m s-1"), instant)])

    reading("middle", 0.5, 0)
    pairs.prediction(record(), 1)
    reading("corner", 0.7, 2)
    reading("mast", 5.0, 2)
    assert found == []
    pairs.prediction(record(degraded=("mast/wind_speed", "corner/wind_speed silent")), minute)
    reading("middle", 0.6, minute)
    assert found == [(3, (4.0, 270.0), {"middle": 0.5, "corner": 0.7})]
    pairs.prediction(record(degraded=("corner/wind_speed silent",)), 2 * minute)
    reading("middle", 0.8, 2 * minute)
    reading("mast", 5.0, 3 * minute)
    assert found[1:] == [(3, (4.0, 270.0), {"middle": 0.8})], "silence spoils no other"
    for later in range(4, 400):
        pairs.prediction(record(), later * minute)
    assert len(found) == 2, "nothing measured"
    assert len(pairs._pending) <= 256
