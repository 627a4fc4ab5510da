"""Command line: ``python -m edge_agent`` or ``edge-agent``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from edge_agent import globus_cli
from edge_agent.contracts.errors import InvalidInput, RbfError

DEFAULT_CONFIG = Path("configs/edge/local.toml")
RECORD = Path("data/weather/mast_10min.csv")

app = typer.Typer(
    help="The edge agent of Reverse Backfill: serves the newest good airflow model of a site.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(globus_cli.app, name="globus")

_ENSURED = {"running": "runs", "started": "was started"}

Config = Annotated[
    Path, typer.Option("--config", "-c", help="The agent's TOML file.", show_default=True)
]
Where = Annotated[
    str | None,
    typer.Option("--address", "-a", help="unix:/path or http://host:port; default: by --config."),
]
Version = Annotated[int, typer.Argument(min=1, help="Its version.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="RBF_EDGE_TOKEN_FILE", help="File with the agent's token, for https."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(envvar="RBF_EDGE_CA_FILE", help="Authority of the agent's certificate, PEM."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def serve(config: Config = DEFAULT_CONFIG) -> None:
    """Watch the repository and serve until SIGTERM or Ctrl-C."""
    from edge_agent.config import AgentConfig
    from edge_agent.serve import configure_logging, run

    configure_logging()
    run(AgentConfig.from_toml(config))


@app.command()
def ensure(
    config: Config = DEFAULT_CONFIG,
    timeout: Annotated[float, typer.Option(min=0.0, help="Longest wait, seconds.")] = 60.0,
    *,
    start: Annotated[
        bool,
        typer.Option(
            "--start/--no-start",
            envvar="RBF_EDGE_START",
            help="Start it if it does not run; if not, wait for whatever else starts it.",
        ),
    ] = True,
) -> None:
    """Return once the agent runs, and start it if it does not; one agent, whoever asks."""
    from edge_agent.ensure import ensure as ensured

    typer.echo(f"the agent {_ENSURED[ensured(config, timeout=timeout, start=start)]}")


@app.command()
def status(
    config: Config = DEFAULT_CONFIG,
    address: Where = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    json: AsJson = False,
) -> None:
    """Show what a running agent serves and how it does."""
    with _agent(config, address, token_file, ca_file) as agent:
        found = agent.status()
    typer.echo(msgspec.json.encode(found) if json else _status_text(found))


@app.command()
def predict(
    wind_speed: Annotated[float, typer.Option(help="At the reference height, m/s.")],
    wind_from_direction: Annotated[
        float, typer.Option(help="Where the wind comes from, degrees clockwise from north.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=VALUE of a further input; else its default is taken."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    address: Where = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    json: AsJson = False,
) -> None:
    """Ask a running agent for the airflow in the house."""
    inputs = {"wind_speed": wind_speed, "wind_from_direction": wind_from_direction}
    inputs |= dict(map(_input, more or ()))
    with _agent(config, address, token_file, ca_file) as agent:
        found = agent.predict(inputs)
    speed = np.sqrt((found.wind[0] ** 2).sum(axis=0))
    summary: dict[str, Any] = {
        "version": found.version,
        "wind_speed_mean": float(speed.mean()),
        "wind_speed_max": float(speed.max()),
        "wind_std_mean": float(found.wind_std[0].mean()),
        "interval_factor": found.interval_factor,
        "out_of_range": bool(found.out_of_range[0]),
        "diagnostics": {name: float(values[0]) for name, values in found.diagnostics.items()},
        "staleness_seconds": found.staleness_seconds,
        "data_time": found.data_time,
    }
    if json:
        field = {"wind": found.wind[0].tolist(), "wind_std": found.wind_std[0].tolist()}
        typer.echo(msgspec.json.encode({**summary, **field}))
        return
    flag = "  (outside the trained range)" if summary["out_of_range"] else ""
    said = "".join(f", {name} {value:.2f}" for name, value in summary["diagnostics"].items())
    typer.echo(
        f"release {found.version}: mean {speed.mean():.2f} m/s, max {speed.max():.2f} m/s, "
        f"mean deviation {found.wind_std[0].mean():.2f} m/s in the house{said}{flag}"
    )


@app.command()
def rollback(config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Return to the previous release and hold the one left (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.rollback()))


@app.command()
def pull(config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Make a running agent look for a release now (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.pull()))


@app.command()
def releases(config: Config = DEFAULT_CONFIG, address: Where = None, json: AsJson = False) -> None:
    """List the releases on the device and where each stands."""
    with _agent(config, address) as agent:
        found = agent.releases()["releases"]
    if json:
        typer.echo(msgspec.json.encode(found))
        return
    for release in found:
        marks = [name for name in ("pinned",) if release[name]]
        marks += [] if release["stored"] else ["not on the disk"]
        reason = f": {release['reason']}" if release["reason"] else ""
        typer.echo(f"{release['version']:>6}  {', '.join([release['state'], *marks])}{reason}")


@app.command()
def promote(version: Version, config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Let a release on the device serve now, whatever its trial has shown (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.promote(version)))


@app.command()
def pin(version: Version, config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Let a release on the device serve, and stay whatever is offered (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.pin(version)))


@app.command()
def unpin(config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Let the device follow its channel again (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.unpin()))


@app.command()
def hold(config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Stop updates; a bad release still rolls back (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.hold()))


@app.command()
def unhold(config: Config = DEFAULT_CONFIG, address: Where = None) -> None:
    """Let updates go on (Unix socket only)."""
    with _agent(config, address) as agent:
        typer.echo(_serves(agent.unhold()))


@app.command()
def replay(
    config: Config = DEFAULT_CONFIG,
    address: Where = None,
    record: Annotated[
        Path, typer.Option(help="Mast CSV; readings as .csv or .jsonl; CF .nc.")
    ] = RECORD,
    rate: Annotated[float, typer.Option(min=0.001, help="Instants per second.")] = 10.0,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.")] = None,
    start_at: Annotated[str | None, typer.Option(help="First data time, ISO 8601.")] = None,
    sensor: Annotated[str, typer.Option(help="Sensor name of the mast.")] = "mast",
    log: Annotated[Path | None, typer.Option(help="CSV to append a line per request to.")] = None,
    with_parent: Annotated[bool, typer.Option(help="End when the parent process does.")] = False,
    mqtt: Annotated[str | None, typer.Option(help="HOST:PORT of a broker to send through.")] = None,
) -> None:
    """Play a record to a running agent as its readings."""
    from edge_agent.replay import MqttReplay, Player, Replay, read_record

    player: Player
    if mqtt is not None:
        from edge_agent.config import AgentConfig

        player = MqttReplay(AgentConfig.from_toml(config).name, mqtt, rate=rate)
    else:
        player = Replay(_address(config, address), log=log, rate=rate, with_parent=with_parent)
    instants = read_record(record, sensor, start_at)
    player.run(itertools.islice(instants, count), seconds=seconds)
    typer.echo(f"{player.sent} sent, {player.answered} answered", err=True)


@app.command("check-config")
def check_config(config: Config = DEFAULT_CONFIG) -> None:
    """Read a configuration file and show what it means."""
    from edge_agent.config import AgentConfig

    found = AgentConfig.from_toml(config)
    typer.echo(found.model_dump_json(indent=2))
    typer.echo(f"socket: {found.socket_path}")


def main() -> None:
    """Run the command line; our errors become one line and exit code 2."""
    try:
        app()
    except RbfError as error:
        typer.echo(f"edge-agent: {error}", err=True)
        sys.exit(2)


def _agent(
    config: Path,
    address: str | None,
    token_file: Path | None = None,
    ca_file: Path | None = None,
) -> Any:  # noqa: ANN401 - imported lazily
    from edge_agent.api.token import read_token
    from edge_agent.client import RemoteAgent

    token = read_token(token_file)
    return RemoteAgent(_address(config, address), token=token, ca_file=ca_file)


def _address(config: Path, address: str | None) -> str:
    from edge_agent.config import AgentConfig

    if address is not None:
        return address
    return f"unix:{AgentConfig.from_toml(config).socket_path}"


def _input(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        msg = f"--input {text!r} is not NAME=VALUE with a number"
        raise InvalidInput(msg, name=name) from None


def _serves(version: int | None) -> str:
    return "no release serves yet" if version is None else f"release {version} serves"


def _trial_lines(trials: dict[str, Any]) -> list[str]:
    lines = []
    for phase, seen in trials.items():
        wanted = seen.get("wanted_predictions")
        compared = f"{seen['compared']}" + ("" if wanted is None else f" of {wanted}")
        lines.append(
            f"{phase:<10} release {seen['version']}: {compared} predictions compared, "
            f"{seen['measured']} with measurements, {seen['errors']} errors, "
            f"{seen['seconds']:.0f} of {seen['wanted_seconds']:.0f} s"
        )
    return lines


def _updates_text(updates: dict[str, Any], now: float) -> str:
    refreshed, expires = updates["refreshed_at"], updates["metadata_expires_at"]
    if refreshed is None:
        text = "the repository has not been seen"
    else:
        text = f"repository good {now - refreshed:.0f} s ago"
    if expires is not None:
        text += f", its metadata for {(expires - now) / 86400:.1f} d"
    if (coming := updates["downloading"]) is not None:
        text += (
            f"; downloading release {coming['version']}: "
            f"{coming['received']} of {coming['expected']} bytes"
        )
    return text


def _status_text(found: dict[str, Any]) -> str:
    counters, latency = found["counters"], found["latency_ms"]
    serves = "no release yet" if found["active"] is None else f"release {found['active']}"
    extra = [
        f"{key} {found[key]}"
        for key in ("previous", "candidate", "held", "pinned")
        if found[key] is not None
    ]
    extra += ["on hold"] if found["hold"] else []
    extra += ["withdrawn by its owner"] if found["active"] in found["withdrawn"] else []
    times = "none yet"
    if latency["count"]:
        times = f"p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f}, max {latency['max']:.2f} ms"
    stale = found["staleness_seconds"]
    lines = [
        f"site       {found['site']} (pid {found['pid']}, channel {found['channel']})",
        f"serves     {serves}" + (f" ({', '.join(extra)})" if extra else ""),
        (
            f"answered   {counters['answered']}, failed {counters['failed']}, "
            f"invalid {counters['invalid']}, before a release {counters['refused_not_ready']}"
        ),
        f"latency    {times}",
        (
            f"readings   {counters['readings_accepted']} kept, {counters['duplicate']} repeated, "
            f"{counters['conflicting']} conflicting, "
            f"{sum(counters['rejected'].values())} rejected"
        ),
        (
            f"staleness  {'unknown' if stale is None else f'{stale:.0f} s of data time'}"
            f" (newest data {found['last_data_time'] or 'none'})"
        ),
        f"swaps      {len(found['swaps'])}",
        f"updates    {_updates_text(found['updates'], found['now'])}",
    ]
    lines += _trial_lines(found["trials"])
    lines += [f"refused    {r['version']}: {r['reason']}" for r in found["refused"]]
    if found["source_trouble"]:
        lines.append(f"trouble    {found['source_trouble']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
