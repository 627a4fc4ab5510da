import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.client.limits import PAYLOAD_BYTES, RateLimit, check_size
from edge_agent.contracts.errors import PayloadTooLarge


class Time:
    def __init__(self):
        self.now = 100.0

    def sleep(self, seconds):
        self.now += seconds


@given(st.lists(st.floats(0, 20), max_size=60))
def test_no_window_holds_more_than_the_service_takes(pauses):
    time = Time()
    limit = RateLimit(20, 10.0, clock=lambda: time.now, sleep=time.sleep)
    sent = []
    for pause in pauses:
        time.sleep(pause)
        wait = limit.wait()
        before = time.now
        limit.take()
        assert time.now - before == pytest.approx(wait)
        sent.append(time.now)
    for first, twentieth_after in zip(sent, sent[20:], strict=False):
        assert twentieth_after - first >= 10.0 - 1e-9


def test_the_first_twenty_wait_for_nothing():
    limit = RateLimit()
    for _ in range(20):
        assert limit.wait() == 0
        limit.take()
    assert 0 < limit.wait() <= 10


def test_too_much_is_refused_before_it_is_sent():
    check_size([{"inputs": [[1.0, 2.0]] * 1000}])
    with pytest.raises(PayloadTooLarge, match="fewer predictions") as caught:
        check_size([{"inputs": [[1.0, 2.0]] * 1_000_000}])
    assert caught.value.size > caught.value.limit == PAYLOAD_BYTES
    with pytest.raises(TypeError):
        check_size([{"inputs": {1, 2}}])
