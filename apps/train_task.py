"""What to train, and what comes of it: the messages of the training stage."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from apps.correction import Correction
from apps.discrepancy import VERSION as DISCREPANCY
from apps.errors import TrainingError
from apps.space import WIND, Space
from apps.surrogates.base import family, family_settings
from edge_agent.contracts.features import FeatureMap, MastAndSensors, MastLogLaw
from edge_agent.contracts.model import Contract, canonical_json, sha256
from edge_agent.contracts.release import Digest, ReadingErrors
from edge_agent.contracts.site import Site
from edge_agent.contracts.site_state import SiteState


class TrainTask(Contract):
    """What to train, and on what."""

    site: Site
    """Whose wind."""
    family: str | tuple[str, ...] = "pod_regression"
    """Surrogate family; of several, each is trained and the best is taken (`apps.choice`)."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the family that differ from its defaults; by family if there are several."""
    digests: tuple[Digest, ...]
    """Training simulations."""
    store: str
    """Folder of simulations."""
    candidates: str
    """Folder that candidates go to."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of every random choice."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of linear algebra; part of the digest, since sums depend on it in the last bit."""
    data_until: datetime | None = None
    """Data time of the newest reading that steered the simulations."""
    correction: Correction | None = None
    """Pairs that correct the simulations; none if they are taken as they are."""
    site_state: SiteState | None = None
    """Estimated state of the house that the simulations were made for; goes into the release."""
    space: Space = WIND
    """What of the state of the house the model takes beside the wind."""
    readings: ReadingErrors | None = None
    """Errors of readings and state, if the model is to take interior sensors too; none if not."""
    previous: Digest | None = None
    """Candidate in the same folder to start from; one that is gone is not missed."""
    served: Digest | None = None
    """Of the model that `previous` serves as: training starts from what devices have, which a delta
    may have rounded; none to start from what was trained."""
    keep_basis: bool = False
    """Whether its POD modes stay and new ones are only added; not without `previous`."""
    selection: tuple[Digest, ...] = ()
    """Selection set, to choose a family by; needed if there are several."""
    latency_limit_ms: Annotated[float, Field(gt=0)] = 5.0
    """Longest time of one answer on one thread of a family that may be chosen, ms."""
    expected_seconds: Annotated[float, Field(ge=0)] = 0.0
    """What the training is expected to take, s; one that cannot go on from a checkpoint is not
    begun in a block that ends before."""

    @property
    def feature_map(self) -> FeatureMap:
        """How readings become the model's inputs."""
        kind = MastLogLaw if self.readings is None else MastAndSensors
        return kind.for_site(self.site)

    @property
    def families(self) -> tuple[str, ...]:
        """Every family asked for."""
        return (self.family,) if isinstance(self.family, str) else self.family

    def digest(self) -> str:
        """Return the candidate's name: sha256 over all that determines it, paths left out.

        Raises
        ------
        TrainingError
            If family or settings do not exist.
        """
        until = self.data_until
        known: dict[str, Any] = {
            "site": self.site.content_digest(),
            **_family_digest(self),
            "digests": sorted(self.digests),
            "seed": self.seed,
            "threads": self.threads,
            "data_until": None if until is None else until.isoformat(),
            "correction": None
            if self.correction is None
            else self.correction.model_dump(mode="json"),
        }
        # Candidates without what follows keep their names.
        if self.previous is not None:
            known |= {"previous": self.previous, "keep_basis": self.keep_basis}
            known |= {} if self.served is None else {"served": self.served}
        for name in ("site_state", "readings"):
            if (value := getattr(self, name)) is not None:
                known[name] = value.model_dump(mode="json")
        if self.correction is not None:
            known["discrepancy"] = DISCREPANCY
        if self.space != WIND:
            known["space"] = self.space.model_dump(mode="json")
        return sha256(canonical_json(known))


class TrainResult(Contract):
    """A candidate that exists."""

    candidate: Digest
    """Its digest."""
    folder: str
    """Where it lies."""
    seconds: float
    """Wall time that its training took, s."""
    simulations: int
    """Training simulations."""
    left_out: float | None = None
    """Error on runs that were left out, relative L2; none if the family does not tell."""
    correction_left_out: float | None = None
    """Error of corrected runs on pairs that were left out, relative L2 of the wind speed; none
    without at least two pairs."""


def _family_digest(task: TrainTask) -> dict[str, Any]:
    if isinstance(task.family, str):
        settings = family_settings(task.family, task.settings)
        return {
            "family": task.family,
            "code_version": family(task.family).version,
            "settings": settings.model_dump(mode="json"),
        }
    unknown = sorted(set(task.settings) - set(task.family))
    if unknown:
        msg = f"settings of {', '.join(unknown)}, which is not among the families"
        raise TrainingError(msg, families=task.family)
    return {
        "family": list(task.family),
        "code_version": [family(n).version for n in task.family],
        "settings": {
            n: family_settings(n, task.settings.get(n, {})).model_dump(mode="json")
            for n in task.family
        },
        "selection": sorted(task.selection),
        "latency_limit_ms": task.latency_limit_ms,
    }
