"""The commands of ``rbf-repo`` that change keys, and with that the root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Metadata, Root

from apps.errors import SigningError
from apps.repository import chain, keys, roots, rotation, signing
from apps.repository.cli import HERE, RING, Keys, Where, asked, errors, opened
from apps.repository.keys import Keyring, Role
from apps.repository.objects import open_store

RootKeys = Annotated[list[Path], typer.Option(help="Keyring of the root; repeat it for several.")]


def rotate_key(
    role: Annotated[Role, typer.Argument(help="root, targets, snapshot or timestamp.")],
    root_keys: RootKeys,
    repository: Where = HERE,
    online: Keys = RING,
    key: Annotated[
        str | None, typer.Option(help="Beginning of the id of the key that goes, if several.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Keyring for the new key; by default that of the role.")
    ] = None,
    uri: Annotated[
        str | None, typer.Option(help="Signer URI of a key that exists: awskms:..., hsm:...")
    ] = None,
    public: Annotated[
        Path | None, typer.Option(help="With --uri: the key's public half, PEM.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="Signatures that the role needs from now on.")
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(help="Write the root here for others to sign (rbf-repo sign), and stop."),
    ] = None,
    *,
    add: Annotated[bool, typer.Option("--add", help="Add a key, replace none.")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="The key that goes is not here.")] = False,
) -> None:
    """Replace a key of a role by a new one: routinely, or because somebody else may have it.

    Everything is signed by both first, so devices notice nothing; with --lost they cannot verify
    for a moment. A call that was interrupted goes on with the key that it had made.
    """
    with errors():
        folder = into or (root_keys[0] if role == "root" else online)
        owner = opened(repository, online, *root_keys)
        if uri is not None:
            _enter(folder, role, uri, public)
            joins = next(k for k in Keyring(folder).keys(role) if k.keyid == _public(public).keyid)
        else:
            joins = rotation.new_member(owner, role, folder, asked())
        # Again, for the new key.
        owner = opened(repository, online, *root_keys, *([into] if into else []))
        with owner.exclusive(lost=lost) as state:
            goes = [] if add else [rotation.replaced(state.root.signed, role, key)]
            change = rotation.edit(role, add=[joins], drop=goes, threshold=threshold)
            new = roots.draft(state.root, change, owner.now())
            roots.add_signatures(new, state.root, owner.keyring)
        if draft is not None:
            if role != "root" and not lost:
                rotation.resign(owner, new)
            draft.write_bytes(signing.serialize(new))
            typer.echo(f"root {new.signed.version} is in {draft}: sign it, then install it")
            return
        rotation.rotate(owner, new, lost=lost)
        for keyid in goes:
            for ring in owner.keyring.folders:
                keys.drop_key(ring, keyid)
        typer.echo(f"role {role}: key {joins.keyid[:8]} joins, {_gone(goes)}")


def sign(
    draft: Annotated[Path, typer.Argument(help="A root that rotate-key --draft has written.")],
    root_keys: RootKeys,
    repository: Where = HERE,
) -> None:
    """Add signatures to the draft of a root; look at what it changes first: it is printed."""
    with errors():
        new = _read(draft)
        old = chain.roots(open_store(repository), Keyring(*root_keys).anchor)[-1]
        for line in _differences(old.signed, new.signed):
            typer.echo(line)
        roots.add_signatures(new, old, Keyring(*root_keys))
        draft.write_bytes(signing.serialize(new))
        typer.echo(f"{draft}: {len(new.signatures)} signatures")


def install(
    draft: Annotated[Path, typer.Argument(help="A root with all its signatures.")],
    repository: Where = HERE,
    online: Keys = RING,
) -> None:
    """Publish a root that its holders have signed."""
    with errors():
        new = _read(draft)
        owner = opened(repository, online)
        before = chain.roots(owner.store, owner.keyring.anchor)[-1].signed
        rotation.rotate(owner, new)
        for role in keys.ONLINE:
            for keyid in set(before.roles[role].keyids) - set(new.signed.roles[role].keyids):
                keys.drop_key(online, keyid)
        typer.echo(f"root {new.signed.version} is published")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (rotate_key, sign, install):
        app.command()(command)


def _enter(folder: Path, role: Role, uri: str, public: Path | None) -> None:
    keys.add_key(folder, role, uri, _public(public))


def _public(path: Path | None) -> Key:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if path is None:
        msg = "--uri needs --public, the key's public half"
        raise SigningError(msg)
    return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))


def _read(draft: Path) -> Metadata[Root]:
    return chain.parse(draft.read_bytes(), Root, str(draft))


def _differences(old: Root, new: Root) -> list[str]:
    lines = [f"root {old.version} -> {new.version}, until {new.expires:%Y-%m-%d}"]
    for role in ("root", *keys.ONLINE):
        before, after = old.roles[role], new.roles[role]
        lines += [f"  {role}: {k} joins" for k in after.keyids if k not in before.keyids]
        lines += [f"  {role}: {k} goes" for k in before.keyids if k not in after.keyids]
        if before.threshold != after.threshold:
            lines.append(f"  {role}: threshold {before.threshold} -> {after.threshold}")
    return lines


def _gone(goes: list[str]) -> str:
    return f"{goes[0][:8]} goes" if goes else "none goes"
