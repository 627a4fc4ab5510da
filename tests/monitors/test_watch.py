import numpy as np
import pytest

from edge_agent.contracts.monitors import Calibration, SeriesCalibration
from edge_agent.contracts.observation import PredictionRecord, Reading
from edge_agent.monitors.watch import Monitors
from edge_agent.settings import MonitorSettings

from .test_tear import made_signatures, record, tuned  # noqa: F401 - a fixture

STEP = 600_000_000
DAY = 86_400_000_000


def prediction(speed=5.0, direction=270.0, sensors=None, **values):
    values = {"out_of_range": False, "staleness_seconds": 0.0} | values
    return PredictionRecord(0.0, "t", 1, (speed, direction), sensors or {}, **values)


def inside(sensor, value):
    return Reading("t", sensor, "wind_speed", value, "m s-1")


def monitors(calibration=None, signatures=None, **settings):
    told = []
    made = Monitors(
        MonitorSettings(**settings), calibration, signatures, lambda n, a: told.append((n, a))
    )
    return made, told


def series(threshold=4.0, block_seconds=3600.0, mean=0.0, deviation=1.0):
    return SeriesCalibration(
        mean=mean,
        deviation=deviation,
        slack=0.5,
        threshold=threshold,
        block_seconds=block_seconds,
        run_length_days=365,
    )


def test_stale_data_raise_an_alarm_and_a_fresh_release_clears_it():
    made, told = monitors(staleness_seconds=3600)
    for n, age in enumerate((0.0, 3601.0, 4000.0, 10.0)):
        made.prediction(prediction(staleness_seconds=age), n * STEP)
    assert [(name, a.standing, a.since) for name, a in told] == [
        ("staleness", True, STEP),
        ("staleness", False, None),
    ]
    made.prediction(prediction(staleness_seconds=None), 5 * STEP)
    assert made.status()["staleness"]["value"] == 10.0


def test_a_day_outside_the_trained_range_raises_an_alarm():
    made, told = monitors(out_of_range_share=0.2)
    for n in range(3 * 144):
        made.prediction(prediction(out_of_range=144 <= n < 288 and n % 3 == 0), n * STEP)
    assert [(n, a.standing) for n, a in told] == [("range", True)]
    assert told[0][1].value == pytest.approx(1 / 3)


def test_inputs_that_leave_what_was_known_raise_an_alarm():
    known = series(mean=np.log(5.1), deviation=0.3)
    made, told = monitors(Calibration(site="h", made_from="test", drift={"log_speed": known}))
    for n in range(60):
        made.prediction(prediction(), n * STEP)
    assert told == []
    for n in range(60, 100):
        made.prediction(prediction(speed=12.0), n * STEP)
    assert [name for name, _ in told] == ["drift_log_speed"]


def test_prediction_and_reading_are_paired_in_either_order():
    calibration = Calibration(site="h", made_from="test", error={"a": series(deviation=0.02)})
    made, told = monitors(calibration)
    for n in range(100):
        record_ = prediction(sensors={"a": 2.0})
        value = 2.0 if n < 60 else 2.5
        steps = [
            lambda r=record_, n=n: made.prediction(r, n * STEP),
            lambda v=value, n=n: made.readings([(inside("a", v), n * STEP)]),
        ]
        for step in steps if n % 2 else steps[::-1]:
            step()
    assert [name for name, _ in told] == ["error_a"]
    assert told[0][1].since >= 60 * STEP


def test_degraded_predictions_calm_and_strangers_are_not_compared():
    calibration = Calibration(site="h", made_from="test", error={"a": series(deviation=0.01)})
    made, told = monitors(calibration)
    for n in range(100):
        sensors = {"a": 2.0}
        made.readings([(inside("a", 9.0), n * STEP), (inside("z", 9.0), n * STEP)])
        made.prediction(
            prediction(sensors=sensors, degraded=("mast/wind_speed",))
            if n % 2
            else prediction(speed=0.5, sensors=sensors),
            n * STEP,
        )
    assert told == []


def test_a_silent_sensor_switches_off_no_other_monitor():
    known = series(deviation=0.02)
    calibration = Calibration(site="h", made_from="test", error={"a": known, "b": known})
    made, told = monitors(calibration)
    for n in range(100):
        made.readings([(inside("a", 2.0 if n < 60 else 2.5), n * STEP)])
        for _ in range(2):  # a repeat counts once
            made.prediction(
                prediction(sensors={"a": 2.0, "b": 2.0}, degraded=("b/wind_speed silent",)),
                n * STEP,
            )
    assert [name for name, _ in told] == ["error_a"]
    assert "error_b" not in made.alarms
    assert len(made._pending) <= 256


def test_a_sensor_that_comes_late_is_compared_too_and_only_once():
    known = series(deviation=0.02)
    calibration = Calibration(site="h", made_from="test", error={"a": known, "b": known})
    early, late = (monitors(calibration)[0] for _ in range(2))
    for n in range(200):
        for made, order in ((early, "abp"), (late, "papb")):
            for what in order:
                if what == "p":
                    made.prediction(prediction(sensors={"a": 2.0, "b": 2.0}), n * STEP)
                else:
                    made.readings([(inside(what, 2.0 + n / 1000), n * STEP)])
    assert early.alarms == late.alarms
    assert early.alarms["error_a"].standing
    assert late._pending == {}


def test_what_waits_for_its_other_half_is_bounded():
    calibration = Calibration(site="h", made_from="test", error={"a": series()})
    made, _ = monitors(calibration)
    for n in range(2000):
        made.readings([(inside("a", 1.0), n * STEP)])
    assert len(made._pending) <= 256


def test_a_tear_is_looked_for_with_all_sensors_alone(tuned):  # noqa: F811
    signatures, calibration = tuned
    made, _ = monitors(Calibration(site="h", made_from="test", tear=calibration), made_signatures())
    first, *others = signatures.meta.sensors
    for n in range(500):
        sensors = dict.fromkeys(signatures.meta.sensors, 1.0)
        made.prediction(
            prediction(sensors=sensors, degraded=(f"{first}/wind_speed silent",)), n * STEP
        )
        made.readings([(inside(name, 9.0), n * STEP) for name in others])
    assert "tear" not in made.alarms


def test_a_tear_is_told_with_its_panel(tuned):  # noqa: F811
    signatures, calibration = tuned
    made, told = monitors(
        Calibration(site="h", made_from="test", tear=calibration), made_signatures()
    )
    pairs = record(14, 90, 1)
    names = signatures.meta.sensors
    for n, at in enumerate(pairs.instant.tolist()):
        sensors = dict(zip(names, pairs.predicted[n].tolist(), strict=True))
        speed, direction = float(pairs.wind_speed[n]), float(pairs.wind_from_direction[n])
        made.prediction(prediction(speed, direction, sensors), at)
        for name, value in zip(names, pairs.measured[n].tolist(), strict=True):
            made.readings([(inside(name, value), at)])
    name, alarm = told[-1]
    assert (name, alarm.standing, alarm.panel) == ("tear", True, "east")
    assert made.status()["tear"]["panel"] == "east"
