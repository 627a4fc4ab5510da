"""Reading from a web server: what a slow link makes dear."""

from edge_agent.updates.http import HttpTransport

from .web import Handler, website


def test_one_connection_carries_every_request(tmp_path, monkeypatch):
    """A new one would cost a round trip each time."""
    opened = []
    setup = Handler.setup

    def counted(self):
        opened.append(self.client_address)
        setup(self)

    monkeypatch.setattr(Handler, "setup", counted)
    for i in range(3):
        (tmp_path / str(i)).write_bytes(bytes(300_000 * i))
    with website(tmp_path) as (url, site):
        transport = HttpTransport(url, read_seconds=20.0)
        for name, offset in (("0", 0), ("1", 0), ("missing", 0), ("2", 100_000), ("2", 0)):
            with transport.open(name, offset=offset, seconds=20.0) as body:
                assert (body is None) == (name == "missing")
                if body is not None:
                    assert sum(map(len, body.chunks)) == 300_000 * int(name) - body.offset
        transport.close()
    assert len(site.requests) == 5
    assert len(opened) == 1


def test_what_was_not_read_to_its_end_does_not_meet_the_next_answer(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 2_000_000)
    (tmp_path / "short").write_bytes(b"y")
    with website(tmp_path) as (url, _site):
        transport = HttpTransport(url, read_seconds=20.0)
        with transport.open("long", seconds=20.0) as body:
            assert next(body.chunks)[:1] == b"x"
        with transport.open("short", seconds=20.0) as body:
            assert b"".join(body.chunks) == b"y"
        transport.close()
