"""Changing the keys of a role, without a moment in which devices could not verify.

A new key goes into the keyring first, and everything is signed by the old keys and the new one:
right by the present root, right by the next. Then the next root is published, in one step, and the
replaced key leaves the keyring. Killed anywhere, the same command goes on with the key it has made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root

from apps.errors import SigningError
from apps.repository import chain, roots, signing
from apps.repository import keys as keyrings
from apps.repository.chain import State
from apps.repository.keys import Keyring, Role
from apps.repository.repository import Repository


def new_member(
    repository: Repository, role: Role, folder: Path, passphrase: Callable[[Path], str]
) -> Key:
    """Return the key that is to join a role: one that a killed call has made, or a new one.

    Raises
    ------
    SigningError
        If the keyring cannot be read or the passphrase is not there.
    OSError
        If the keyring or the repository cannot be read or written.
    """
    newest = chain.roots(repository.store, repository.keyring.anchor)[-1]
    members = set(newest.signed.roles[role].keyids)
    if (folder / keyrings.KEYRING).exists():
        ring = Keyring(folder, passphrase=passphrase)
        for key in ring.keys(role):
            if key.keyid not in members and ring.signers([key]):
                return key
    key = keyrings.new_key(folder, role, passphrase(folder))
    if not (folder / keyrings.ROOT).exists():
        keyrings.write_private(folder / keyrings.ROOT, repository.keyring.anchor)
    return key


def edit(
    role: Role, *, add: Sequence[Key], drop: Sequence[str], threshold: int | None
) -> Callable[[Root], None]:
    """Return the change of a root that adds and drops keys of a role."""

    def change(root: Root) -> None:
        for key in add:
            root.add_key(key, role)
        for keyid in drop:
            root.revoke_key(keyid, role)
        if threshold is not None:
            root.roles[role].threshold = threshold
        have, need = len(root.roles[role].keyids), root.roles[role].threshold
        if have < need:
            msg = f"role {role} would have {have} keys, its threshold is {need}"
            raise SigningError(msg, role=role)

    return change


def replaced(root: Root, role: Role, wanted: str | None) -> str:
    """Return the id of the role's key that is to go, from the beginning of its id.

    Raises
    ------
    SigningError
        If none or several fit.
    """
    known = root.roles[role].keyids
    found = [k for k in known if k.startswith(wanted or "")]
    if len(found) != 1:
        there = ", ".join(k[:8] for k in known)
        msg = f"role {role} has keys {there}: say which one goes with --key"
        raise SigningError(msg, role=role)
    return found[0]


def resign(repository: Repository, new: Metadata[Root]) -> None:
    """Sign everything by the keys of the present root and of the next, which are in the keyring.

    Raises
    ------
    SigningError
        If the present root's keys are not at hand (`lost` is for that), or the next one's.
    """
    with repository.exclusive() as state:
        fresh = repository.refresh(state, everything=True)
        check_next(fresh, new.signed)


def check_next(state: State, root: Root) -> None:
    """Check that the present metadata are right by the next root, too; raises `SigningError`."""
    for role, metadata in (
        ("targets", state.targets),
        ("snapshot", state.snapshot),
        ("timestamp", state.timestamp),
    ):
        if metadata is None:
            continue
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError as error:
            msg = (
                f"role {role} is not signed by the keys of root {root.version} yet; run this where "
                "its new key is (rbf-repo refresh --all), or with --lost if the old key is gone"
            )
            raise SigningError(msg, role=role) from error


def rotate(repository: Repository, new: Metadata[Root], *, lost: bool = False) -> None:
    """Publish a signed next root, and everything signed so that it is right by it.

    Parameters
    ----------
    repository : Repository
        Its keyring holds the new keys, and unless `lost` the old ones.
    new : Metadata[Root]
        The next root, signed by both thresholds.
    lost : bool
        The old key is gone. Between the root and the rest, about as long as two small files take to
        write, devices find nothing that they may take; killed there, the same call goes on.

    Raises
    ------
    SigningError
        If the root or anything else lacks signatures; nothing is changed.
    RepositoryConflict
        If somebody else has published meanwhile.
    """
    if not lost:
        resign(repository, new)
    with repository.exclusive(lost=lost) as state:
        if not lost:
            check_next(state, new.signed)
        signing.check_keys(new.signed, repository.keyring)
        if state.root.signed.version < new.signed.version:
            roots.install(repository.store, new, state.root)
        repository.refresh(
            State(new, state.targets, state.snapshot, state.timestamp), everything=lost
        )
