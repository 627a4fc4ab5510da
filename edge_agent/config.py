"""The agent's configuration file."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from edge_agent.contracts.errors import InvalidConfig
from edge_agent.contracts.model import Contract
from edge_agent.contracts.repository import Channel, DeviceId
from edge_agent.settings import (
    IngestSettings,
    MonitorSettings,
    MqttSettings,
    PromotionSettings,
    UpdateSettings,
    UpstreamSettings,
)

#: Longest path of a Unix socket, bytes: ``sun_path`` holds 108 with the closing NUL.
SOCKET_PATH_BYTES = 107


def host_name() -> str:
    """Return this host's name, with whatever a device's name cannot hold replaced by a dash."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", socket.gethostname()).lstrip("_.:-")[:128] or "device"


class AgentConfig(Contract):
    """What one edge agent serves, from where, and within which limits.

    Relative paths in a file are relative to the file's folder (`from_toml`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Model name; the site's."""
    repository: Path | None = None
    """Folder of the release repository; it need not exist yet. Either this or ``updates.url``."""
    root: Path
    """The first root of the repository's signed metadata (its ``metadata/1.root.json``), brought to
    the device when it is set up: what does not go back to it is refused. Read until the first
    release; from then on the copy in the state folder counts."""
    state: Path
    """Folder of the agent's own state: releases, spool, journal, lock. One agent per folder."""
    device: DeviceId = Field(default_factory=host_name)
    """Name of this device, for rollouts and pins; the host's name if none."""
    channel: Channel = "stable"
    """Which channel of the repository to follow."""
    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback only with TLS and a token."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """TCP port; 0 takes any free one (``state/address.json`` says which)."""
    unix_socket: Path | None = None
    """Path of the Unix socket, at most 107 bytes; none means ``agent.sock`` in the state folder."""
    poll_seconds: Annotated[float, Field(gt=0)] = 0.5
    """Time between looks at the repository, s; see ``updates.jitter``."""
    keep_releases: Annotated[int, Field(ge=2)] = 5
    """Downloaded releases kept on disk; the active and the previous one are always kept."""
    warm_up_runs: Annotated[int, Field(ge=0)] = 5
    """Runs at batch size 1 before a release serves."""
    max_release_bytes: Annotated[int, Field(gt=0)] = 512 * 2**20
    """Largest release (manifest and files together) that is downloaded, bytes."""
    max_batch: Annotated[int, Field(gt=0)] = 256
    """Largest batch of one request."""
    max_head_bytes: Annotated[int, Field(ge=256)] = 16 * 1024
    """Largest request line with headers, bytes."""
    max_body_bytes: Annotated[int, Field(ge=256)] = 4 * 2**20
    """Largest request body, bytes; after decompression too."""
    max_connections: Annotated[int, Field(gt=0)] = 256
    """Connections held at once, both listeners together."""
    max_queue: Annotated[int, Field(gt=0)] = 64
    """Requests waiting at once; those beyond it are refused immediately with 503."""
    latency_objective_ms: Annotated[float, Field(ge=0)] = 10.0
    """Longest run, ms, for which waiting requests may be put together; 0 never does it."""
    wake_latency_us: Annotated[int, Field(ge=0)] | None = None
    """Longest time, us, that a sleeping processor may take to wake: 0 keeps it from sleeping. Costs
    power; needs to write ``/dev/cpu_dma_latency``. None leaves it to the system."""
    tls_certificate: Path | None = None
    """Certificate chain for HTTP, PEM; with `tls_key`, HTTP becomes HTTPS."""
    tls_key: Path | None = None
    """Private key of the certificate, PEM."""
    token_file: Path | None = None
    """File whose one line every HTTP request must carry as ``Authorization: Bearer``."""
    journal_bytes: Annotated[int, Field(ge=4096)] = 4 * 2**20
    """Size at which the audit record is rotated, bytes; four old ones are kept."""
    calls_bytes: Annotated[int, Field(ge=2**20)] = 64 * 2**20
    """Outcomes of remote calls kept, bytes; beyond it the oldest are dropped."""
    calls_kept: Annotated[int, Field(ge=100)] = 100_000
    """Identifiers of remote calls kept, so that none is carried out twice."""
    request_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Longest time a request may take to arrive, s."""
    idle_seconds: Annotated[float, Field(gt=0)] = 600.0
    """A connection without a request for this long is closed, s."""
    spool_rows: Annotated[int, Field(gt=0)] = 1_000_000
    """Readings kept on disk; beyond it the oldest are dropped and counted."""
    spool_queue: Annotated[int, Field(gt=0)] = 10_000
    """Messages waiting for the disk; beyond it readings are refused with 503."""

    updates: UpdateSettings = UpdateSettings()
    """How releases are fetched."""
    promotion: PromotionSettings = PromotionSettings()
    """How a new release proves itself before and after it serves."""
    ingest: IngestSettings = IngestSettings()
    """How readings are checked and brought together."""
    mqtt: MqttSettings | None = None
    """The broker that the sensors speak to; none: readings come over HTTP alone."""
    upstream: UpstreamSettings | None = None
    """Where readings and prediction records go; none: the newest ``spool_rows`` stay here."""
    monitors: MonitorSettings = MonitorSettings()
    """What is watched."""

    @field_validator("repository", mode="before")
    @classmethod
    def _a_folder(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            msg = "is a folder; an address is given as url in [updates]"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if (self.repository is None) == (self.updates.url is None):
            msg = "give either repository (a folder) or updates.url"
            raise ValueError(msg)
        if (self.tls_certificate is None) != (self.tls_key is None):
            msg = "tls_certificate and tls_key are given together or not at all"
            raise ValueError(msg)
        try:
            loopback = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback and (self.tls_certificate is None or self.token_file is None):
            msg = (
                f"host {self.host} is not a loopback address: that needs tls_certificate, tls_key "
                "and token_file"
            )
            raise ValueError(msg)
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file; relative paths become absolute from the file's folder.

        Raises
        ------
        InvalidConfig
            If the file cannot be read, is not TOML, or a field is wrong; names the field.
        """
        config = super().from_toml(path)
        folder = Path(path).resolve().parent
        paths: dict[str, object] = {
            "repository": config.repository and (folder / config.repository).resolve(),
            "root": (folder / config.root).resolve(),
            "state": (folder / config.state).resolve(),
            "updates": config.updates.within(folder),
            "mqtt": config.mqtt and config.mqtt.within(folder),
            "upstream": config.upstream and config.upstream.within(folder),
            "monitors": config.monitors.within(folder),
        }
        for field in ("unix_socket", "tls_certificate", "tls_key", "token_file"):
            path_given = getattr(config, field)
            if path_given is not None:
                paths[field] = folder / path_given
        return config.model_copy(update=paths)

    @property
    def socket_path(self) -> Path:
        """Absolute path of the Unix socket.

        Raises
        ------
        InvalidConfig
            If the operating system cannot bind so long a path.
        """
        path = (self.unix_socket or self.state / "agent.sock").absolute()
        size = len(str(path).encode())
        if size > SOCKET_PATH_BYTES:
            msg = (
                f"unix_socket: {path} has {size} bytes, a socket path holds {SOCKET_PATH_BYTES}: "
                "set unix_socket to a shorter path, such as /tmp/rbf.sock"
            )
            raise InvalidConfig(msg, field="unix_socket", path=str(path))
        return path
