"""Interior sensors as inputs: readings, analysis and background, and what a trial makes of them."""

import numpy as np
import pytest

from edge_agent.agent import EdgeAgent
from edge_agent.contracts.errors import ReleaseError
from edge_agent.contracts.features import SILENT
from edge_agent.contracts.observation import Reading
from edge_agent.field import FieldServices
from edge_agent.settings import PromotionSettings
from edge_agent.trial import ENOUGH

from .conftest import wind
from .releases import INSIDE, STATE, expected_wind, make_release
from .test_promotion import ask, look, reasons, state
from .test_signature import LIMITS, WEST, publish, serving

__all__ = ["serving"]

TIME = "2016-06-01T00:10:00"


def inside(middle=None, corner=None):
    speeds = {"middle": middle, "corner": corner}
    return [
        Reading(TIME, name, "wind_speed", value, "m s-1")
        for name, value in speeds.items()
        if value is not None
    ]


def at_sensor(wind_, name):
    """Speed at a sensor of a field (3, nz, ny, nx); see `test_agent`."""
    at = wind_[:, 0, 0, 0] if name == "corner" else wind_[:, :, 1, 1:3].mean(axis=(1, 2))
    return pytest.approx(np.linalg.norm(at), rel=1e-4)


class TestReadings:
    def test_sensors_that_speak_are_inputs_and_what_is_expected_of_them_has_not_seen_them(
        self, serving
    ):
        answered = serving.counters.answered
        found = serving.predict_readings([*wind(TIME), *inside(0.5, 0.75)])
        assert serving.counters.answered == answered + 1
        assert found.inputs.shape == (1, 6)
        assert found.inputs[0, 4:].tolist() == [0.5, 0.75]
        assert found.silent == ()
        np.testing.assert_allclose(found.wind, expected_wind(found.inputs), atol=1e-4)
        assert found.diagnostics["innovation"].tolist() == [1.25]
        background = found.inputs.copy()
        background[0, 4:] = SILENT
        for name, sensor in found.sensors.items():
            assert sensor.wind_speed == at_sensor(expected_wind(background)[0], name)
        alone = serving.predict_readings(wind(TIME))
        assert {n: s.wind_speed for n, s in alone.sensors.items()} == {
            n: pytest.approx(s.wind_speed, rel=1e-5) for n, s in found.sensors.items()
        }

    def test_a_sensor_that_stays_away_is_silent_and_said_to_be(self, serving):
        found = serving.predict_readings([*wind(TIME), *inside(corner=0.75)])
        assert found.inputs[0, 4:].tolist() == [SILENT, 0.75]
        assert found.silent == ("middle/wind_speed",)
        assert not found.out_of_range[0], "silence is in range"
        assert serving.predict_readings(wind(TIME)).silent == (
            "middle/wind_speed",
            "corner/wind_speed",
        )

    def test_a_release_without_them_ignores_them(self, agent):
        publish(agent, inside=())
        found = agent.predict_readings([*wind(TIME), *inside(0.5, 0.75)])
        assert (found.inputs.shape, found.silent) == ((1, 4), ())

    def test_interior_sensors_alone_ask_for_no_prediction(self, served):
        agent, tcp, _, _ = served
        publish(agent)
        assert tcp.post_readings(inside(0.5, 0.75)) == {"kept": 2}
        answer = tcp.post_readings([*wind(TIME), *inside(0.5)])
        expected = agent.predict_readings([*wind(TIME), *inside(0.5)])
        assert answer["inputs"] == expected.inputs[0].tolist()
        assert answer["silent"] == ["corner/wind_speed"]
        assert answer["diagnostics"] == {n: d[0] for n, d in expected.diagnostics.items()}
        assert answer["sensors"]["middle"] == expected.sensors["middle"]._asdict()

    def test_a_diagnostic_that_is_no_number_is_null_in_json(self, served):
        agent, tcp, _, _ = served
        publish(agent)
        answer = tcp.post_readings(wind(TIME, speed=0.1))
        assert (answer["diagnostics"]["distance"], answer["out_of_range"]) == (None, True)

    def test_a_run_that_fails_counts_against_the_release_once(self, serving, monkeypatch):
        def fails(_rows):
            raise ReleaseError("no")

        slot = serving.slot()
        monkeypatch.setattr(slot.model, "run", fails)
        for readings in (wind(TIME), [*wind(TIME), *inside(0.5)]):
            failed = slot.live.failed
            with pytest.raises(ReleaseError):
                serving.predict_readings(readings)
            assert slot.live.failed == failed + 1


def test_a_state_that_has_moved_is_served_without_the_model_coming_again(served):
    """Only the manifest and what follows from it are new: checked and swapped as any release."""
    agent, tcp, _, _ = served
    first = publish(agent)
    before = agent.counters.bytes_downloaded
    second = make_release(
        agent.config.repository,
        2,
        state=STATE | {"screen_loss_factor": 1.75},
        inside=INSIDE,
        limits=LIMITS,
    )
    assert second.release.model.sha256 == first.release.model.sha256
    second.path(second.release.model).unlink()
    assert agent.pull().result(20) == 2
    held = {t.sha256 for t in first.release.files()}
    new = [t.length for t in second.release.files() if t.sha256 not in held]
    came = agent.counters.bytes_downloaded - before
    assert came == second.ref.manifest.length + sum(new) < second.release.model.length * 3
    assert tcp.predict(WEST).inputs[0, 2] == 1.75
    assert agent.rollback().result(20) == 1
    assert tcp.predict(WEST).inputs[0, 2] == np.float32(1.4)


class TestOnTrial:
    @pytest.fixture
    def config(self, config):
        promotion = PromotionSettings(shadow_predictions=5, latency_ms=1e6)
        return config.model_copy(update={"promotion": promotion})

    def test_releases_with_sensors_are_measured_by_what_they_knew_before_them(self, config):
        """A model that repeats what it is told would win every comparison with its own inputs."""
        patient = PromotionSettings(shadow_predictions=10_000, latency_ms=1e6)
        make_release(config.repository, 1, inside=INSIDE)
        with EdgeAgent(config.model_copy(update={"promotion": patient})) as agent:
            look(agent)
            make_release(config.repository, 2, bias=0.4, inside=INSIDE)
            look(agent)
            field = FieldServices(agent)
            model, ran = agent.promotion.slots.candidate.model, []
            run = model.run
            model.run = lambda rows: ran.extend(rows[:, 2:].tolist()) or run(rows)
            for minute in range(30):
                time = f"2016-06-01T00:{minute:02}:00"
                expected = agent.predict_readings(wind(time, 9.0, 270.0)).sensors
                readings = [
                    Reading(time, name, "wind_speed", sensor.wind_speed, "m s-1")
                    for name, sensor in expected.items()
                ]
                good, _ = agent.check_readings([*wind(time, 9.0, 270.0), *readings])
                agent.observe(good, agent.predict_checked(good))
            agent.slot().live.rows.clear()  # what runs from here on is beside measurements
            ran.clear()
            field.side.look()
            assert look(agent) == 1
            assert reasons(agent) == {2: "accuracy"}
            assert len(ran) >= ENOUGH
            assert all(sensors == [SILENT, SILENT] for sensors in ran)
            field.close()

    def test_a_moved_state_goes_the_way_of_any_release_and_is_judged_with_its_own(self, config):
        state = {"screen_loss_factor": 1.0}
        make_release(config.repository, 1, state=state)
        with EdgeAgent(config) as agent:
            look(agent)
            make_release(config.repository, 2, state={"screen_loss_factor": 19.0})
            look(agent)
            ask(agent, [[4.0, 1.0]])
            assert look(agent) == 1
            assert reasons(agent) == {2: "disagreement"}
            make_release(config.repository, 3, state={"screen_loss_factor": 1.1})
            look(agent)
            ask(agent, [[4.0, 1.0]])
            assert look(agent) == 3
            assert agent.predict([[4.0, 1.0]]).inputs[0, 2] == np.float32(1.1)

    def test_a_release_of_other_columns_is_compared_all_the_same(self, config):
        make_release(config.repository, 1)
        with EdgeAgent(config) as agent:
            look(agent)
            make_release(config.repository, 2, state=STATE, inside=INSIDE, limits={}, bias=-0.6)
            look(agent)
            ask(agent, [[4.0, 270.0]], 4)
            assert look(agent) == 1
            assert state(agent).shadow.compared == 4
            ask(agent, [[4.0, 270.0]], 1)
            assert look(agent) == 2
            make_release(config.repository, 3)
            look(agent)
            ask(agent, [[4.0, 270.0]], 4)
            look(agent)
            assert state(agent).shadow.compared == 4
