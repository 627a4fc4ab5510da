import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.service import ReplayLog, service, swap_pauses

HEAD = "sent_at,latency_seconds,status,version,data_time,staleness_seconds\n"


def write(tmp_path, *lines):
    path = tmp_path / "replay.csv"
    path.write_text(HEAD + "".join(lines))
    log = ReplayLog(path)
    log.read()
    return log


def test_waiting_for_the_first_release_is_no_failure(tmp_path):
    log = write(
        tmp_path,
        "1.0,0.001,503,,2016-06-01T00:00:00,\n",
        "2.0,0.001,200,1,2016-06-01T00:10:00,\n",
        "3.0,0.003,200,1,2016-06-01T00:20:00,60.0\n",
        "4.0,0.009,503,,2016-06-01T00:30:00,\n",
        "5.0,0.009,error,,2016-06-01T00:40:00,\n",
    )
    figures = service(log)
    assert (figures.answered, figures.not_ready, figures.failed) == (2, 1, 2)
    assert figures.p50 == pytest.approx(2.0)
    assert figures.longest == pytest.approx(3.0)
    assert figures.staleness == 60.0


def test_an_empty_log_has_no_figures(tmp_path):
    log = ReplayLog(tmp_path / "none.csv")
    log.read()
    figures = service(log)
    assert (figures.answered, figures.failed, figures.p50) == (0, 0, None)
    assert swap_pauses(log, []) == []


@given(st.data())
def test_a_log_read_in_pieces_is_the_log_read_at_once(tmp_path_factory, data):
    lines = [f"{i}.5,0.00{i},200,{i},2016-06-01T00:{i}0:00,{i}.0\n" for i in range(1, 6)]
    text = (HEAD + "".join(lines)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    path = tmp_path_factory.mktemp("log") / "replay.csv"
    log = ReplayLog(path)
    for cut in [*cuts, len(text)]:
        path.write_bytes(text[:cut])
        log.read()
    assert log.version == [1, 2, 3, 4, 5]
    assert log.sent_at[-1] == 5.5
    assert not math.isnan(log.staleness[0])


def test_the_pause_is_the_longest_overlapping_request_over_the_median(tmp_path):
    lines = [f"{t / 10},0.002,200,1,d,\n" for t in range(10)]
    log = write(tmp_path, *lines, "1.0,0.050,200,2,d,\n", "2.0,0.400,200,2,d,\n")
    swap = {
        "version": 2, "loading_started_at": 1.01, "swapped_at": 1.02, "finished_at": 1.03,
    }  # fmt: skip
    (pause,) = swap_pauses(log, [swap])
    assert pause["pause_ms"] == pytest.approx(48.0)
    assert pause["requests"] == 1
    idle = swap | {"loading_started_at": 5.0, "finished_at": 5.1}
    assert swap_pauses(log, [idle])[0]["pause_ms"] == 0.0
