"""Keys at rest, rotation, thresholds, and signers that are not files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer
from typer.testing import CliRunner

from apps.errors import RepositoryDamaged, SigningError
from apps.repository import chain, cli, cli_keys, keys, roots, rotation
from apps.repository.keys import Keyring
from apps.repository.roots import Policy
from apps.repository.signing import utc_now
from apps.repository.verify import verify

from .conftest import Owner
from .static import served, updater

if not any(c.name == "rotate-key" for c in cli.app.registered_commands):
    cli_keys.register(cli.app)


def run(owner: Owner, command: str, *arguments: object, code: int = 0) -> str:
    where = ["-r", owner.store.name]
    if command != "sign":
        where += ["-k", str(owner.online)]
    result = CliRunner().invoke(cli.app, [command, *where, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def now_owner(make_owner):
    """The command line takes the wall time."""
    return make_owner(clock=utc_now)


def root_of(owner: Owner):
    return chain.roots(owner.store, None)[-1].signed


def good(owner: Owner) -> bool:
    return not verify(owner.store, (owner.online / "root.json").read_bytes()).problems


def test_keys_are_encrypted_and_nobody_elses(owner):
    passphrase = (owner.online / "passphrase").read_text().strip()
    for path in [*owner.online.iterdir(), *owner.root_keys[0].iterdir()]:
        assert path.stat().st_mode & 0o077 == 0
    for path in owner.online.glob("*.key"):
        assert "ENCRYPTED PRIVATE KEY" in path.read_text()
        assert passphrase not in path.read_text()
    wrong = Keyring(owner.online, passphrase=lambda _folder: "guess")
    state = chain.load(owner.store, None)
    assert wrong.signers(state.root.signed.keys.values()) == []
    assert "passphrase is wrong" in str(next(iter(wrong.failures.values())))


def test_a_key_file_that_others_may_read_signs_nothing(owner):
    next(owner.online.glob("timestamp*.key")).chmod(0o644)
    repository = owner.repository()
    with repository.exclusive() as state, pytest.raises(SigningError, match="chmod 600"):
        repository.refresh(state)


def test_without_a_passphrase_it_says_where_one_may_be(owner, monkeypatch, tmp_path):
    passphrase = (owner.online / "passphrase").read_text()
    (owner.online / "passphrase").unlink()
    monkeypatch.delenv("RBF_PASSPHRASE", raising=False)
    with owner.repository().exclusive() as state, pytest.raises(SigningError, match="RBF_PASS"):
        owner.repository().refresh(state)
    monkeypatch.setenv("RBF_PASSPHRASE", passphrase.strip())
    with owner.repository().exclusive() as state:
        owner.repository().refresh(state)
    monkeypatch.delenv("RBF_PASSPHRASE")
    keys.write_private(tmp_path / "secret", passphrase.encode())
    monkeypatch.setenv("RBF_PASSPHRASE_FILE", str(tmp_path / "secret"))
    with owner.repository().exclusive() as state:
        owner.repository().refresh(state)


def test_publishing_needs_no_root_key(owner):
    for path in owner.root_keys[0].iterdir():
        path.unlink()
    owner.publish(1)
    assert owner.index().channels == {"stable": 1}


@pytest.mark.parametrize("role", keys.ONLINE)
def test_a_rotated_key_is_worth_nothing_and_devices_follow(now_owner, role, tmp_path):
    owner = now_owner
    old = root_of(owner).roles[role].keyids[0]
    root = (owner.online / "root.json").read_bytes()
    with served(tmp_path / "repository") as url:
        updater(url, tmp_path / "device", root)
        run(owner, "rotate-key", role, "--root-keys", owner.root_keys[0])
        assert old not in root_of(owner).roles[role].keyids
        updater(url, tmp_path / "device", root)
        updater(url, tmp_path / "new-device", root)
    assert list(owner.online.glob(f"{role}-{old[:8]}.revoked"))
    run(owner, "refresh", "--all")
    assert good(owner)


def test_a_root_of_two_holders(make_owner, tmp_path):
    holders = (tmp_path / "anna", tmp_path / "ben")
    owner = make_owner(root_keys=holders, policy=Policy(thresholds={"root": 2}), clock=utc_now)
    assert root_of(owner).roles["root"].threshold == 2
    for one in holders:
        output = run(owner, "rotate-key", "timestamp", "--root-keys", one, code=4)
        assert "lacks 1 signature" in output
    assert root_of(owner).version == 1
    draft = tmp_path / "draft.json"
    run(owner, "rotate-key", "timestamp", "--root-keys", holders[0], "--draft", draft)
    run(owner, "install", draft, code=4)
    assert "timestamp" in run(owner, "sign", draft, "--root-keys", holders[1])
    run(owner, "install", draft)
    assert root_of(owner).version == 2
    assert good(owner)
    # A holder is replaced: both thresholds must agree, the old one and the new one.
    (tmp_path / "carla").mkdir(mode=0o700)
    keys.new_passphrase(tmp_path / "carla")
    gone = Keyring(holders[1]).keys("root")[0].keyid
    both = [a for holder in holders for a in ("--root-keys", holder)]
    run(owner, "rotate-key", "root", *both, "--key", gone[:8], "--into", tmp_path / "carla")
    assert gone not in root_of(owner).roles["root"].keyids
    assert root_of(owner).roles["root"].threshold == 2
    assert good(owner)


def test_two_keys_for_targets(now_owner):
    owner = now_owner
    run(
        owner, "rotate-key", "targets", "--root-keys", owner.root_keys[0], "--add", "--threshold", 2
    )
    role = root_of(owner).roles["targets"]
    assert (len(role.keyids), role.threshold) == (2, 2)
    owner.publish(1)
    assert good_metadata(owner)
    next(owner.online.glob("targets*.key")).unlink()
    with pytest.raises(SigningError, match="role targets needs 2 signatures"):
        owner.publish(2)
    assert owner.index().channels == {"stable": 1}


def good_metadata(owner: Owner) -> bool:
    problems = verify(owner.store, None).problems
    return all("house" in p for p in problems)  # files that are no real release


def test_a_lost_key_is_replaced(now_owner):
    owner = now_owner
    next(owner.online.glob("timestamp*.key")).unlink()
    arguments = ("timestamp", "--root-keys", owner.root_keys[0])
    assert "cannot be read" in run(owner, "rotate-key", *arguments, code=4)
    run(owner, "rotate-key", *arguments, "--lost")
    assert good(owner)
    owner.publish(1)


@pytest.mark.parametrize("point", [f"store.write:{k}" for k in (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("lost", [False, True])
def test_killed_while_rotating(now_owner, point, lost):
    owner = now_owner
    if lost:
        next(owner.online.glob("snapshot*.key")).unlink()
    arguments = ["snapshot", "--root-keys", owner.root_keys[0], *(["--lost"] if lost else [])]
    command = [sys.executable, "-c", "from apps.repository.cli import main; main()", "rotate-key"]
    command += ["-r", owner.store.name, "-k", str(owner.online)]
    env = os.environ | {"RBF_FAILPOINT": point}
    done = subprocess.run([*command, *map(str, arguments)], env=env, capture_output=True)
    if done.returncode == -signal.SIGKILL:
        if lost and root_of(owner).version == 2:
            run(owner, "refresh", "--lost")
        elif root_of(owner).version == 1:
            run(owner, "rotate-key", *arguments)
    else:
        assert done.returncode == 0, done.stderr
    assert root_of(owner).version == 2
    assert good(owner)
    owner.publish(1)


class Token(Signer):
    """Stands for hardware: the private key is not in any file of ours."""

    SCHEME = "test-token"
    held: dict[str, CryptoSigner] = {}  # noqa: RUF012

    def __init__(self, signer: CryptoSigner) -> None:
        self._signer = signer

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):  # noqa: ARG003
        return cls(cls.held[priv_key_uri])

    @property
    def public_key(self) -> Key:
        return self._signer.public_key

    def sign(self, payload):
        return self._signer.sign(payload)


def test_a_key_in_hardware(now_owner, tmp_path, monkeypatch):
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, Token.SCHEME, Token)
    owner, signer = now_owner, CryptoSigner.generate_ecdsa()
    Token.held["test-token:slot-9"] = signer
    public = signer._private_key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "public.pem").write_bytes(public)
    run(
        owner, "rotate-key", "targets", "--root-keys", owner.root_keys[0],
        "--uri", "test-token:slot-9", "--public", tmp_path / "public.pem",
    )  # fmt: skip
    assert root_of(owner).roles["targets"].keyids == [signer.public_key.keyid]
    owner.publish(1)
    assert good_metadata(owner)


def test_a_root_is_renewed_in_time(owner):
    owner.clock.go(days=300)
    before = root_of(owner).expires
    repository = owner.repository(*owner.root_keys)
    roots.change(repository, lambda _root: None)
    assert root_of(owner).expires > before
    owner.publish(1)


def test_root_keys_do_not_lie_with_the_others(tmp_path):
    arguments = ["init", "-r", tmp_path / "r", "-k", tmp_path / "k", "--make-passphrase"]
    for folder in (tmp_path / "k" / "root", tmp_path / "r" / "root", tmp_path / "k"):
        result = CliRunner().invoke(cli.app, [*map(str, arguments), "--root-keys", str(folder)])
        assert result.exit_code == 4
    assert not (tmp_path / "r").exists()


def test_an_owner_does_not_sign_what_others_have_put_there(owner, tmp_path):
    """Another's root with the owner's own keys in it, as one who can write the storage would do."""
    owner.publish(1)
    other = Owner(tmp_path / "other", type(owner.store)(tmp_path / "other-repository"))
    theirs = other.store.read("metadata/1.root.json")
    owner.store.replace("metadata/1.root.json", theirs)
    with pytest.raises(RepositoryDamaged, match="not the one that the keyring trusts"):
        owner.publish(2)


def test_keys_that_fit_no_question_are_asked_for(owner):
    with pytest.raises(SigningError, match="say which one"):
        rotation.replaced(root_of(owner), "targets", "zz")
    assert Path(owner.store.name).exists()
