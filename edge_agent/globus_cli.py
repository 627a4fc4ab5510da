"""Command line: ``edge-agent globus``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.contracts.errors import InvalidConfig

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def globus() -> None:
    """Prepare a Globus Compute endpoint to reach the agent (docs/globus.md)."""


@app.command()
def register(
    endpoint: Annotated[
        str, typer.Option("--endpoint", "-e", help="Name of the endpoint, or its folder.")
    ] = "rbf",
    function: Annotated[
        list[str] | None,
        typer.Option("--function", "-f", help="Allow only this; may be repeated. Default: all."),
    ] = None,
) -> None:
    """Register the agent's functions, allow them on an endpoint, and say what was done.

    May be repeated: what is registered with the same source is kept.
    """
    from edge_agent.client.compute import typed
    from edge_agent.contracts.errors import RbfError
    from edge_agent.registration import register as registered
    from edge_agent.remote import FUNCTIONS

    try:
        from globus_compute_sdk import Client
        from globus_compute_sdk.sdk.compute_dir import ensure_compute_dir
    except ImportError as error:
        msg = "Globus Compute is not installed here: pip install 'reverse-backfill[globus]'"
        raise InvalidConfig(msg) from error
    folder = Path(endpoint) if "/" in endpoint else Path(ensure_compute_dir()) / endpoint
    try:
        done = registered(folder, function or list(FUNCTIONS), Client())
    except RbfError:
        raise
    except Exception as error:  # the SDK's, whatever they are
        raise typed(error, endpoint, "register") from error
    for what, functions in (("registered", done.registered), ("kept", done.kept)):
        for name, identifier in functions.items():
            typer.echo(f"{what:<10} {name:<16} {identifier}")
    others = f" and {done.others} of others" if done.others else ""
    typer.echo(
        f"allow-list {len(done.allowed) - done.others} of ours{others}: {folder}/config.yaml"
    )
    if done.changed:
        typer.echo("the list has changed: restart the endpoint")
