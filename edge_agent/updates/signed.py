"""A source of releases that believes signed metadata alone (The Update Framework, TUF 1.0).

A look at an unchanged repository costs two small files, the timestamp and the question whether
there is a newer root; nothing is parsed. Only when one of them is another than last time, or
something has expired, python-tuf walks the whole chain again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_agent.clock import Clock
from edge_agent.contracts import storage
from edge_agent.contracts.errors import DigestMismatch, Untrusted, UpdateUnavailable
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import METADATA, TARGETS, Index, index_path, stored_path
from edge_agent.settings import UpdateSettings
from edge_agent.updates.store import parse, read_bounded, verified
from edge_agent.updates.transport import Body, Transport
from edge_agent.updates.trust import Seen, Trust, check_versions

if TYPE_CHECKING:
    from edge_agent.updates.verify import Verified

TIMESTAMP = f"{METADATA}/timestamp.json"
MAX_INDEX_BYTES = 2**24


class SignedSource:
    """Follows a TUF repository; see `edge_agent.updates.source.ReleaseSource`.

    Parameters
    ----------
    transport : Transport
    trust : Trust
    clock : Clock
        What expiry is compared with.
    settings : UpdateSettings
        Time limits.
    """

    def __init__(
        self, transport: Transport, trust: Trust, clock: Clock, settings: UpdateSettings
    ) -> None:
        self.expires_at: float | None = None
        """When the first piece of metadata expires, s since the Unix epoch; none before any."""
        self.refreshed_at: float | None = None
        """When the repository was last found good, s since the Unix epoch."""
        self._transport = transport
        self._trust = trust
        self._clock = clock
        self._settings = settings
        self._verified: Verified | None = None
        self._floor = 0.0
        self._head: dict[str, bytes | None] = {}
        self._index: tuple[TargetFile, Index] | None = None

    def index(self, name: str) -> Index:
        """Return the index as it is signed now; empty if nothing is published yet."""
        verified_now = self._refreshed()
        self.refreshed_at = self._clock.now()
        target = verified_now.target(index_path(name))
        if target is None:
            return Index(name=name)
        if self._index is None or self._index[0] != target:
            index = parse(Index, self._index_bytes(target), target.path)
            if index.name != name:
                msg = f"{target.path} is of model {index.name!r}, this agent serves {name!r}"
                raise Untrusted(msg, reason="extraneous")
            self._index = target, index
        return self._index[1]

    @contextmanager
    def open(self, target: TargetFile, offset: int = 0) -> Iterator[Body]:
        """Open a file of a release; see `ReleaseSource.open`."""
        signed = None if self._verified is None else self._verified.target(target.path)
        if signed != target:
            what = "is not signed" if signed is None else "is signed with another digest or length"
            msg = f"{target.path} {what}"
            raise Untrusted(msg, reason="extraneous", path=target.path)
        path = f"{TARGETS}/{stored_path(target)}"
        seconds = self._settings.time_limit(target.length - offset)
        with self._transport.open(path, offset=offset, seconds=seconds) as body:
            if body is None:
                msg = f"{path} is not there"
                raise UpdateUnavailable(msg, reason="missing", path=path)
            yield body

    def close(self) -> None:
        """Make whoever is reading fail; see `ReleaseSource.close`."""
        self._transport.close()

    def _refreshed(self) -> Verified:
        now = max(self._clock.now(), self._floor)
        head = {path: self._read(path, 2**18) for path in self._head}
        unchanged = head == self._head and self.expires_at is not None and now < self.expires_at
        if self._verified is None or not unchanged:
            self._verified = self._refresh(head)
        return self._verified

    def _refresh(self, head: dict[str, bytes | None]) -> Verified:
        from edge_agent.updates.verify import refresh

        trust = self._trust
        root = trust.first_root()
        seen = trust.seen(root)
        # A clock behind what it showed once (a device without a battery) must not make the expired
        # fresh again.
        self._floor = seen.refreshed_at
        now = max(self._clock.now(), self._floor)
        read = dict(head)

        def known(path: str, bound: int) -> bytes | None:
            if path not in read:
                read[path] = self._read(path, bound)
            return read[path]

        try:
            found = refresh(known, trust.cache, root, now)
        except UpdateUnavailable:
            raise
        except OSError:
            shutil.rmtree(trust.cache, ignore_errors=True)  # filled again from the first root
            raise
        check_versions(seen.roles, found.roles)
        if found.roles != seen.roles:
            trust.record(
                root,
                Seen(root_sha256=seen.root_sha256, roles=found.roles, refreshed_at=now),
            )
        self.expires_at = min(found.expires.values())
        next_root = f"{METADATA}/{found.roles['root'].version + 1}.root.json"
        self._head = {next_root: None, TIMESTAMP: read[TIMESTAMP]}
        return found

    def _index_bytes(self, target: TargetFile) -> bytes:
        if target.length > MAX_INDEX_BYTES:
            msg = f"{target.path} has {target.length} bytes; at most {MAX_INDEX_BYTES} are read"
            raise Untrusted(msg, reason="length")
        try:
            return verified(read_bounded(self._trust.index, target.length), target)
        except (OSError, DigestMismatch):
            pass
        with self.open(target) as body:
            data = _collect(body, target.length)
        storage.write_bytes(self._trust.index, verified(data, target))
        return data

    def _read(self, path: str, bound: int) -> bytes | None:
        seconds = self._settings.time_limit(bound)
        with self._transport.open(path, seconds=seconds) as body:
            return None if body is None else _collect(body, bound)


def _collect(body: Body, bound: int) -> bytes:
    """Return a body's bytes; stops as soon as there are more than `bound`."""
    data = bytearray()
    for chunk in body.chunks:
        data += chunk
        if len(data) > bound:
            break
    return bytes(data)
