"""New metadata from old: versions, expiry dates and signatures; no I/O but the signers' own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from apps.errors import SigningError
from apps.repository.keys import ONLINE, Keyring, Role
from edge_agent.contracts import release

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)

#: How long each role's signature holds, days. Short where the key is at hand and freshness is the
#: point (a device that sees no younger timestamp takes nothing new), long where a person must come.
LIFETIME: Mapping[Role, float] = {
    "root": 365.0,
    "targets": 90.0,
    "snapshot": 14.0,
    "timestamp": 2.0,
}
#: Where the root says so, beside the keys and threshold of each role, s.
LIFETIME_FIELD = "x-rbf-lifetime"

_SERIALIZER = JSONSerializer(compact=True)


def lifetime(root: Root, role: Role) -> timedelta:
    """Return how long a role's signatures hold."""
    seconds = root.roles[role].unrecognized_fields.get(LIFETIME_FIELD, LIFETIME[role] * 86400)
    return timedelta(seconds=seconds)


def stale(metadata: Metadata[S], root: Root, role: Role, now: datetime) -> bool:
    """Return whether less than half of a signature's lifetime is left."""
    return metadata.signed.expires - now < lifetime(root, role) / 2


def time_left(metadata: Metadata[S] | None, now: datetime) -> float:
    """Return how long a signature still holds, s; negative after it has expired."""
    return (metadata.signed.expires - now).total_seconds() if metadata else 0.0


def serialize(metadata: Metadata[S]) -> bytes:
    """Return the bytes of a metadata file."""
    return metadata.to_bytes(_SERIALIZER)


def sign(metadata: Metadata[S], role: Role, root: Root, keyring: Keyring) -> Metadata[S]:
    """Sign metadata, in place, with every key of the role that is at hand.

    A key that is in the keyring and not in the root yet signs too: devices look at nothing but the
    root's keys, and when the next root has it everything is signed already.

    Raises
    ------
    SigningError
        If the signatures are fewer than the role's threshold.
    """
    metadata.signatures.clear()
    keys = {key.keyid: key for key in keyring.keys(role)}
    keys |= {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}
    for signer in keyring.signers(keys.values()):
        metadata.sign(signer, append=True)
    result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if not result.verified:
        raise _too_few(role, len(result.signed), result.threshold, keyring)
    return metadata


def check_keys(root: Root, keyring: Keyring, roles: Iterable[Role] = ONLINE) -> None:
    """Check that there are keys enough for some roles; raises `SigningError`."""
    for role in roles:
        keys = [root.keys[keyid] for keyid in root.roles[role].keyids]
        have, need = len(keyring.signers(keys)), root.roles[role].threshold
        if have < need:
            raise _too_few(role, have, need, keyring)


def next_targets(
    old: Metadata[Targets] | None, files: Mapping[str, TargetFile], root: Root, now: datetime
) -> Metadata[Targets]:
    """Return the next targets metadata, not signed: the old files and `files`."""
    signed = deepcopy(old.signed) if old else Targets()
    signed.targets |= files
    signed.version = old.signed.version + 1 if old else 1
    signed.expires = _until(root, "targets", now)
    return Metadata(signed)


def next_snapshot(
    old: Metadata[Snapshot] | None, targets: int, root: Root, now: datetime
) -> Metadata[Snapshot]:
    """Return the next snapshot, not signed, of a version of the targets metadata."""
    version = old.signed.version + 1 if old else 1
    meta = {"targets.json": MetaFile(targets)}
    return Metadata(Snapshot(version=version, expires=_until(root, "snapshot", now), meta=meta))


def next_timestamp(
    old: Metadata[Timestamp] | None, snapshot: int, root: Root, now: datetime
) -> Metadata[Timestamp]:
    """Return the next timestamp, not signed, of a snapshot version."""
    version = old.signed.version + 1 if old else 1
    expires = _until(root, "timestamp", now)
    return Metadata(Timestamp(version=version, expires=expires, snapshot_meta=MetaFile(snapshot)))


def tuf_target(target: release.TargetFile) -> TargetFile:
    """Return one of our targets in TUF's words."""
    return TargetFile(target.length, {"sha256": target.sha256}, target.path)


def utc_now() -> datetime:
    """Return the wall time, UTC."""
    return datetime.now(UTC)


def _until(root: Root, role: Role, now: datetime) -> datetime:
    return (now + lifetime(root, role)).replace(microsecond=0)


def _too_few(role: Role, have: int, need: int, keyring: Keyring) -> SigningError:
    why = "; ".join(sorted({str(error) for error in keyring.failures.values()}))
    msg = f"role {role} needs {need} signatures; the keys at hand make {have}"
    if why:
        msg = f"{msg} ({why})"
    return SigningError(msg, role=role, threshold=need, signatures=have)
