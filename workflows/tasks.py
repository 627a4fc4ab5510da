"""The tasks of a candidate's stages, made from what the ledger holds."""

from __future__ import annotations

import statistics
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from apps.correction import Correction
from apps.datasets import write_ensemble
from apps.publish import PublishTask
from apps.scenarios import Scenario
from apps.simulators.base import Case, Fidelity, Resources, simulation_digest
from apps.simulators.registry import solver_version
from apps.surrogates.base import family
from apps.train import TrainTask
from apps.transport import Base, full_due, read_serving
from apps.validate import ValidateTask
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState
from workflows.backlog import training_estimate
from workflows.config import Campaign
from workflows.decisions import FROZEN, REFERENCE
from workflows.errors import LedgerError
from workflows.fidelity_choice import Level
from workflows.following import moved
from workflows.layout import RunFolder
from workflows.ledger import CandidateRow, Ledger, Role, SimulationRow

T = TypeVar("T")


def made_with(campaign: Campaign, role: Role) -> tuple[Fidelity, Resources]:
    """Return solver, grid and resources of a role's simulations."""
    settings = campaign.reference if is_dear(campaign, role) else campaign
    return settings.fidelity, settings.resources


def is_dear(campaign: Campaign, role: Role) -> bool:
    """Return whether the dearer simulator runs a role."""
    if not campaign.corrected:
        return False
    return role in REFERENCE or (role in FROZEN and campaign.reference.frozen)


def simulation_name(campaign: Campaign, site: Site, scenario: Scenario, role: Role) -> str:
    """Return the digest of a role's simulation of a scenario."""
    fidelity, resources = made_with(campaign, role)
    version = solver_version(fidelity.simulator)
    return simulation_digest(Case(site, scenario, fidelity), resources, version)


def training_task(
    campaign: Campaign,
    site: Site,
    folder: RunFolder,
    ledger: Ledger,
    state: SiteState | None = None,
) -> TrainTask:
    """Return a training on every training simulation that is done; writes its manifest.

    Parameters
    ----------
    campaign, site, folder, ledger
    state : SiteState, optional
        Estimated state of the house, for surrogates that take it.
    """
    space = campaign.scenarios.space(site)
    rows = [row for row in ledger.simulations() if row.role == "training" and row.state == "done"]
    digests = tuple(sorted(row.digest for row in rows))
    write_ensemble(folder.ensembles, digests)
    newest = max((row.data_until for row in rows if row.data_until), default=None)
    rules, one = campaign.training, isinstance(campaign.training.family, str)
    return TrainTask(
        site=site,
        family=rules.family,
        settings=rules.settings.get(str(rules.family), {}) if one else rules.settings,
        digests=digests,
        store=str(folder.simulations),
        candidates=str(folder.candidates),
        seed=campaign.seed,
        threads=campaign.resources.threads,
        data_until=None if newest is None else datetime.fromisoformat(newest),
        correction=correction(ledger, "reference") if campaign.corrected else None,
        site_state=state if space.columns else None,
        space=space,
        readings=rules.readings,
        expected_seconds=training_estimate(ledger.candidates()),
        **_start(campaign, ledger),
        selection=() if one else _done(ledger.simulations(), "selection"),
        latency_limit_ms=rules.latency_limit_ms,
    )


def _start(campaign: Campaign, ledger: Ledger) -> dict[str, Any]:
    """Return what to start from: the release, as it serves.

    Until the next full file its POD basis stays: only so are differences small.
    """
    rules = campaign.training
    names = (rules.family,) if isinstance(rules.family, str) else rules.family
    networks = any(family(name).resumable for name in names)
    published = [c for c in ledger.candidates() if c.state == "published"]
    if not published or (networks and not rules.warm_start):
        return {}
    folder = Path(required(published[-1].folder))
    serving = read_serving(folder)
    keep = not full_due(serving, campaign.delta)
    # Where only the state has moved, the model before is taken as it is.
    follows = campaign.scenarios.screen_loss_factor is not None
    if not (networks or keep or follows):
        return {}
    return {"previous": folder.name, "served": serving.model_sha256, "keep_basis": keep}


def validation_task(
    campaign: Campaign, site: Site, folder: RunFolder, ledger: Ledger, candidate: CandidateRow
) -> ValidateTask:
    """Return the validation of a trained candidate; writes the frozen sets' manifests."""
    rows = ledger.simulations()
    sets = {role: _done(rows, role) for role in FROZEN}
    for digests in sets.values():
        write_ensemble(folder.ensembles, digests)
    published = [c for c in ledger.candidates() if c.state == "published"]
    previous = published[-1] if published else None
    return ValidateTask(
        site=site,
        candidate=required(candidate.folder),
        store=str(folder.simulations),
        frozen_sets=sets,
        previous=None if previous is None else _base(previous),
        delta=campaign.delta,
        fidelity=fidelity_text(campaign),
        frozen_corrected=not campaign.reference.frozen,
        level=campaign.training.interval_level,
        min_improvement=campaign.training.min_improvement,
        state_moved=previous is not None
        and moved(state_of(candidate) or SiteState(), state_of(previous), campaign.following.step),
    )


def state_of(candidate: CandidateRow) -> SiteState | None:
    """Return the state of the house that a candidate was made for; none if as in the site file."""
    known = candidate.task.get("site_state")
    return None if known is None else SiteState.model_validate(known)


def _base(row: CandidateRow) -> Base:
    return Base(folder=required(row.folder), version=required(row.version))


def correction(ledger: Ledger, role: Role) -> Correction | None:
    """Return the pairs of runs of both simulators, by the dearer one's role; none if none is done.

    A training run is the cheap half of a pair whose scenario was taken from it.
    """
    done = [row for row in ledger.simulations() if row.state == "done"]
    cheap = {row.scenario: row.digest for row in done if row.role in ("paired", "training")}
    pairs = sorted(
        (cheap[row.scenario], row.digest)
        for row in done
        if row.role == role and row.scenario in cheap
    )
    if not pairs:
        return None
    return Correction(low=tuple(p[0] for p in pairs), high=tuple(p[1] for p in pairs))


def fidelity_text(campaign: Campaign) -> str:
    """Return what made the frozen sets, for the release manifest."""
    text = str(campaign.fidelity)
    if not campaign.corrected:
        return text
    reference = campaign.reference
    if reference.frozen:
        return str(reference.fidelity)
    return f"{text} corrected by {reference.pairs} runs of {reference.fidelity}"


def levels(rows: list[SimulationRow], candidates: list[CandidateRow]) -> tuple[Level, Level]:
    """Return what is known of the surrogate's error and of its correction's, and what runs cost."""
    trained = [c for c in candidates if "left_out" in c.result]
    newest = trained[-1].result if trained else {}

    def level(role: Role, runs: int, error: float | None) -> Level:
        spent = [row.seconds for row in rows if row.role == role and row.seconds]
        return Level(error, runs, statistics.mean(spent) if spent else None)

    runs = len(trained[-1].task["digests"]) if trained else 0
    pairs = pairs_of(trained[-1]) if trained else 0
    return (
        level("training", runs, newest.get("left_out")),
        level("reference", pairs, newest.get("correction_left_out")),
    )


def pairs_of(candidate: CandidateRow) -> int:
    """Return the pairs of runs behind a candidate's correction."""
    return len((candidate.task.get("correction") or {}).get("low", ()))


def publication_task(site: Site, folder: RunFolder, row: CandidateRow) -> PublishTask:
    """Return the publication of an accepted candidate that has its version."""
    return PublishTask(
        site=site,
        version=required(row.version),
        candidate=required(row.folder),
        repository=str(folder.repository),
        keys=str(folder.keys),
        created=datetime.fromisoformat(required(row.created)),
    )


def required(value: T | None) -> T:
    """Return a field that the ledger holds from an earlier state on.

    Raises
    ------
    LedgerError
        If it does not.
    """
    if value is None:
        msg = "the ledger lacks what an earlier state must have written"
        raise LedgerError(msg)
    return value


def _done(rows: list[SimulationRow], role: Role) -> tuple[str, ...]:
    return tuple(sorted(row.digest for row in rows if row.role == role and row.state == "done"))
