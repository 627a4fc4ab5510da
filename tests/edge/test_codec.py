import gzip
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.api.codec import (
    Limits,
    Request,
    RequestParser,
    Response,
    decoded_body,
    encode_response,
)
from edge_agent.contracts.errors import ProtocolError

LIMITS = Limits(head=300, body=200)
GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

pieces = st.sampled_from(
    [
        GET, POST, b"\r\n", b"\n", b" ", b":", b"HTTP/1.1",
        b"Content-Length: 3\r\n", b"Host: x\r\n",
        b"GET / HTTP/1.1\r\n", b"Transfer-Encoding: chunked\r\n", b"x" * 150, b"\r\n\r\n", b"\x00",
        b"Content-Length: 99999\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    ]
)  # fmt: skip
streams = st.one_of(
    st.binary(max_size=600), st.lists(pieces | st.binary(max_size=8), max_size=12).map(b"".join)
)


def run(chunks):
    """Return the requests that come out and the status of the error that ends them, if any."""
    parser, found = RequestParser(LIMITS), []
    try:
        for chunk in chunks:
            parser.feed(chunk)
            while (request := parser.next_request()) is not None:
                found.append(request)
            parser.take_continue()
    except ProtocolError as error:
        return found, (error.status, str(error))
    return found, None


@given(streams, st.data())
def test_requests_do_not_depend_on_how_the_stream_is_cut(stream, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    assert run(chunks) == run([stream])
    assert run([bytes([b]) for b in stream]) == run([stream])


@given(st.lists(st.sampled_from([GET, POST]), max_size=6))
def test_pipelined_requests_come_out_in_order(requests):
    found, error = run([b"".join(requests)])
    assert error is None
    assert [r.method for r in found] == [r.split()[0].decode() for r in requests]
    assert all(r.body == (b"hello" if r.method == "POST" else b"") for r in found)


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\nHost: x\n\n" + b"x" * 300, 431),  # bare LF never ends a head
        (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 201\r\n\r\n", 413),
        (b"GET /" + b"a" * 300, 431),
    ],
)
def test_what_is_refused(stream, status):
    found, error = run([stream])
    assert not found
    assert error[0] == status


def test_keep_alive():
    def keeps(line, version=b"1.1"):
        head = b"GET / HTTP/" + version + b"\r\nHost: x\r\n" + line + b"\r\n"
        return run([head])[0][0].keep_alive

    assert keeps(b"")
    assert not keeps(b"Connection: close\r\n")
    assert not keeps(b"", b"1.0")
    assert keeps(b"Connection: keep-alive\r\n", b"1.0")


def test_a_client_that_waits_is_told_to_go_on_once():
    parser = RequestParser()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    parser.feed(head)
    assert parser.next_request() is None
    assert parser.take_continue()
    assert not parser.take_continue()
    parser.feed(b"ab")
    assert parser.next_request().body == b"ab"


def _request(body, encoding):
    return Request("POST", "/", "", {"content-encoding": encoding}, True, body)


@given(st.binary(max_size=500))
def test_compressed_bodies(data):
    assert decoded_body(_request(gzip.compress(data), "gzip"), 500) == data
    assert decoded_body(_request(zlib.compress(data), "deflate"), 500) == data


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate", "br", "identity"]))
def test_any_encoded_body_gives_bytes_or_a_protocol_error(data, encoding):
    with suppress(ProtocolError):
        assert isinstance(decoded_body(_request(data, encoding), 100), bytes)


def test_a_small_body_that_inflates_beyond_the_limit_is_refused():
    with pytest.raises(ProtocolError) as caught:
        decoded_body(_request(gzip.compress(bytes(10**7)), "gzip"), 1000)
    assert caught.value.status == 413


def test_a_response_says_its_length():
    pieces = encode_response(Response(200, [b"ab", memoryview(b"cde")]), keep_alive=False)
    assert b"".join(pieces) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n\r\nabcde"
    )
