"""The link that benchmarks measure over."""

import http.client

import pytest

from benchmarks.slow_link import Direction, SlowLink

from .web import website


def test_bytes_arrive_when_rate_and_latency_say():
    link = Direction(0.1, 1000.0)
    assert link.arrival(0.0, 1000) == pytest.approx(1.1)
    assert link.arrival(0.0, 500) == pytest.approx(1.6), "behind what was sent before"
    assert link.arrival(10.0, 1000) == pytest.approx(11.1), "the link was free meanwhile"
    assert link.carried == 2500


def test_what_goes_in_comes_out(tmp_path):
    data = bytes(range(256)) * 2000
    (tmp_path / "file").write_bytes(data)
    with website(tmp_path) as (url, site):
        port = int(url.rsplit(":", 1)[1].strip("/"))
        with SlowLink(port, latency_s=0.001, bytes_per_s=1e8) as link:
            connections = [http.client.HTTPConnection("127.0.0.1", link.port) for _ in range(2)]
            for connection in connections * 2:
                connection.request("GET", "/file")
                assert connection.getresponse().read() == data
            for connection in connections:
                connection.close()
            assert link.down.carried > 4 * len(data)
        assert len(site.requests) == 4
