"""The planner: never more than a window, always with a reason."""

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.backfill.planner import Backlog, BlockShape, Limits, RunTime, plan
from workflows.backfill.windows import Window

WINDOWS = st.lists(
    st.builds(
        Window,
        nodes=st.integers(1, 200),
        cores=st.integers(1, 64),
        seconds=st.one_of(st.just(math.inf), st.floats(1, 1e5)),
    ),
    max_size=5,
)
BACKLOGS = st.builds(
    Backlog,
    tasks=st.integers(0, 500),
    run_times=st.lists(
        st.builds(
            RunTime,
            cores=st.integers(1, 64),
            seconds=st.floats(0.1, 5000),
            spread=st.floats(0, 100),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    checkpoint_seconds=st.floats(0, 10),
    training_seconds=st.sampled_from([0.0, 20.0]),
)
LIMITS = st.builds(
    Limits,
    max_nodes=st.integers(1, 100),
    max_cores=st.integers(1, 64),
    max_tasks=st.integers(1, 64),
    max_minutes=st.integers(1, 120),
    margin_seconds=st.floats(0, 60),
)


def published():
    """Return the published run times of the full-size case, by cores."""
    path = Path(__file__).parents[2] / "data" / "reference" / "cfd_scaling_notre_dame.csv"
    with path.open() as file:
        return tuple(
            RunTime(int(r["cores"]), float(r["seconds_mean"]), float(r["seconds_sd"]))
            for r in csv.DictReader(file)
        )


@given(WINDOWS, BACKLOGS, LIMITS)
def test_never_more_than_a_window(windows, backlog, limits):
    decision = plan(windows, backlog, limits)
    shape, window = decision.shape, decision.window
    assert decision.reason
    assert "\n" not in decision.reason
    if shape is None:
        return
    assert shape.slots >= 1
    assert shape.nodes <= limits.max_nodes
    assert shape.cores <= max(limits.max_cores, shape.cores_per_task)
    assert limits.min_minutes <= shape.minutes <= max(limits.max_minutes, 1)
    if window is None:
        assert shape.nodes == 1
        return
    assert shape.nodes <= window.nodes
    assert shape.cores <= window.cores
    assert 60 * shape.minutes + limits.margin_seconds <= window.seconds
    assert 0 < decision.tasks <= backlog.tasks + backlog.training_seconds / 0.1


def test_a_hole_of_two_nodes_and_three_minutes():
    backlog = Backlog(40, (RunTime(1, 6.0, 2.0),))
    decision = plan([Window(2, 4, 174.0)], backlog, Limits(max_cores=4))
    assert decision.shape == BlockShape(2, 4, 1)
    assert "window of 2 x 4 x 174 s (margin 15 s)" in decision.reason


def test_no_longer_than_the_backlog_needs():
    backlog = Backlog(4, (RunTime(1, 10.0),))
    decision = plan([Window(8, 16, math.inf)], backlog, Limits(max_minutes=600))
    assert decision.shape is not None
    assert decision.shape.minutes == 1
    assert decision.shape.slots <= 4


def test_many_small_tasks_before_one_wide_one():
    """64 cores are 8.2 times faster than one, at an eighth of the efficiency."""
    decision = plan([Window(4, 64, 4 * 3600)], Backlog(1000, published()), Limits(max_minutes=240))
    assert decision.shape.cores_per_task == 1
    assert decision.core_hours_per_task < 1.2
    wide = plan([Window(4, 64, 4 * 3600)], Backlog(1000, published()[-1:]), Limits(max_minutes=240))
    assert 6 < wide.core_hours_per_task / decision.core_hours_per_task < 10


def test_one_task_that_is_waited_for_goes_wide():
    decision = plan([Window(1, 64, 4 * 3600)], Backlog(1, published()), Limits(max_minutes=240))
    assert decision.shape.cores_per_task > 16


def test_waiting_blocks_keep_their_nodes():
    backlog = Backlog(100, (RunTime(1, 30.0),))
    window = [Window(2, 4, 600.0)]
    first = plan(window, backlog, Limits(max_nodes=1, max_cores=4))
    second = plan(window, backlog, Limits(max_nodes=1, max_cores=4), [first.shape])
    third = plan(window, backlog, Limits(max_nodes=1, max_cores=4), [first.shape, second.shape])
    assert (first.shape.nodes, second.shape.nodes, third.shape) == (1, 1, None)
    assert "2 blocks wait already" in third.reason


def test_where_nothing_fits_one_shortest_block_waits():
    backlog = Backlog(100, (RunTime(1, 30.0),))
    decision = plan([Window(2, 4, 40.0)], backlog, Limits())
    assert (decision.shape.nodes, decision.shape.minutes, decision.window) == (1, 1, None)
    declined = plan([Window(2, 4, 40.0)], backlog, Limits(queue_when_full=False))
    assert declined.shape is None
    assert "40 s" in declined.reason


def test_a_training_alone_gets_one_worker():
    decision = plan(
        [Window(4, 8, math.inf)],
        Backlog(0, (RunTime(1, 5.0),), training_seconds=30.0),
        Limits(),
    )
    assert (decision.shape.nodes, decision.shape.cores) == (1, 1)


@pytest.mark.parametrize("tasks", [0])
def test_nothing_to_do(tasks):
    assert (
        plan([Window(1, 1, math.inf)], Backlog(tasks, (RunTime(1, 1.0),)), Limits()).shape is None
    )
