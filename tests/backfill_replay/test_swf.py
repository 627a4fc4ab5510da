import gzip
import pickle

import pytest

from workflows.backfill.replay.swf import TraceError, parse_swf, read_swf

HEADER = ["; MaxProcs: 8 (of 10)", "; UnixStartTime: 843480031", "; Note: anything"]


def line(number, submit=0, wait=1, run=10, procs=2, wanted=2, request=20):
    return (
        f"{number} {submit} {wait} {run} {procs} -1 -1 {wanted} {request} -1 1 1 1 -1 -1 -1 -1 -1"
    )


def test_reads_fields_and_header(tmp_path):
    path = tmp_path / "t.swf.gz"
    path.write_bytes(gzip.compress("\n".join([*HEADER, line(7, submit=5), ""]).encode("latin-1")))
    trace = read_swf(path)
    job = trace.jobs[0]
    assert (trace.procs, trace.unix_start) == (8, 843480031)
    assert (job.number, job.submit, job.procs, job.request, job.run) == (7, 5, 2, 20, 10)
    assert job.logged_start == 6


def test_missing_values_are_filled_in_and_counted():
    trace = parse_swf(
        [
            *HEADER,
            line(1, procs=-1, wanted=3, request=-1, wait=-1),
            line(2, run=-1),
            line(3, procs=0, wanted=-1),
            line(4, run=30),
            line(5, procs=9),
            line(6, submit=-1),
        ],
        "t",
    )
    assert [(j.number, j.procs, j.request) for j in trace.jobs] == [(1, 3, 10), (4, 2, 30)]
    assert trace.jobs[0].logged_start != trace.jobs[0].logged_start
    assert sum(trace.left_out.values()) == 4
    assert sum(trace.mended.values()) == 2


def test_jobs_come_in_order_of_submission():
    trace = parse_swf([line(1, submit=9), line(2, submit=3)], "t")
    assert [j.number for j in trace.jobs] == [2, 1]
    assert trace.procs == 2  # no header: the widest job


@pytest.mark.parametrize(
    ("bad", "says"),
    [("1 2 3", "3 fields"), (line("x"), "'x'"), (line(1, run="nan"), "'nan'"), (line(9), "twice")],
)
def test_wrong_lines_are_named(bad, says):
    with pytest.raises(TraceError, match=says) as error:
        parse_swf([*HEADER, line(9), bad], "t.swf")
    assert error.value.line == 5
    assert "t.swf:5" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # noqa: S301


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot gzip", b"; MaxProcs: 3\n"])
def test_wrong_files(tmp_path, content):
    (tmp_path / "t.swf").write_bytes(content)
    with pytest.raises(TraceError):
        read_swf(tmp_path / "t.swf")


def test_no_such_file(tmp_path):
    with pytest.raises(TraceError, match=r"none\.swf"):
        read_swf(tmp_path / "none.swf")
