"""Recompute a published release's scores from the files of its run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import pydantic
import typer

from apps.answers import Answer, answering
from apps.candidates import CANDIDATE, Candidate
from apps.correction import Correction, load_truth
from apps.errors import RepositoryDamaged, StageError, ValidationError
from apps.gate import PREVIOUS, GateSettings
from apps.repository.reading import open_index
from apps.repository.store import FolderStore
from apps.space import space_of_columns
from apps.validate import assess
from edge_agent.contracts.errors import DigestMismatch, RbfError
from edge_agent.contracts.model import Contract, sha256
from edge_agent.contracts.release import Release, ScoreSet, TargetFile
from edge_agent.contracts.repository import TARGETS, Index, target_file
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet

#: Relative difference that another machine's arithmetic may make.
TOLERANCE = 1e-4

M = TypeVar("M", bound=Contract)


@dataclass(frozen=True)
class Row:
    """One number of the manifest, and what the files give."""

    name: str
    manifest: float | None
    recomputed: float | None

    @property
    def agrees(self) -> bool:
        """Whether they are equal within `TOLERANCE`."""
        if self.manifest is None or self.recomputed is None:
            return self.manifest is self.recomputed
        return abs(self.manifest - self.recomputed) <= TOLERANCE * max(abs(self.manifest), 1e-6)


@dataclass(frozen=True)
class Report:
    """Every number side by side."""

    name: str
    version: int
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether every number does."""
        return all(row.agrees for row in self.rows)

    def table(self) -> str:
        """Return the report as text."""
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{self.name} version {self.version}",
            f"{'':{width}}  {'manifest':>12}  {'recomputed':>12}",
        ]
        for row in self.rows:
            numbers = "  ".join(
                f"{'-' if v is None else format(v, '.6g'):>12}"
                for v in (row.manifest, row.recomputed)
            )
            lines.append(f"{row.name:{width}}  {numbers}{'' if row.agrees else '  DIFFERS'}")
        lines.append("agrees" if self.agrees else "does not agree")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the report as JSON."""
        rows = {
            r.name: {"manifest": r.manifest, "recomputed": r.recomputed, "agrees": r.agrees}
            for r in self.rows
        }
        report = {"name": self.name, "version": self.version, "agrees": self.agrees, "scores": rows}
        return json.dumps(report, indent=1)


def rescore(
    path: Path,
    *,
    version: int | None = None,
    run: Path | None = None,
    store: Path | None = None,
    site_file: Path | None = None,
) -> Report:
    """Score a release again, from the simulations that its digests name.

    Parameters
    ----------
    path : Path
        A manifest below ``REPOSITORY/targets/``, or a repository folder.
    version : int, optional
        Which release of a repository folder; the newest if none.
    run : Path, optional
        Folder with ``simulations/``, ``ensembles/`` and ``candidates/``; found above `path`.
    store : Path, optional
        Folder of simulations, if it is not the run's.
    site_file : Path, optional
        The site's TOML file; if none, the site is taken from the run's candidates.

    Raises
    ------
    DigestMismatch
        If manifest or model are not what their names or the manifest promise.
    ValidationError
        If a file that is needed is not there; says which.
    DatasetError
        If a simulation or a set of them cannot be read.
    """
    from apps.datasets import read_ensemble

    repository, release, index = _find(path.resolve(), version)
    folder = run or _run_folder(repository)
    store, ensembles = store or folder / "simulations", folder / "ensembles"
    site = _site(folder, release, site_file)
    if site.content_digest() != release.site_digest:
        msg = f"site {site.name} is not the one that the release was made for"
        raise ValidationError(msg, site=site.name)
    previous = None
    if any(PREVIOUS in s.baselines for s in release.scores.values()):
        before = [r for r in index.releases if r.version < release.version]
        if not before:
            msg = f"{repository}: the release before version {release.version} is missing"
            raise ValidationError(msg, file=str(repository))
        manifest = _parse(Release, _read(repository, before[-1].manifest), str(repository))
        previous = _answering(_read(repository, manifest.model), manifest, release, site)

    correction = _correction(folder, release)
    space = space_of_columns(site, [v.name for v in release.inputs])

    def truth(digest: str, corrected: bool = True) -> SimulationSet:
        fix = correction if corrected else None
        return load_truth(store, read_ensemble(ensembles, digest), site, fix, space)

    frozen = {n: truth(f.digest, f.corrected) for n, f in release.frozen_sets.items()}
    found = assess(
        site,
        truth(release.training.digest),
        frozen,
        _answering(_read(repository, release.model), release, release, site),
        previous,
        release.uncertainty.level,
        GateSettings(),
        same_solver=all(f.corrected for f in release.frozen_sets.values()),
    )
    rows = [Row("interval factor", release.uncertainty.factor, found.factor)]
    for name, limit in release.uncertainty.limits.items():
        rows.append(Row(f"limit of {name}", limit, found.limits.get(name)))
    for name, stated in release.scores.items():
        again = _numbers(found.scores.get(name))
        numbers = _numbers(stated)
        keys = [*numbers, *(k for k in again if k not in numbers)]
        rows += [Row(f"{name} {key}", numbers.get(key), again.get(key)) for key in keys]
    return Report(release.name, release.version, tuple(rows))


def _answering(model: bytes, of: Release, judged: Release, site: Site) -> Answer:
    """Return what a release's model answers under the errors that another one is judged by."""
    return answering(model, [v.name for v in of.inputs], site, judged.reading_errors)


def _numbers(scores: ScoreSet | None) -> dict[str, float | None]:
    if scores is None:
        return {}
    own = scores.model_dump(exclude={"baselines"})
    return own | {f"rmse of {name}": value for name, value in scores.baselines.items()}


def _find(path: Path, version: int | None) -> tuple[Path, Release, Index]:
    """Return repository folder, release and index."""
    if path.is_dir():
        index = _index(path)
        chosen = [r for r in index.releases if version is None or r.version == version]
        if not chosen:
            msg = f"{path}: no release{'' if version is None else f' of version {version}'}"
            raise ValidationError(msg, version=version)
        data = _read(path, chosen[-1].manifest)
        return path, _parse(Release, data, str(path)), index
    data = _bytes(path)
    # The stored name starts with the digest: an altered manifest gives itself away.
    if path.name.partition(".")[0] != sha256(data):
        msg = f"{path} is altered: its sha256 is not the one in its name"
        raise DigestMismatch(msg, path=str(path))
    repository = next((p.parent for p in path.parents if p.name == TARGETS), None)
    if repository is None:
        msg = f"{path}: not below a repository's {TARGETS}/ folder"
        raise ValidationError(msg, file=str(path))
    release = _parse(Release, data, str(path))
    return repository, release, _index(repository, release.name)


def _index(repository: Path, name: str | None = None) -> Index:
    return open_index(FolderStore(repository), name)


def _run_folder(repository: Path) -> Path:
    for folder in repository.parents:
        if (folder / "simulations").is_dir() and (folder / "ensembles").is_dir():
            return folder
    msg = f"no folder with simulations/ and ensembles/ above {repository}; give --run"
    raise ValidationError(msg, repository=str(repository))


def _candidates(run: Path) -> Iterator[Candidate]:
    for path in sorted((run / "candidates").glob(f"*/{CANDIDATE}")):
        yield _parse(Candidate, _bytes(path), str(path))


def _correction(run: Path, release: Release) -> Correction | None:
    wanted = release.training.correction
    if wanted is None:
        return None
    for candidate in _candidates(run):
        if candidate.correction is not None and candidate.correction.content_digest() == wanted:
            return candidate.correction
    msg = f"no candidate in {run / 'candidates'} has the release's correction {wanted}"
    raise ValidationError(msg, run=str(run))


def _site(run: Path, release: Release, site_file: Path | None) -> Site:
    if site_file is not None:
        return Site.from_toml(site_file)
    for candidate in _candidates(run):
        if candidate.site.content_digest() == release.site_digest:
            return candidate.site
    msg = f"no candidate in {run / 'candidates'} is of the release's site; give --site"
    raise ValidationError(msg, run=str(run))


def _read(repository: Path, target: TargetFile) -> bytes:
    path = target_file(repository, target)
    data = _bytes(path)
    if sha256(data) != target.sha256:
        msg = f"{path} is altered: its sha256 is not {target.sha256}"
        raise DigestMismatch(msg, path=str(path))
    return data


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise ValidationError(msg, file=str(path)) from error


def _parse(model: type[M], data: bytes, name: str) -> M:
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"{name}: not a valid {model.__name__}: {field}: {first['msg']}"
        raise ValidationError(msg, file=name) from error


def recompute(
    release: Annotated[Path, typer.Argument(help="A release manifest, or a repository folder.")],
    version: Annotated[
        int | None, typer.Option(help="In a repository folder; the newest if not given.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder; found above RELEASE if not given.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of simulations.")] = None,
    site: Annotated[
        Path | None, typer.Option(help="Site file; taken from RUN/candidates if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Recompute the scores of a published release from its files.

    Exits with 0 if they are what the manifest says, 1 if they are not or a file is altered, 2 if
    something is missing.
    """
    try:
        report = rescore(release, version=version, run=run, store=store, site_file=site)
    except (DigestMismatch, RepositoryDamaged) as error:
        typer.echo(f"differs: {error}", err=True)
        raise typer.Exit(1) from None
    except (RbfError, OSError) as error:
        kind = "" if isinstance(error, StageError) else f"{type(error).__name__}: "
        typer.echo(f"cannot recompute: {kind}{error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(report.to_json() if as_json else report.table())
    raise typer.Exit(0 if report.agrees else 1)


def main() -> None:
    """Run ``python -m apps.validate``."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(recompute)
    app(prog_name="python -m apps.validate")
