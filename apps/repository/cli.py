"""Command line of a repository's owner: ``rbf-repo``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from apps.errors import PublishError, RepositoryConflict, RepositoryDamaged, SigningError
from apps.repository import chain, edits, keys, reading, roots
from apps.repository.keys import Keyring
from apps.repository.objects import open_store
from apps.repository.repository import Repository
from edge_agent.contracts.errors import RbfError
from edge_agent.contracts.repository import Channel, Index

app = typer.Typer(
    help=(
        "A repository of signed releases: make it, publish into it, say who gets what.\n\n"
        "Exit status: 0 done; 1 verify found something; 2 refused or wrong input; 3 somebody else "
        "published meanwhile, try again; 4 a key is missing or locked; 5 the repository is damaged."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Where = Annotated[
    str,
    typer.Option(
        "--repository", "-r", envvar="RBF_REPOSITORY", help="A folder, or such as s3://bucket/name."
    ),
]
Keys = Annotated[
    Path, typer.Option("--keys", "-k", envvar="RBF_KEYS", help="Keyring of the online roles.")
]
Model = Annotated[
    str | None, typer.Option("--name", help="Model; needed only where there are several.")
]
OnChannel = Annotated[Channel, typer.Option("--channel", help="candidate or stable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE, RING = "repository", Path("keys")

#: Of each kind of error; the first that fits.
EXITS: tuple[tuple[type[Exception], int], ...] = (
    (RepositoryConflict, 3),
    (SigningError, 4),
    (RepositoryDamaged, 5),
    (Exception, 2),
)


@app.command()
def init(
    root_keys: Annotated[
        list[Path],
        typer.Option(help="Keyring of the root, elsewhere: a stick. Repeat it for several keys."),
    ],
    repository: Where = HERE,
    online: Keys = RING,
    root_threshold: Annotated[int, typer.Option(min=1, help="Root keys that must sign.")] = 1,
    root_days: Annotated[float, typer.Option(min=1, help="Days a root holds.")] = 365,
    targets_days: Annotated[float, typer.Option(min=0.01, help="Days targets hold.")] = 90,
    snapshot_days: Annotated[float, typer.Option(min=0.01, help="Days a snapshot holds.")] = 14,
    timestamp_days: Annotated[float, typer.Option(min=0.01, help="Days a timestamp holds.")] = 2,
    *,
    make_passphrase: Annotated[
        bool, typer.Option(help="Write a random passphrase beside each keyring.")
    ] = False,
) -> None:
    """Make a repository and its keys; a call that was interrupted goes on.

    The root's keys are needed again to change keys and once before the root expires; take them
    away. Devices get REPOSITORY/metadata/1.root.json when they are installed.
    """
    with errors():
        _apart(root_keys, online, repository)
        policy = roots.Policy(
            thresholds={"root": root_threshold},
            days={
                "root": root_days,
                "targets": targets_days,
                "snapshot": snapshot_days,
                "timestamp": timestamp_days,
            },
        )
        ask = keys.new_passphrase if make_passphrase else asked()
        made = roots.init(open_store(repository), online, root_keys, policy=policy, passphrase=ask)
        where = ", ".join(map(str, root_keys))
        typer.echo(f"repository {made.store.name}; online keys {online}; root keys {where}")
        typer.echo("take the root keys away, and give devices metadata/1.root.json")


@app.command()
def publish(
    candidate: Annotated[Path, typer.Argument(help="Folder of a validated candidate.")],
    repository: Where = HERE,
    online: Keys = RING,
    channel: OnChannel = "stable",
    version: Annotated[
        int | None, typer.Option(min=1, help="By default one more than the newest.")
    ] = None,
) -> None:
    """Publish a candidate that a campaign has trained, validated and accepted."""
    from apps.candidates import read_candidate
    from apps.publish import PublishTask, publish

    with errors():
        site = read_candidate(candidate).site
        known = _released(repository, online, site.name, candidate)
        result = publish(
            PublishTask(
                site=site,
                version=version or known,
                candidate=str(candidate),
                repository=repository,
                keys=str(online),
                created=datetime.now(UTC),
                channel=channel,
            )
        )
        typer.echo(f"{site.name} version {result.version} is published")


@app.command()
def refresh(
    repository: Where = HERE,
    online: Keys = RING,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Sign targets and snapshot anew, too.")
    ] = False,
    root_keys: Annotated[
        list[Path] | None, typer.Option(help="Renew the root as well, with these keyrings.")
    ] = None,
    lost: Annotated[
        bool, typer.Option("--lost", help="Complete a rotate-key --lost that was interrupted.")
    ] = False,
) -> None:
    """Sign the timestamp anew, and what else has less than half of its time left.

    Run it from cron, several times in the timestamp's lifetime: a device that sees no timestamp
    that holds takes nothing new (and goes on serving what it has).
    """
    with errors():
        owner = opened(repository, online, *(root_keys or ()))
        if root_keys:
            new = roots.change(owner, lambda _root: None)
            typer.echo(f"root {new.signed.version} holds until {new.signed.expires:%Y-%m-%d}")
        with owner.exclusive(lost=lost) as before:
            state = owner.refresh(before, everything=everything or lost)
        if state.timestamp is not None:
            until = state.timestamp.signed.expires
            number = state.timestamp.signed.version
            typer.echo(f"timestamp {number} holds until {until:%Y-%m-%d %H:%M} UTC")


@app.command()
def withdraw(
    version: Annotated[int, typer.Argument(help="Version that nobody is to get any more.")],
    reason: Annotated[str, typer.Option(help="Why; devices log it.")],
    repository: Where = HERE,
    online: Keys = RING,
    name: Model = None,
) -> None:
    """Withdraw a release: devices that serve it go back to one that is good."""
    _change(repository, online, name, lambda index: edits.withdrawn(index, version, reason))
    typer.echo(f"version {version} is withdrawn")


@app.command()
def rollout(
    version: Annotated[int, typer.Argument(help="Version to give to a share of the devices.")],
    percent: Annotated[float, typer.Option(min=0, max=100, help="Share of the devices, %.")],
    repository: Where = HERE,
    online: Keys = RING,
    channel: OnChannel = "stable",
    name: Model = None,
) -> None:
    """Give a version to a share of a channel's devices; again with a larger share to go on."""
    _change(
        repository, online, name, lambda index: edits.promoted(index, version, channel, percent)
    )
    typer.echo(f"{channel}: version {version} for {percent:g} % of the devices")


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Version to give to everybody.")],
    repository: Where = HERE,
    online: Keys = RING,
    channel: OnChannel = "stable",
    name: Model = None,
) -> None:
    """Point a channel to a version, for all of its devices."""
    _change(repository, online, name, lambda index: edits.promoted(index, version, channel))
    typer.echo(f"{channel}: version {version}")


@app.command()
def pin(
    device: Annotated[str, typer.Argument(help="Id of the device, as in its configuration.")],
    version: Annotated[
        int | None, typer.Argument(help="Version; without one the device is free again.")
    ] = None,
    repository: Where = HERE,
    online: Keys = RING,
    name: Model = None,
) -> None:
    """Pin a device to a version, whatever its channel says, or free it again."""
    _change(repository, online, name, lambda index: edits.pinned(index, device, version))
    typer.echo(f"{device}: {'free' if version is None else f'pinned to version {version}'}")


@app.command()
def verify(
    repository: Where = HERE,
    root: Annotated[
        Path | None, typer.Option(help="First root to trust; by default the repository's own.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Read every file as a device would, and compare it with what is signed."""
    from apps.repository.verify import verify as check

    with errors():
        report = check(open_store(repository), root.read_bytes() if root else None)
        expires = {role: f"{at:%Y-%m-%dT%H:%M:%SZ}" for role, at in report.expires.items()}
        if as_json:
            found = {"files": report.files, "bytes": report.bytes, "expires": expires}
            typer.echo(json.dumps(found | {"problems": report.problems}, indent=1))
        else:
            for role, at in expires.items():
                typer.echo(f"{role:9}  holds until {at}")
            typer.echo(f"{report.files} files, {report.bytes} bytes as signed")
            for problem in report.problems:
                typer.echo(f"problem: {problem}", err=True)
    raise typer.Exit(1 if report.problems else 0)


@app.command()
def show(
    version: Annotated[int | None, typer.Argument(help="A release; by default all.")] = None,
    repository: Where = HERE,
    name: Model = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show keys, channels and releases; of one release everything, down to its simulations."""
    from apps.repository import show as shown

    with errors():
        store = open_store(repository)
        state = chain.load(store, None)
        named = name or len(reading.names(state.targets)) == 1
        index = reading.open_index(store, name) if named or version else None
        if version is None or index is None:
            found, text = shown.describe(store, state, index), shown.repository_text
        else:
            found, text = shown.describe_release(store, index, version), shown.release_text
        typer.echo(json.dumps(found, indent=1) if as_json else text(found))


def main() -> None:
    """Run the command line; the script ``rbf-repo``."""
    from apps.repository import cli_keys

    cli_keys.register(app)
    app(prog_name="rbf-repo")


@contextmanager
def errors() -> Iterator[None]:
    """Say what went wrong in one line, and exit with what the kind of error means."""
    try:
        yield
    except (RbfError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(next(code for kind, code in EXITS if isinstance(error, kind))) from None


def opened(repository: str, online: Path, *root_keys: Path) -> Repository:
    """Return a repository with the keys of some keyrings."""
    return Repository(open_store(repository), Keyring(online, *root_keys))


def _change(
    repository: str, online: Path, name: str | None, edit: Callable[[Index], Index]
) -> None:
    with errors():
        owner = opened(repository, online)
        with owner.exclusive() as state:
            index = owner.index(state, _model(owner, state, name))
            changed = edit(index)
            if changed != index:
                owner.commit(state, changed)


def _model(owner: Repository, state: chain.State, name: str | None) -> str:
    known = reading.names(state.targets)
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        there = ", ".join(known) or "none"
        msg = f"{owner.store.name}: name the model with --name; models with releases: {there}"
        raise PublishError(msg, name=name)
    return name


def _released(repository: str, online: Path, name: str, candidate: Path) -> int:
    """Return the version that has this candidate's model already, or the next free one."""
    from apps.transport import read_serving

    owner = opened(repository, online)
    with owner.exclusive() as state:
        index = owner.index(state, name)
    serving = read_serving(candidate).model_sha256
    for ref in reversed(index.releases):
        release = reading.read_release(owner.store, index, ref.version)
        if release.model.sha256 == serving and ref.version not in index.withdrawn:
            return ref.version
    return index.releases[-1].version + 1 if index.releases else 1


def _apart(root_keys: list[Path], online: Path, repository: str) -> None:
    """Refuse root keys that lie with the others: whoever gets those would get everything."""
    for folder in root_keys:
        for other in (online, Path(repository)):
            if folder.resolve().is_relative_to(other.resolve()):
                msg = f"{folder}: the root's keys must not lie in {other}; take another medium"
                raise SigningError(msg, folder=str(folder))


def asked() -> Callable[[Path], str]:
    """Return what finds a keyring's passphrase, or has a person choose one, once."""
    known: dict[Path, str] = {}

    def passphrase(folder: Path) -> str:
        if folder not in known:
            known[folder] = keys.find_passphrase(
                folder,
                ask=lambda text: typer.prompt(text, hide_input=True, confirmation_prompt=True),
            )
        return known[folder]

    return passphrase
