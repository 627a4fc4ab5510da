"""A signed repository: publishing into it, and keeping it fresh.

The order is the safety: target files, ``N.targets.json``, ``N.snapshot.json``, ``timestamp.json``.
All but the last have names that are never used twice. Creating the snapshot is the decision: its
number is one more than that of the snapshot it was built on, and only one publisher can create it.
Whoever comes next, after a kill too, completes it by writing the timestamp. A publisher killed
before the snapshot leaves files that nothing names; the next one deletes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import count

from tuf.api.metadata import Metadata, Snapshot, Targets
from tuf.api.metadata import TargetFile as TufTarget

from apps.errors import RepositoryConflict
from apps.repository import chain, cleaning, signing
from apps.repository.chain import State
from apps.repository.keys import Keyring
from apps.repository.store import Store
from edge_agent.contracts.failpoints import failpoint
from edge_agent.contracts.model import sha256
from edge_agent.contracts.release import TargetFile
from edge_agent.contracts.repository import TARGETS, Index, index_path, stored_path


class Repository:
    """A repository and the keys to sign for it.

    Parameters
    ----------
    store : Store
        Where it lies.
    keyring : Keyring
        Of the online roles; the root's keys are not needed.
    clock : callable
        Returns the wall time, UTC; signatures expire by it.
    """

    def __init__(
        self, store: Store, keyring: Keyring, *, clock: Callable[[], datetime] = signing.utc_now
    ) -> None:
        self.store = store
        self.keyring = keyring
        self._clock = clock

    @contextmanager
    def exclusive(self, *, lost: bool = False) -> Iterator[State]:
        """Yield the present state, what a killed publisher left completed; others wait.

        `lost` also takes what the root before the newest signed; see `apps.repository.rotation`.

        Raises
        ------
        RepositoryDamaged
            If the metadata are not what the keys signed.
        SigningError
            If there was something to complete and the timestamp's key is not at hand.
        OSError
            If the store cannot be read or written.
        """
        with self.store.exclusive():
            yield self._recovered(lost=lost)

    def index(self, state: State, name: str) -> Index:
        """Return a model's index in a state; empty before its first release."""
        return chain.read_index(self.store, state.targets, name)

    def commit(
        self, state: State, index: Index, files: Mapping[TargetFile, bytes] | None = None
    ) -> State:
        """Publish an index and new files, within `exclusive`; return the new state.

        Raises
        ------
        RepositoryConflict
            If somebody else has published since `state`; nothing of this call counts.
        SigningError
            If a key is missing; nothing is changed.
        OSError
            If the store cannot be written; devices see what they saw before.
        """
        signing.check_keys(state.root.signed, self.keyring)  # without keys nothing is written
        data = index.model_dump_json(indent=1).encode() + b"\n"
        listing = TargetFile(path=index_path(index.name), sha256=sha256(data), length=len(data))
        new = {target.path: signing.tuf_target(target) for target in (*(files or {}), listing)}
        targets = self._targets(state, new)
        failpoint("repository.files")
        for target, content in (*(files or {}).items(), (listing, data)):
            self._put(target, content)
        return self._publish(state, targets)

    def refresh(self, state: State, *, everything: bool = False) -> State:
        """Sign anew, within `exclusive`, what has less than half of its time left.

        The timestamp always, since that is what devices look at; `everything` online too.

        Raises
        ------
        RepositoryConflict, SigningError, OSError
            As `commit`.
        """
        root, now = state.root.signed, self._clock()
        if everything:
            signing.check_keys(root, self.keyring)
        if state.targets is None or state.snapshot is None:
            return self._publish(state, self._targets(state, {}))
        if everything or signing.stale(state.targets, root, "targets", now):
            return self._publish(state, self._targets(state, {}))
        if everything or signing.stale(state.snapshot, root, "snapshot", now):
            return self._publish(state, state.targets)
        return self._stamped(state)

    def now(self) -> datetime:
        """Return the wall time, UTC."""
        return self._clock()

    def due(self, state: State) -> bool:
        """Return whether anything that publishing signs has less than half of its time left."""
        root, now = state.root.signed, self._clock()
        return (
            not state.complete
            or (state.timestamp and signing.stale(state.timestamp, root, "timestamp", now))
            or (state.snapshot and signing.stale(state.snapshot, root, "snapshot", now))
            or (state.targets and signing.stale(state.targets, root, "targets", now))
            or False
        )

    def _recovered(self, *, lost: bool) -> State:
        state = chain.load(self.store, self.keyring.anchor, lost=lost)
        if state.snapshot is None or state.complete:
            return state
        return self._stamped(state)

    def _targets(self, state: State, files: Mapping[str, TufTarget]) -> Metadata[Targets]:
        root = state.root.signed
        metadata = signing.next_targets(state.targets, files, root, self._clock())
        return signing.sign(metadata, "targets", root, self.keyring)

    def _publish(self, state: State, targets: Metadata[Targets]) -> State:
        """Write targets metadata (unless it is the state's), snapshot and timestamp."""
        root = state.root.signed
        if targets is not state.targets:
            targets = self._numbered(state, targets)
        snapshot: Metadata[Snapshot] = signing.sign(
            signing.next_snapshot(state.snapshot, targets.signed.version, root, self._clock()),
            "snapshot",
            root,
            self.keyring,
        )
        failpoint("repository.snapshot")
        path = chain.versioned(snapshot.signed.version, "snapshot")
        try:
            self.store.create(path, signing.serialize(snapshot))
        except FileExistsError as error:
            msg = f"{self.store.name}: somebody else has published {path} just now; try again"
            raise RepositoryConflict(msg, file=path) from error
        return self._stamped(State(state.root, targets, snapshot, state.timestamp))

    def _numbered(self, state: State, targets: Metadata[Targets]) -> Metadata[Targets]:
        """Write targets metadata under the next number that nobody took."""
        root = state.root.signed
        failpoint("repository.targets")
        for version in count(targets.signed.version):
            if version != targets.signed.version:
                targets.signed.version = version
                signing.sign(targets, "targets", root, self.keyring)
            try:
                self.store.create(chain.versioned(version, "targets"), signing.serialize(targets))
            except FileExistsError:
                continue  # of a publisher that was killed before its snapshot, or is not there yet
            return targets
        raise AssertionError("unreachable")

    def _stamped(self, state: State) -> State:
        """Point the timestamp to the newest snapshot, and tidy up."""
        root, now = state.root.signed, self._clock()
        if state.snapshot is None or state.targets is None:
            return state
        new = signing.next_timestamp(state.timestamp, state.snapshot.signed.version, root, now)
        timestamp = signing.sign(new, "timestamp", root, self.keyring)
        failpoint("repository.timestamp")
        self.store.replace(chain.TIMESTAMP, signing.serialize(timestamp))
        failpoint("repository.clean")
        stamped = State(state.root, state.targets, state.snapshot, timestamp)
        if not self.store.locks:
            # Somebody who was faster may have had our timestamp written over theirs.
            newest = chain.load(self.store, self.keyring.anchor)
            if not newest.complete:
                return self._stamped(newest)
        cleaning.clean(self.store, stamped)
        return stamped

    def _put(self, target: TargetFile, data: bytes) -> None:
        path = f"{TARGETS}/{stored_path(target)}"
        try:
            self.store.create(path, data)
        except FileExistsError:
            # Its name is its digest; only a file of equal bytes may stay.
            if sha256(self.store.read(path)) != target.sha256:
                self.store.replace(path, data)
