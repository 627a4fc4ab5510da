"""Run a campaign: simulate, train, validate, publish, and serve while it goes on.

python workflows/campaign.py [--campaign FILE] [--out DIR] [--resume] [--machine NAME]
    [--edge ADDRESS] [--dry-run]
"""

from __future__ import annotations

import signal
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.contracts.errors import InvalidConfig, RbfError
from edge_agent.contracts.model import canonical_json, sha256
from edge_agent.contracts.site import Site
from workflows.config import CAMPAIGNS, ROOT, Campaign
from workflows.errors import CampaignError, MachineError
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.session import MakeConfig, Session

CONFIGS = ROOT / "configs"
RUNS = ROOT / "data" / "runs"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    campaign: Annotated[
        Path, typer.Option(help="Campaign file (TOML).", metavar="FILE")
    ] = CAMPAIGNS / "default.toml",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; by default data/runs/NAME-TIME, or with --resume the latest.",
            metavar="DIR",
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Module in configs/ that says where tasks run.", metavar="NAME"),
    ] = None,
    edge: Annotated[
        str | None,
        typer.Option(
            help="An edge agent that is there already: globus:ENDPOINT_ID, unix:PATH or a URL.",
            metavar="ADDRESS",
        ),
    ] = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the campaign in the folder.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be asked of the scheduler; submit nothing."
        ),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines even in a terminal.")] = False,
) -> None:
    """Simulate, train, validate and publish; the edge agent serves meanwhile.

    Starts an edge agent and feeds it the weather record, drives the stages through Parsl, and
    writes summary.json and report.html into the folder of the run. A campaign that was killed goes
    on with --resume and repeats nothing that is finished. With --edge an agent that is there
    already is told of each release instead.

    Exit status: 0 done, 1 the campaign failed, 2 wrong input.
    """
    try:
        settings = Campaign.from_toml(campaign)
        site = settings.load_site(campaign)
        record = settings.record_path(campaign)
        make_config = _machine(machine or settings.machine)
        if dry_run:
            typer.echo(_dry_run(settings, make_config, out or RUNS / settings.name))
            return
        folder = _folder(settings, out, resume=resume)
        ledger = Ledger(folder.ledger, _identity(settings, site))
    except RbfError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    # A batch system or a person who ends us politely gets the same as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Session(settings, site, folder, ledger, edge).run(record, make_config, plain=plain)
    except CampaignError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with --resume --out {folder.root}", err=True)
        raise typer.Exit(130) from None
    finally:
        ledger.close()


def main() -> None:
    """Run the command line; the script ``rbf-campaign``."""
    app()


def _identity(campaign: Campaign, site: Site) -> str:
    # The budget is not part of it: a campaign may be resumed with more time or simulations.
    settings = campaign.model_dump(mode="json", exclude={"budget", "machine", "replay"})
    return sha256(canonical_json({"campaign": settings, "site": site.content_digest()}))


def _dry_run(campaign: Campaign, make_config: MakeConfig, out: Path) -> str:
    from workflows.backfill.dryrun import describe
    from workflows.backlog import work_left
    from workflows.decisions import Tally
    from workflows.ledger import ROLES

    fresh = {role: Tally() for role in ROLES}
    backlog = work_left(campaign, fresh, (), out_of_time=False, training=0.0)
    return describe(make_config(RunFolder(out.resolve()).parsl), backlog)


def _machine(name: str) -> MakeConfig:
    if not name.isidentifier() or find_spec(f"configs.{name}") is None:
        known = ", ".join(
            sorted(
                p.stem for p in (ROOT / "configs").glob("*.py") if "make_config" in p.read_text()
            )
        )
        msg = f"machine: no module configs/{name}.py (known: {known})"
        raise MachineError(msg, machine=name)
    make_config: MakeConfig = import_module(f"configs.{name}").make_config
    return make_config


def _folder(campaign: Campaign, out: Path | None, *, resume: bool) -> RunFolder:
    latest = RUNS / "latest"
    if out is None:
        now = datetime.now().astimezone()
        out = latest.resolve() if resume else RUNS / f"{campaign.name}-{now:%Y%m%d-%H%M%S}"
    folder = RunFolder(out.resolve())
    exists = folder.ledger.exists()
    if resume and not exists:
        msg = f"--resume: {folder.root} holds no campaign"
        raise InvalidConfig(msg, file=str(folder.root), field="--resume")
    if exists and not resume:
        msg = f"--out: {folder.root} holds a campaign; go on with --resume or choose another folder"
        raise InvalidConfig(msg, file=str(folder.root), field="--out")
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        if folder.root.is_relative_to(RUNS):
            latest.unlink(missing_ok=True)
            latest.symlink_to(folder.root.name)
    except OSError as error:
        msg = f"--out: {folder.root} cannot be written: {error.strerror}"
        raise InvalidConfig(msg, file=str(folder.root), field="--out") from error
    return folder


if __name__ == "__main__":
    main()
