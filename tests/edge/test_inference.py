"""The engine's two bindings, what batches cost, and how retired releases go."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import inference
from edge_agent.batching import Cost, batch_size, fitted
from edge_agent.contracts.errors import ReleaseError
from edge_agent.inference import BoundModel, WheelModel, load_model
from edge_agent.ort import library

from .releases import GRID, expected_diagnostics, expected_wind, make_release, model_bytes

SHAPE = (3, *GRID.shape)
OUTPUTS = {"wind": SHAPE, "wind_std": SHAPE}
ROWS = np.array([[4, 270], [5, 180], [6, 90]], np.float32)


def bind(binding, data, columns=2, outputs=OUTPUTS):
    if binding == "bound":
        return BoundModel(library(), data, columns, outputs)
    return WheelModel(data, outputs)


@pytest.fixture(params=["bound", "wheel"])
def model(request):
    return bind(request.param, model_bytes())


class TestEitherBinding:
    def test_gives_the_models_numbers_at_any_batch(self, model):
        for rows in (ROWS[:1], ROWS, np.tile(ROWS, (80, 1)), ROWS[:1]):
            found = model.run(rows)
            assert list(found) == ["wind", "wind_std"]
            np.testing.assert_allclose(found["wind"], expected_wind(rows), atol=1e-4)
            np.testing.assert_array_equal(
                found["wind_std"], np.abs(found["wind"]) * np.float32(0.1)
            )

    def test_hands_over_arrays_that_later_runs_leave_alone(self, model):
        first = model.run(ROWS[:1])
        kept = first["wind"].copy()
        for hold in (False, True):
            model.hold_lock(hold)
            model.run(ROWS[1:2])
        np.testing.assert_array_equal(first["wind"], kept)

    def test_serves_threads_at_once(self, model):
        problems = []

        def work(row):
            try:
                expected = expected_wind(row)
                for _ in range(300):
                    np.testing.assert_allclose(model.run(row)["wind"], expected, atol=1e-4)
            except BaseException as error:  # noqa: BLE001 - shown below
                problems.append(error)

        threads = [threading.Thread(target=work, args=(ROWS[i : i + 1],)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems


@pytest.mark.parametrize("binding", ["bound", "wheel"])
def test_a_diagnostic_has_one_number_a_row(binding):
    data = model_bytes(inside=2, diagnostics=True)
    outputs = OUTPUTS | {"distance": (), "innovation": ()}
    rows = np.hstack([ROWS, [[-1, -1], [0.5, 0.25], [2, -1]]]).astype(np.float32)
    model = bind(binding, data, 4, outputs)
    for part in (rows[:1], rows):
        found = model.run(part)
        assert list(found) == list(outputs)
        for name, expected in expected_diagnostics(part, 2).items():
            assert found[name].shape == (len(part),)
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)


@pytest.mark.parametrize("binding", ["bound", "wheel"])
@pytest.mark.parametrize("data", [b"", b"garbage", model_bytes()[:-30]])
def test_what_is_no_model_is_refused(binding, data):
    with pytest.raises(ReleaseError, match="ONNX Runtime cannot load"):
        bind(binding, data)


@pytest.mark.parametrize("outputs", [{"other": SHAPE}, {"wind": (3, 1, 1, 1)}, {"wind": SHAPE[:2]}])
def test_a_model_of_another_shape_is_refused_when_run(outputs):
    model = BoundModel(library(), model_bytes(), 2, outputs)
    for _ in range(3):
        with pytest.raises(ReleaseError):
            model.run(ROWS[:1])


def test_the_wheels_interface_stands_in_where_the_library_cannot_be_bound(monkeypatch):
    def broken():
        raise OSError("no such library")

    monkeypatch.setattr(inference, "library", broken)
    assert isinstance(load_model(model_bytes(), 2, OUTPUTS), WheelModel)


def test_retired_releases_are_freed_at_the_next_look(agent, config):
    make_release(config.repository, 1)
    agent.pull().result(20)
    gone = weakref.ref(agent.slot().model)
    for version in (2, 3):
        make_release(config.repository, version)
        agent.pull().result(20)
    agent.pull().result(20)
    gc.collect()
    assert gone() is None
    assert agent.versions == [3, 2]


costs = st.builds(Cost, st.floats(1e-6, 1e-2), st.floats(0, 1e-2))


class TestBatchSize:
    @given(st.integers(1, 300), costs, st.floats(1e-4, 1e-1))
    def test_a_batch_is_within_the_objective_and_no_later_than_one_by_one(self, n, cost, objective):
        size = batch_size(n, cost, objective)
        assert 1 <= size <= n
        if size > 1:
            assert cost.of(size) <= objective * (1 + 1e-9)
            assert cost.of(size) <= (size + 1) / 2 * cost.first

    def test_linear_models_are_batched_and_convolutions_are_not(self):
        # Measured: docs/edge-agent.md.
        assert batch_size(8, fitted(6.5e-6, 12e-6, 8), 0.01) == 8
        assert batch_size(8, fitted(148e-6, 1080e-6, 8), 0.01) == 1
        assert batch_size(1, fitted(6.5e-6, 12e-6, 8), 0.01) == 1

    def test_the_objective_cuts_a_batch(self):
        assert batch_size(100, Cost(1e-3, 1e-4), 2e-3) == 11
        assert batch_size(100, Cost(1e-3, 1e-4), 0.0) == 1
