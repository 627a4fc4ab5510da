"""Check a whole repository as a device would: through python-tuf's own client."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pydantic
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Targets
from tuf.ngclient import FetcherInterface, Updater

from apps.errors import PublishError
from apps.repository import chain, reading
from apps.repository.store import Store
from edge_agent.contracts.release import Release, TargetFile
from edge_agent.contracts.repository import METADATA, TARGETS, Index

#: What the client takes for a URL; the rest is a path in the store.
BASE = "store://"
NOT_FOUND = 404


@dataclass
class Report:
    """What was found."""

    files: int = 0
    """Targets whose bytes were read and are right."""
    bytes: int = 0
    """Of these."""
    expires: dict[str, datetime] = field(default_factory=dict)
    """When each role's signature ends."""
    problems: list[str] = field(default_factory=list)
    """What is wrong; empty if nothing is."""


class StoreFetcher(FetcherInterface):
    """Lets python-tuf's client read a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(BASE)
        try:
            data = self._store.read(path)
        except FileNotFoundError as error:
            msg = f"{path}: not found"
            raise DownloadHTTPError(msg, NOT_FOUND) from error
        except OSError as error:
            raise DownloadError(str(error)) from error
        yield data


def verify(store: Store, anchor: bytes | None, *, now: datetime | None = None) -> Report:
    """Read every file of a repository and compare it with what is signed.

    Parameters
    ----------
    store : Store
    anchor : bytes or None
        First root to trust; by default the one that is there.
    now : datetime, optional
        For the expiry dates; by default the present.

    Returns
    -------
    Report
        With every problem; nothing is raised for what is found.
    """
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        try:
            first = store.read(chain.versioned(1, "root"))
            if anchor is not None and first != anchor:
                report.problems.append("the first root is not the trusted one")
            client = _client(store, anchor or first, Path(folder))
            trusted = client._trusted_set
            if now is not None:
                trusted.reference_time = now
            client.refresh()
            for role in ("root", "targets", "snapshot", "timestamp"):
                report.expires[role] = trusted[role].expires
        except (RepositoryError, DownloadError, OSError) as error:
            report.problems.append(f"metadata: {error}")
            return report
        targets: Targets = trusted.targets
        for path in sorted(targets.targets):
            _check_target(client, path, Path(folder) / "target", report)
    for name in _names(store, anchor, report):
        _check_releases(store, name, targets, report)
    return report


def _client(store: Store, root: bytes, folder: Path) -> Updater:
    (folder / "metadata").mkdir()
    return Updater(
        str(folder / "metadata"),
        f"{BASE}{METADATA}/",
        target_base_url=f"{BASE}{TARGETS}/",
        fetcher=StoreFetcher(store),
        bootstrap=root,
    )


def _check_target(client: Updater, path: str, place: Path, report: Report) -> None:
    try:
        info = client.get_targetinfo(path)
        if info is not None:
            client.download_target(info, str(place))
            report.files += 1
            report.bytes += info.length
    except (RepositoryError, DownloadError, OSError) as error:
        report.problems.append(f"{path}: {error}")


def _names(store: Store, anchor: bytes | None, report: Report) -> list[str]:
    try:
        state = chain.load(store, anchor)
    except (PublishError, OSError) as error:
        report.problems.append(str(error))
        return []
    if not state.complete:
        report.problems.append("a publisher was killed; rbf-repo refresh completes what it began")
    return reading.names(state.targets)


def _check_releases(store: Store, name: str, targets: Targets, report: Report) -> None:
    """Check that what index and manifests name is signed as they name it."""
    try:
        index: Index = reading.open_index(store, name)
        for ref in index.releases:
            _check_listed(targets, ref.manifest, report)
            release = reading.read_release(store, index, ref.version)
            _check_release(release, ref.version, index, targets, report)
    except (PublishError, OSError, pydantic.ValidationError) as error:
        report.problems.append(f"{name}: {error}")


def _check_release(
    release: Release, version: int, index: Index, targets: Targets, report: Report
) -> None:
    if (release.name, release.version) != (index.name, version):
        found = f"{release.name} version {release.version}"
        report.problems.append(f"{index.name} version {version}: its manifest is of {found}")
    lineage = release.provenance.lineage if release.provenance else None
    for file in (*release.files(), *((lineage,) if lineage else ())):
        _check_listed(targets, file, report)


def _check_listed(targets: Targets, file: TargetFile, report: Report) -> None:
    signed = targets.targets.get(file.path)
    if signed is None or (signed.length, signed.hashes.get("sha256")) != (file.length, file.sha256):
        report.problems.append(f"{file.path}: not signed as the manifests name it")
