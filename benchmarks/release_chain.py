"""Releases as the campaign makes them, one after the other, from simulations made once.

The stages and the rules of what they are told (`workflows.tasks`) are the campaign's own; only what
happens when is fixed: a training at each of the given numbers of runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from apps.publish import PublishResult, publish
from apps.repository.objects import open_store
from apps.repository.roots import init
from apps.simulate import SimulateTask, simulate
from apps.simulators.base import Fidelity, Resources
from apps.train import train
from apps.transport import Serving, read_serving
from apps.validate import validate
from edge_agent.contracts.release import Release
from edge_agent.contracts.repository import target_file
from edge_agent.contracts.site import Site
from workflows.config import SITES, Campaign, FrozenSizes, Training
from workflows.decisions import FROZEN
from workflows.layout import RunFolder
from workflows.ledger import CandidateRow, Ledger, Role
from workflows.steering import cover
from workflows.tasks import publication_task, simulation_name, training_task, validation_task

#: The quick campaign's grid: a run in a fifth of a second.
FIDELITY = Fidelity(simulator="embedded", cells=(32, 20, 8))
RESOURCES = Resources(threads=1, batch=8)
FROZEN_SIZE = 16
SITE = "lindcove"


class Made(NamedTuple):
    """A candidate that was validated, and published if the gate took it."""

    simulations: int
    """Training runs."""
    serving: Serving
    """How it travels."""
    folder: Path
    """Of the candidate."""
    selection: float
    """RMSE on the selection set, m/s, as it serves; not a number if a prediction is not finite."""
    train_seconds: float
    accepted: bool
    reasons: tuple[str, ...]


class Chain:
    """The releases of one family in a signed repository.

    Parameters
    ----------
    root : Path
        A folder of its own.
    store : Path
        Folder of simulations that chains share.
    family : str
    settings : dict
        Of the family, where they differ from its defaults.
    """

    def __init__(self, root: Path, store: Path, family: str, settings: dict[str, Any]) -> None:
        self.site = Site.from_toml(SITES / f"{SITE}.toml")
        self.campaign = Campaign(
            name="update-path",
            seed=2026,
            fidelity=FIDELITY,
            resources=RESOURCES,
            frozen=FrozenSizes(
                selection=FROZEN_SIZE, calibration=FROZEN_SIZE, evaluation=FROZEN_SIZE
            ),
            training=Training(family=family, settings={family: settings} if settings else {}),
        )
        root.mkdir(parents=True)
        (root / "simulations").symlink_to(store.resolve())
        self.folder = RunFolder(root)
        self.ledger = Ledger(self.folder.ledger, "update-path")
        self.repository = self.folder.repository
        init(open_store(str(self.repository)), self.folder.keys, [self.folder.root_keys])
        self._runs = 0
        for role in FROZEN:
            self._simulate(role, 0, FROZEN_SIZE)

    def train(self, runs: int) -> Made:
        """Train on the first `runs` simulations and validate."""
        self._simulate("training", self._runs, runs - self._runs)
        self._runs = runs
        task = training_task(self.campaign, self.site, self.folder, self.ledger)
        number = self.ledger.add_candidate(task.model_dump(mode="json"))
        trained = train(task)
        self.ledger.update_candidate(number, "trained", folder=trained.folder)
        row = self._row(number)
        check = validation_task(self.campaign, self.site, self.folder, self.ledger, row)
        result = validate(check)
        self.ledger.update_candidate(number, "accepted" if result.verdict.accepted else "refused")
        return Made(
            simulations=runs,
            serving=read_serving(Path(trained.folder)),
            folder=Path(trained.folder),
            selection=result.scores["selection"].rmse if result.scores else float("nan"),
            train_seconds=trained.seconds,
            accepted=result.verdict.accepted,
            reasons=result.verdict.reasons,
        )

    def publish(self) -> PublishResult:
        """Publish the last candidate."""
        number = self.ledger.candidates()[-1].number
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.ledger.reserve_version(number, now)
        result = publish(publication_task(self.site, self.folder, self._row(number)))
        self.ledger.update_candidate(
            number, "published", version=result.version, published_at=time.time()
        )
        return result

    def release(self, result: PublishResult) -> Release:
        """Return the manifest of a published release."""
        path = target_file(self.repository, result.manifest)
        return Release.model_validate(json.loads(path.read_bytes()))

    def _row(self, number: int) -> CandidateRow:
        return next(c for c in self.ledger.candidates() if c.number == number)

    def _simulate(self, role: Role, first: int, count: int) -> None:
        """Make simulations that are not in the store yet, and write all into the ledger."""
        speeds = self.campaign.scenarios.wind_speed
        scenarios = cover(role, first, count, self.campaign.seed, speeds)
        named = [simulation_name(self.campaign, self.site, s, role) for s in scenarios]
        numbers = range(first, first + count)
        self.ledger.plan(role, list(zip(numbers, named, scenarios, strict=True)), None)
        for start in range(0, count, RESOURCES.batch):
            batch = scenarios[start : start + RESOURCES.batch]
            outcomes = simulate(
                SimulateTask(
                    site=self.site,
                    scenarios=tuple(batch),
                    fidelity=FIDELITY,
                    resources=RESOURCES,
                    store=str(self.folder.simulations),
                )
            ).outcomes
            failed = [o.detail for o in outcomes if o.status != "finished"]
            if failed:
                raise SystemExit(f"a simulation failed: {failed[0]}")
        for digest in named:
            self.ledger.finish(digest, 0.0)


def growing(first: int, growth: float, most: int) -> Sequence[int]:
    """Return the numbers of runs at which a campaign trains."""
    sizes = [first]
    while (following := int(-(-sizes[-1] * growth // 1))) <= most:
        sizes.append(following)
    return sizes
