"""Windows from gaps, and assumed ones where nothing is shown."""

import math

from hypothesis import given
from hypothesis import strategies as st

from workflows.backfill.windows import Gap, Partition, Probe, Reading, Window, probe, windows_of

GAPS = st.lists(
    st.builds(
        Gap,
        node=st.uuids().map(str),
        cores=st.integers(0, 8),
        seconds=st.one_of(st.just(math.inf), st.integers(0, 600).map(float)),
    ),
    max_size=12,
)


@given(GAPS, st.sampled_from([math.inf, 300.0]))
def test_every_window_is_there_and_none_is_missing(gaps, longest):
    windows = windows_of(gaps, "p", longest)
    for w in windows:
        fits = [g for g in gaps if g.cores >= w.cores and min(g.seconds, longest) >= w.seconds]
        assert len(fits) == w.nodes
    for cores in range(1, 9):
        for gap in gaps:
            seconds = min(gap.seconds, longest)
            if seconds <= 0:
                continue
            nodes = sum(g.cores >= cores and min(g.seconds, longest) >= seconds for g in gaps)
            if nodes:
                assert any(
                    w.nodes >= nodes and w.cores >= cores and w.seconds >= seconds for w in windows
                )


def test_a_partition_that_is_down_has_no_windows():
    gaps = (Gap("a", 4, 100.0),)
    assert Reading(Partition("p", up=False), gaps).windows() == ()
    assert Reading(Partition("p", max_nodes=1), (*gaps, Gap("b", 4, 100.0))).windows() == (
        Window(1, 4, 100.0, "p"),
    )


def test_hidden_jobs_make_us_probe():
    reading = Reading(Partition("p"), (Gap("a", 4, math.inf), Gap("b", 2, math.inf)), hidden=True)
    assert reading.windows() == ()
    assert probe(reading, [], 15.0) == (Window(1, 2, 75.0, "p", seen=False),)
    prompt = [Probe(1, 3.0, started=True), Probe(2, 5.0, started=True)]
    assert probe(reading, prompt, 15.0)[0].seconds == 4 * 60 + 15
    late = [*prompt, Probe(4, 90.0, started=False)]
    assert probe(reading, late, 15.0)[0].seconds == 2 * 60 + 15
    assert (
        probe(reading, [Probe(2**k, 1.0, started=True) for k in range(9)], 0.0, 30)[0].seconds
        == 60 * 30
    )
