"""The root: which keys sign for which role, how many of them, and for how long.

The root's keys are needed here alone: to make a repository, to change a key, and to renew the root
before it expires. A changed root is signed by the threshold of the old one and of the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root

from apps.errors import PublishError, RepositoryConflict, SigningError
from apps.repository import chain, signing
from apps.repository import keys as keyrings
from apps.repository.keys import ONLINE, ROOT, Keyring, Role
from apps.repository.repository import Repository
from apps.repository.store import Store


@dataclass(frozen=True)
class Policy:
    """How many signatures each role needs, and how long they hold."""

    thresholds: Mapping[Role, int] = field(default_factory=dict)
    """1 where none is given."""
    days: Mapping[Role, float] = field(default_factory=dict)
    """`signing.LIFETIME` where none is given."""


def first_root(keys: Mapping[Role, Iterable[Key]], policy: Policy, now: datetime) -> Metadata[Root]:
    """Return a first root, not signed.

    Raises
    ------
    SigningError
        If a role has fewer keys than its threshold.
    """
    root = Root(version=1, consistent_snapshot=True)
    for role, members in keys.items():
        for key in members:
            root.add_key(key, role)
        threshold = policy.thresholds.get(role, 1)
        if len(root.roles[role].keyids) < threshold:
            msg = (
                f"role {role} has {len(root.roles[role].keyids)} keys, its threshold is {threshold}"
            )
            raise SigningError(msg, role=role)
        root.roles[role].threshold = threshold
        days = policy.days.get(role, signing.LIFETIME[role])
        root.roles[role].unrecognized_fields[signing.LIFETIME_FIELD] = int(days * 86400)
    root.expires = (now + signing.lifetime(root, "root")).replace(microsecond=0)
    return Metadata(root)


def init(
    store: Store,
    online: Path,
    root_folders: Iterable[Path],
    *,
    policy: Policy | None = None,
    passphrase: Callable[[Path], str] = keyrings.find_passphrase,
    clock: Callable[[], datetime] = signing.utc_now,
) -> Repository:
    """Make a repository and its keys, or complete one that was begun; idempotent.

    Parameters
    ----------
    store : Store
    online : Path
        Keyring of the roles that publishing needs.
    root_folders : iterable of Path
        Keyrings of the root, one key in each.
    policy : Policy, optional
    passphrase : callable
        Folder -> passphrase, to encrypt and to unlock the keys.
    clock : callable
        Wall time, UTC.

    Raises
    ------
    SigningError
        If a key cannot be made or unlocked.
    RepositoryDamaged
        If there is another repository already.
    OSError
        If a folder cannot be written.
    """
    folders = tuple(root_folders)
    for folder, roles in ((online, ONLINE), *((f, ("root",)) for f in folders)):
        for role in roles:
            known = (folder / keyrings.KEYRING).exists() and Keyring(folder).keys(role)
            if not known:
                keyrings.new_key(folder, role, passphrase(folder))
    keyring = Keyring(online, *folders, passphrase=passphrase)
    anchor = online / ROOT
    if not anchor.exists():
        every: dict[Role, list[Key]] = {role: keyring.keys(role) for role in ("root", *ONLINE)}
        root = first_root(every, policy or Policy(), clock())
        signing.sign(root, "root", root.signed, keyring)
        keyrings.write_private(anchor, signing.serialize(root))
    for folder in folders:
        if not (folder / ROOT).exists():
            keyrings.write_private(folder / ROOT, anchor.read_bytes())
    with suppress(FileExistsError):  # its own of an earlier call; another's is refused below
        store.create(chain.versioned(1, "root"), anchor.read_bytes())
    repository = Repository(store, keyring, clock=clock)
    with repository.exclusive() as state:
        if state.snapshot is None:
            repository.refresh(state)
    return repository


def change(
    repository: Repository, edit: Callable[[Root], None], *, days: float | None = None
) -> Metadata[Root]:
    """Publish the next root.

    Parameters
    ----------
    repository : Repository
        Its keyring must hold root keys enough for the old root and for the new.
    edit : callable
        Changes the root's keys, in place.
    days : float, optional
        New lifetime of the root, days.

    Raises
    ------
    SigningError
        If there are too few root keys; use `draft`.
    RepositoryConflict
        If somebody else has changed the root meanwhile.
    """
    with repository.exclusive() as state:
        new = draft(state.root, edit, repository.now(), days=days)
        add_signatures(new, state.root, repository.keyring)
        install(repository.store, new, state.root)
    return new


def draft(
    old: Metadata[Root],
    edit: Callable[[Root], None],
    now: datetime,
    *,
    days: float | None = None,
) -> Metadata[Root]:
    """Return the next root, not signed."""
    root = deepcopy(old.signed)
    root.version += 1
    edit(root)
    if days is not None:
        lifetime = int(timedelta(days=days).total_seconds())
        root.roles["root"].unrecognized_fields[signing.LIFETIME_FIELD] = lifetime
    root.expires = (now + signing.lifetime(root, "root")).replace(microsecond=0)
    return Metadata(root)


def add_signatures(new: Metadata[Root], old: Metadata[Root], keyring: Keyring) -> None:
    """Sign a root with every root key, old or new, that is at hand; others may sign it later."""
    keys = {
        keyid: root.keys[keyid]
        for root in (old.signed, new.signed)
        for keyid in root.roles["root"].keyids
    }
    for signer in keyring.signers(keys.values()):
        new.sign(signer, append=True)


def install(store: Store, new: Metadata[Root], old: Metadata[Root]) -> None:
    """Put a signed root into its repository.

    Raises
    ------
    SigningError
        If it has too few signatures; says how many are missing.
    RepositoryConflict
        If there is a root of that number already.
    """
    result = new.signed.get_root_verification_result(old.signed, new.signed_bytes, new.signatures)
    if not result.verified:
        missing = max(result.first.missing, result.second.missing)
        msg = f"root {new.signed.version} lacks {missing} signature(s) of root keys"
        raise SigningError(msg, role="root", missing=missing)
    if new.signed.version != old.signed.version + 1:
        msg = f"root {new.signed.version} does not follow {old.signed.version}; make it anew"
        raise PublishError(msg, version=new.signed.version)
    path = chain.versioned(new.signed.version, "root")
    try:
        store.create(path, signing.serialize(new))
    except FileExistsError as error:
        msg = f"{store.name}: somebody else has published {path} just now; try again"
        raise RepositoryConflict(msg, file=path) from error
