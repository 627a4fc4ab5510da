"""Sections of the agent's configuration file: promotion, upstream, MQTT, readings, monitors."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edge_agent.contracts.model import Contract

Seconds = Annotated[float, Field(gt=0)]


class Section(Contract):
    """A section of the file; its relative paths are relative to the file's folder."""

    def within(self, folder: Path) -> Self:
        """Return the section with absolute paths."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        paths = {name: folder / value for name, value in values if isinstance(value, Path)}
        return self.model_copy(update=paths)


class PromotionSettings(Section):
    """``[promotion]``: how a release proves itself; the rules are in `edge_agent.trial`."""

    shadow_predictions: Annotated[int, Field(ge=0)] = 100
    """Live predictions on which a new release is compared with the active one before it serves; 0:
    it serves as soon as it is checked, as the first release always does."""
    shadow_seconds: Seconds = 3600.0
    """Longest time in the shadow, s: a quiet site gets its updates too."""
    soak_seconds: Seconds = 3600.0
    """How long the release before stays at hand and the new one can be rolled back by itself, s."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Runs that may fail or give a value that is not finite, on inputs that the other release
    answers."""
    latency_ms: Annotated[float, Field(gt=0)] = 50.0
    """A run takes too long beyond this and twice the other release's time, ms."""
    accuracy: Annotated[float, Field(ge=0)] = 0.1
    """By so much a release's mean absolute error at the interior sensors may be larger than the
    other's, m/s."""
    disagreement: Annotated[float, Field(gt=0)] = 3.0
    """Largest mean relative difference from the active release, in sums of the two releases'
    ``relative_l2`` on their selection sets; counts where no interior sensor tells who is right."""


class UpstreamSettings(Section):
    """``[upstream]``: where batches of readings and prediction records go."""

    folder: Path | None = None
    """A folder that the receiving end empties, such as a mounted share."""
    url: str | None = None
    """Address of the receiving end, such as ``https://hpc.example.org/rbf/v1/observations``;
    plain HTTP on loopback only."""
    token_file: Path | None = None
    """File with the token that the receiving end asks for; needed beyond loopback."""
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = 2000
    """A batch is cut when so many readings are in none."""
    batch_seconds: Seconds = 60.0
    """A batch is cut at least so often while anything waits, s."""
    batch_bytes: Annotated[int, Field(ge=2**16)] = 256 * 2**20
    """Batches kept on disk while upstream cannot be reached, bytes compressed; a reading takes
    about 11. Beyond it readings wait as rows."""
    retry_seconds: Seconds = 1.0
    """Pause after the first failed delivery, s; it doubles."""
    retry_max_seconds: Seconds = 60.0
    """Longest pause between deliveries, s."""
    timeout_seconds: Seconds = 20.0
    """For one delivery, s."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.folder is None) == (self.url is None):
            msg = "give either folder or url"
            raise ValueError(msg)
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                msg = f"url {self.url!r} is neither http:// nor https://"
                raise ValueError(msg)
            if not is_loopback(parts.hostname) and not (
                parts.scheme == "https" and self.token_file is not None
            ):
                msg = f"{parts.hostname} is not loopback: use https:// and a token_file"
                raise ValueError(msg)
        return self


class UpdateSettings(Section):
    """``[updates]``: how releases are fetched."""

    url: str | None = None
    """Address of the repository, such as ``https://hpc.example.org/rbf/``, if it is no folder; what
    comes is verified whatever the link, so plain HTTP will do too, without a token."""
    token_file: Path | None = None
    """File with the token that the server asks for."""
    ca_file: Path | None = None
    """Certificate of the server's authority, PEM; the system's if none."""
    retry_seconds: Seconds = 1.0
    """Pause after the first look that failed, s; it doubles."""
    retry_max_seconds: Seconds = 300.0
    """Longest pause between looks that fail, s; it is tried for ever."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the poll interval by which looks are spread, so that devices do not come at once."""
    read_seconds: Seconds = 20.0
    """Longest silence of the server, s."""
    min_bytes_per_second: Annotated[float, Field(gt=0)] = 1000.0
    """A download slower than this, on the whole, is stopped; the next look resumes it, bytes/s."""
    reserve_bytes: Annotated[int, Field(ge=0)] = 32 * 2**20
    """Free disk space that a download leaves to the rest of the device, bytes."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.url is None:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"url {self.url!r} is neither http:// nor https://"
            raise ValueError(msg)
        bare = parts.scheme == "http" and not is_loopback(parts.hostname)
        if bare and self.token_file is not None:
            msg = f"{parts.hostname} is not loopback: a token goes over https:// alone"
            raise ValueError(msg)
        return self

    def time_limit(self, length: int) -> float:
        """Return how long a request for so many bytes may take, s."""
        return self.read_seconds + length / self.min_bytes_per_second


class MqttSettings(Section):
    """``[mqtt]``: the broker that the sensors speak to."""

    host: str = "127.0.0.1"
    """The broker; beyond loopback TLS and a password are needed."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """Its port; 8883 is usual with TLS."""
    tls: bool = False
    """Whether to use TLS."""
    ca_file: Path | None = None
    """Certificate of the broker's authority; the system's if none."""
    username: str | None = None
    """Name at the broker."""
    password_file: Path | None = None
    """File with the password."""
    client_id: str | None = None
    """Name of this client; the broker lets one of each in. ``rbf-agent-SITE`` if none."""
    keepalive_seconds: Annotated[int, Field(ge=1, le=65535)] = 15
    """The broker is asked for a sign of life after so long a silence, s."""
    retry_seconds: Seconds = 0.2
    """Pause before connecting again, s; it doubles."""
    retry_max_seconds: Seconds = 10.0
    """Longest pause, s."""
    max_waiting: Annotated[int, Field(ge=1)] = 5000
    """Messages taken from the broker that wait for the disk; beyond it they are dropped without
    a receipt, and their senders repeat them."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        guarded = self.tls and self.username is not None and self.password_file is not None
        if not is_loopback(self.host) and not guarded:
            msg = f"{self.host} is not loopback: set tls, username and password_file"
            raise ValueError(msg)
        return self


class IngestSettings(Section):
    """``[ingest]``: how readings are checked and brought together."""

    ahead_seconds: Seconds = 120.0
    """A data time this far ahead of our clock is refused as clock skew, s. Old ones are taken:
    they come late, or from a replay."""
    gap_seconds: Seconds = 1500.0
    """Silence of a sensor in data time that counts as a gap, s; the mast's interval is 600."""
    stuck_count: Annotated[int, Field(ge=2)] = 6
    """So many equal values of a sensor in a row, and it counts as stuck; see docs/observations.md
    for the longest runs of the mast record."""
    hold_seconds: Seconds = 1800.0
    """How long the last value of a missing or stuck sensor of the mast stands in for it, and an
    interior sensor that is missing is waited for in each set, in data time, s."""
    wait_seconds: Seconds = 5.0
    """How long an incomplete set of readings waits for the rest, wall time, s."""


class MonitorSettings(Section):
    """``[monitors]``: what is watched, and how alarms are tuned."""

    calibration: Path | None = None
    """What the monitors are tuned by (docs/monitors.md); without it only staleness and range are
    watched."""
    signatures: Path | None = None
    """Simulated tears (`apps.signatures`), for the tear detector."""
    staleness_seconds: Seconds = 7 * 86400.0
    """Age of the data behind the active release that raises an alarm, s of data time."""
    out_of_range_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the last day's predictions outside the trained range that raises an alarm."""


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
