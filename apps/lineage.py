"""Where a release comes from, down to the simulations.

A release's lineage is a target of its own, ``NAME/VERSION/lineage.json``: signed like the model,
named in the manifest, and not downloaded by devices.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from apps.correction import Correction
from apps.datasets import read_attributes, read_ensemble, simulation_path
from apps.errors import DatasetError
from apps.scenarios import Scenario
from edge_agent.contracts.model import Contract
from edge_agent.contracts.release import Digest, FrozenSet

Use = Literal["training", "correction", "selection", "calibration", "evaluation"]


class SimulationRecord(Contract):
    """What one simulation is, without its fields."""

    scenario: Scenario
    """Its boundary conditions."""
    solver: str
    """Name of the simulator."""
    solver_version: str
    """Declared by it."""
    fidelity: dict[str, Any]
    """Grid and tolerances."""
    versions: dict[str, str]
    """Versions of the software that ran."""
    converged: bool
    """Whether the residual fell below the tolerance."""


class Lineage(Contract):
    """``lineage.json``."""

    format: Literal["rbf-lineage/1"] = "rbf-lineage/1"
    """Version of this contract."""
    name: str
    """Model name."""
    version: Annotated[int, Field(ge=1)]
    """The release's."""
    sets: dict[Use, tuple[Digest, ...]]
    """Simulations by what they were used for; sets whose members are not at hand are left out."""
    simulations: dict[Digest, SimulationRecord] = Field(default_factory=dict)
    """Those whose files were at hand when the release was published."""


def read_lineage(
    run: Path,
    name: str,
    version: int,
    training: tuple[str, ...],
    correction: Correction | None,
    frozen: Mapping[Literal["selection", "calibration", "evaluation"], FrozenSet],
) -> Lineage:
    """Return the lineage of a candidate.

    Parameters
    ----------
    run : Path
        Folder with ``simulations/`` and ``ensembles/``; what it lacks is left out.
    name, version
        Of the release.
    training : tuple of str
        Digests of the training simulations.
    correction : Correction or None
        Pairs that corrected them.
    frozen : mapping
        The frozen sets.
    """
    sets: dict[Use, tuple[str, ...]] = {"training": training}
    if correction is not None:
        sets["correction"] = (*correction.low, *correction.high)
    for use, members in frozen.items():
        try:
            sets[use] = read_ensemble(run / "ensembles", members.digest)
        except DatasetError:
            continue
    records = {}
    for digest in sorted({digest for digests in sets.values() for digest in digests}):
        try:
            attrs = read_attributes(simulation_path(run / "simulations", digest))
        except DatasetError:
            continue
        records[digest] = SimulationRecord(
            scenario=Scenario.model_validate_json(attrs["scenario"]),
            solver=attrs["solver"],
            solver_version=attrs["solver_version"],
            fidelity=attrs["fidelity"],
            versions=attrs["versions"],
            converged=attrs["converged"],
        )
    return Lineage(name=name, version=version, sets=sets, simulations=records)


def code_version() -> str:
    """Return the version of this code: the package's, and in a git checkout the commit."""
    try:
        package = version("reverse-backfill")
    except PackageNotFoundError:
        package = "unknown"
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return package
    return f"{package} {done.stdout.strip()}"
