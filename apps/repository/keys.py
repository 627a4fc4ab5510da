"""Keys: files encrypted at rest, and whatever else signs.

A *keyring* is a folder, 0700. ``keyring.json`` says how each key signs, as a signer URI of
securesystemslib: ``rbf-key:FILE`` for a key file beside it, or any other scheme registered there
(``hsm:``, ``awskms:``, ``gcpkms:``, ``azurekms:``, ``hv:`` for Vault, ...). ``root.json`` is the
first root, which the owner trusts as the devices do. The passphrase comes from the file
``passphrase`` in the folder, the environment, or a person.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import Field
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    SecretsHandler,
    Signer,
    SSlibKey,
)

from apps.errors import SigningError
from edge_agent.contracts.model import Contract
from edge_agent.contracts.storage import write_bytes

Role = Literal["root", "targets", "snapshot", "timestamp"]
ONLINE: tuple[Role, ...] = ("targets", "snapshot", "timestamp")
"""Roles that publishing needs; the root signs only which keys they have."""

SCHEME = "rbf-key"
KEYRING = "keyring.json"
ROOT = "root.json"
PASSPHRASE = "passphrase"  # noqa: S105 - a file's name
#: The PEM format's own key derivation is too cheap for a passphrase that a person chose; scrypt
#: with these takes 32 MiB and some 60 ms (RFC 7914).
SCRYPT = {"n": 2**15, "r": 8, "p": 1}


class KeyFile(Contract):
    """An ed25519 key, encrypted."""

    format: Literal["rbf-key/1"] = "rbf-key/1"
    """Version of this contract."""
    n: Annotated[int, Field(ge=2, le=2**20)]
    """scrypt's cost."""
    r: Annotated[int, Field(ge=1, le=32)]
    """scrypt's block size."""
    p: Annotated[int, Field(ge=1, le=16)]
    """scrypt's parallelism."""
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """scrypt's, hexadecimal."""
    private_key: str
    """PKCS 8, PEM, encrypted by what scrypt makes of the passphrase."""


class KeyEntry(Contract):
    """How one key signs."""

    role: Role
    """What for."""
    uri: str
    """Signer URI; a path in ``rbf-key:`` is relative to the keyring."""
    public: dict[str, Any]
    """The public key, as TUF metadata have it."""


class KeyringFile(Contract):
    """``keyring.json``."""

    format: Literal["rbf-keyring/1"] = "rbf-keyring/1"
    """Version of this contract."""
    keys: dict[str, KeyEntry] = Field(default_factory=dict)
    """By key id."""


class EncryptedFileSigner(CryptoSigner):
    """Signs with a `KeyFile`; URI ``rbf-key:PATH``."""

    SCHEME = SCHEME

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> EncryptedFileSigner:
        """Decrypt the key.

        Raises
        ------
        SigningError
            If the file cannot be read, others may read it, or the passphrase is wrong.
        """
        path = Path(priv_key_uri.partition(":")[2])
        if secrets_handler is None or not isinstance(public_key, SSlibKey):
            msg = f"{path}: needs a passphrase and an ed25519 public key"
            raise SigningError(msg, file=str(path))
        private = _decrypted(path, secrets_handler(f"passphrase of {path.parent}"))
        return cls(private, public_key)


SIGNER_FOR_URI_SCHEME[SCHEME] = EncryptedFileSigner


class Keyring:
    """One keyring, or several used together (the root's keys lie elsewhere).

    Parameters
    ----------
    *folders : Path
        Keyrings; a key is looked for in each.
    passphrase : callable, optional
        Folder -> passphrase.

    Raises
    ------
    SigningError
        If a folder holds no keyring that can be read.
    """

    def __init__(self, *folders: Path, passphrase: Callable[[Path], str] | None = None) -> None:
        self.folders = folders
        self._passphrase = passphrase or find_passphrase
        self._files = {folder: read_keyring(folder) for folder in folders}
        self._signers: dict[str, Signer] = {}
        self._known: dict[Path, str] = {}
        self.failures: dict[str, SigningError] = {}

    @property
    def anchor(self) -> bytes:
        """The first root that the owner trusts; raises `SigningError` if no folder holds it."""
        for folder in self.folders:
            if (folder / ROOT).is_file():
                return (folder / ROOT).read_bytes()
        folders = ", ".join(map(str, self.folders))
        msg = f"{folders}: no {ROOT}, the first root of the repository; copy it there"
        raise SigningError(msg, folders=folders)

    def keys(self, role: Role) -> list[Key]:
        """Return the public keys of a role."""
        return [
            Key.from_dict(keyid, dict(entry.public))
            for file in self._files.values()
            for keyid, entry in file.keys.items()
            if entry.role == role
        ]

    def signers(self, keys: Iterable[Key]) -> list[Signer]:
        """Return what signs for those of the keys that are here and can be unlocked, each once.

        Why one cannot is in `failures`: another may be enough.
        """
        return [signer for key in keys if (signer := self._signer(key)) is not None]

    def _signer(self, key: Key) -> Signer | None:
        if key.keyid not in self._signers and key.keyid not in self.failures:
            for folder, file in self._files.items():
                if key.keyid not in file.keys:
                    continue
                try:
                    self._signers[key.keyid] = self._unlock(folder, file.keys[key.keyid].uri, key)
                except SigningError as error:
                    self.failures[key.keyid] = error
        return self._signers.get(key.keyid)

    def _unlock(self, folder: Path, uri: str, key: Key) -> Signer:
        if uri.startswith(f"{SCHEME}:"):
            uri = f"{SCHEME}:{folder.resolve() / uri.partition(':')[2]}"

        def passphrase(_name: str) -> str:
            if folder not in self._known:
                self._known[folder] = self._passphrase(folder)
            return self._known[folder]

        try:
            return Signer.from_priv_key_uri(uri, key, passphrase)
        except SigningError:
            raise
        except Exception as error:  # a signer of any kind may raise anything of its own
            msg = f"{folder}: key {key.keyid[:8]} ({uri.partition(':')[0]}) cannot sign: {error}"
            raise SigningError(msg, key=key.keyid, folder=str(folder)) from error


def new_key(folder: Path, role: Role, passphrase: str) -> Key:
    """Make an ed25519 key in a keyring and return its public half.

    Raises
    ------
    SigningError
        If the keyring cannot be read, or the passphrase is empty.
    OSError
        If it cannot be written.
    """
    if not passphrase:
        msg = f"{folder}: an empty passphrase protects nothing"
        raise SigningError(msg, folder=str(folder))
    private_folder(folder)
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    keyid = signer.public_key.keyid
    salt = secrets.token_bytes(16)
    derived = _derived(passphrase, salt, **SCRYPT)
    pem = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(derived)
    ).decode()
    file = KeyFile(**SCRYPT, salt=salt.hex(), private_key=pem)
    name = f"{role}-{keyid[:8]}.key"
    write_private(folder / name, file.model_dump_json(indent=1).encode())
    add_key(folder, role, f"{SCHEME}:{name}", signer.public_key)
    return signer.public_key


def add_key(folder: Path, role: Role, uri: str, public: Key) -> None:
    """Enter a key into a keyring, wherever its private half is; raises as `new_key`."""
    private_folder(folder)
    file = read_keyring(folder) if (folder / KEYRING).exists() else KeyringFile()
    entry = KeyEntry(role=role, uri=uri, public=public.to_dict())
    file = file.model_copy(update={"keys": file.keys | {public.keyid: entry}})
    write_private(folder / KEYRING, file.model_dump_json(indent=1).encode() + b"\n")


def drop_key(folder: Path, keyid: str) -> None:
    """Take a key out of a keyring; its file stays, under another name."""
    file = read_keyring(folder)
    entry = file.keys.get(keyid)
    if entry is None:
        return
    left = {k: e for k, e in file.keys.items() if k != keyid}
    update = file.model_copy(update={"keys": left})
    write_private(folder / KEYRING, update.model_dump_json(indent=1).encode() + b"\n")
    path = folder / entry.uri.partition(":")[2]
    if entry.uri.startswith(f"{SCHEME}:") and path.is_file():
        path.rename(path.with_suffix(".revoked"))


def read_keyring(folder: Path) -> KeyringFile:
    """Return a keyring's file; raises `SigningError`."""
    path = folder / KEYRING
    try:
        return KeyringFile.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"{path}: no keyring here ({error.strerror}); make one with rbf-repo init"
        raise SigningError(msg, folder=str(folder)) from error
    except pydantic.ValidationError as error:
        msg = f"{path}: not a keyring; restore it from a copy"
        raise SigningError(msg, folder=str(folder)) from error


def find_passphrase(folder: Path, ask: Callable[[str], str] = getpass) -> str:
    """Return the passphrase of a keyring: its file, the environment, or a person.

    In order: ``FOLDER/passphrase``; ``RBF_PASSPHRASE``; the file that ``RBF_PASSPHRASE_FILE``
    names; the terminal, by `ask`.

    Raises
    ------
    SigningError
        If there is none.
    """
    beside = folder / PASSPHRASE
    named = os.environ.get("RBF_PASSPHRASE_FILE")
    if beside.is_file():
        return read_private(beside).decode().strip()
    if given := os.environ.get("RBF_PASSPHRASE"):
        return given
    if named:
        return read_private(Path(named)).decode().strip()
    if sys.stdin.isatty():
        return ask(f"Passphrase of {folder}")
    msg = f"{folder}: no passphrase; set RBF_PASSPHRASE or RBF_PASSPHRASE_FILE"
    raise SigningError(msg, folder=str(folder))


def new_passphrase(folder: Path) -> str:
    """Return a keyring's passphrase file, made (256 random bits, 0600) if it is not there."""
    path = folder / PASSPHRASE
    private_folder(folder)
    if not path.exists():
        write_private(path, secrets.token_hex(32).encode() + b"\n")
    return read_private(path).decode().strip()


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    previous = os.umask(0o077)
    try:
        write_bytes(path, data)
    finally:
        os.umask(previous)


def read_private(path: Path) -> bytes:
    """Return a file that only its owner may read.

    Raises
    ------
    SigningError
        If it cannot be read, or others may.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise SigningError(msg, file=str(path)) from error
    if mode & 0o077:
        msg = f"{path}: others may read it (mode {mode:o}); chmod 600 it, and consider it known"
        raise SigningError(msg, file=str(path))
    return data


def _decrypted(path: Path, passphrase: str) -> Ed25519PrivateKey:
    try:
        file = KeyFile.model_validate_json(read_private(path))
        derived = _derived(passphrase, bytes.fromhex(file.salt), n=file.n, r=file.r, p=file.p)
        private = load_pem_private_key(file.private_key.encode(), derived)
    except pydantic.ValidationError as error:
        msg = f"{path}: not a key file; restore it from a copy"
        raise SigningError(msg, file=str(path)) from error
    except ValueError as error:
        msg = f"{path}: the passphrase is wrong, or the file is damaged"
        raise SigningError(msg, file=str(path)) from error
    if not isinstance(private, Ed25519PrivateKey):
        msg = f"{path}: not an ed25519 key"
        raise SigningError(msg, file=str(path))
    return private


def _derived(passphrase: str, salt: bytes, *, n: int, r: int, p: int) -> bytes:
    key = hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p) + 2**20, dklen=32
    )
    return key.hex().encode()
