"""The training runs as every family of networks sees them: features, fields, folds, weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import torch
from pydantic import Field

from apps.surrogates.base import WarmStart, check_training_data
from apps.surrogates.network import Features
from apps.surrogates.optimise import Plan
from apps.surrogates.state_features import StateFeatures
from apps.surrogates.symmetry import IDENTITY, Mirror, symmetries
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet


class NetworkSettings(Contract):
    """Settings that all families of networks have."""

    members: Annotated[int, Field(ge=2, le=64)] = 3
    """Members of the ensemble; each leaves one fold of the runs out."""
    symmetry: bool = True
    """Use the mirror symmetries that the site has."""
    harmonics: Annotated[int, Field(ge=1, le=64)] = 3
    """Highest harmonic of wind direction among the inputs."""
    speed_scale: Annotated[float, Field(gt=0)] = 1.0
    """Wind speed around which the dependence on speed levels off, m/s."""
    steps: Annotated[int, Field(ge=1)] = 600
    """Most steps of gradient descent."""
    batch: Annotated[int, Field(ge=1)] = 32
    """Runs of one step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Highest learning rate."""
    warm_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Factor on the learning rate and on the steps of a warm start."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of AdamW."""
    checks: Annotated[int, Field(ge=2)] = 40
    """Looks at the held-out error over a whole training."""
    patience: Annotated[int, Field(ge=1)] = 15
    """Looks without an improvement of any member after which training ends."""
    new_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of a warm start: share of the draws that goes to runs it was not trained on, if that is more
    than their share of the runs."""
    minimum_runs: Annotated[int, Field(ge=4)] = 8
    """Fewest training runs."""

    def plan(self, seed: int, warm: bool) -> Plan:
        """Return the plan of a training from scratch, or of a warm start."""
        factor = self.warm_rate if warm else 1.0
        steps = max(1, round(self.steps * factor))
        return Plan(
            steps=steps,
            learning_rate=self.learning_rate * factor,
            weight_decay=self.weight_decay,
            batch=self.batch,
            check_every=max(1, steps // self.checks),
            patience=self.patience,
            seed=seed,
        )


@dataclass(frozen=True)
class TrainingSet:
    """Training runs in the order of their digests."""

    digests: tuple[str, ...]
    inputs: Features
    """How inputs become features."""
    features: np.ndarray
    """(n, features) float32."""
    fields: np.ndarray
    """(n, 3, nz, ny, nx) float32: wind over wind speed."""
    folds: np.ndarray
    """(n,) int: the member that leaves each run out."""
    weights: np.ndarray
    """(n,) float64, sum one: how often each run is drawn."""
    group: tuple[Mirror, ...]
    """Mirrors of the site that are used, the identity first."""
    members: int
    """Members of the ensemble, and folds."""
    example: np.ndarray
    """(3, columns) float32: some inputs."""

    @classmethod
    def of(
        cls,
        data: SimulationSet,
        site: Site,
        settings: NetworkSettings,
        seed: int,
        start: WarmStart | None,
    ) -> TrainingSet:
        """Check and arrange the runs; raises `TrainingError` as `check_training_data` does."""
        check_training_data(data, max(settings.minimum_runs, settings.members), state=True)
        data = data.take(np.argsort(np.array(data.digests)))
        digests, speed, inputs = data.digests, data.wind_speed, data.inputs
        group = symmetries(site) if settings.symmetry else (IDENTITY,)
        features = Features(
            site.footprint.x_axis_bearing,
            settings.harmonics,
            (float(speed.min()), float(speed.max())),
            settings.speed_scale,
            StateFeatures(data, site, group) if data.space.columns else None,
        )
        with torch.no_grad():
            rows = features(torch.from_numpy(inputs))[0].numpy()
        wind = data.wind / speed[:, None, None, None, None].astype(np.float32)
        known = _known_folds(start, settings.members)
        return cls(
            digests=digests,
            inputs=features,
            features=rows,
            fields=wind,
            folds=assign_folds(digests, settings.members, seed, known),
            weights=draw_weights(digests, start, settings.new_share),
            group=group,
            members=settings.members,
            example=inputs[:3],
        )

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        return cast("tuple[int, int, int]", self.fields.shape[2:])

    def state(self) -> dict[str, np.ndarray]:
        """Return the folds, for a warm start."""
        return {
            "fold_digests": np.array(self.digests, dtype="S64"),
            "folds": self.folds.astype(np.int64),
            "members": np.array(self.members),
        }


def assign_folds(
    digests: tuple[str, ...], members: int, seed: int, known: dict[str, int]
) -> np.ndarray:
    """Return the fold of each run: what it was before, new runs where there are fewest.

    A run stays in its fold from release to release, so that a member that starts warm is never
    validated on what it learnt from earlier.

    Parameters
    ----------
    digests : tuple of str
        Sorted.
    members : int
    seed : int
    known : dict
        Fold by digest, of an earlier training.

    Returns
    -------
    (n,) int64
    """
    folds = np.array([known.get(d, -1) for d in digests], dtype=np.int64)
    counts = np.bincount(folds[folds >= 0], minlength=members)
    for i in np.random.default_rng(seed).permutation(np.flatnonzero(folds < 0)):
        folds[i] = int(counts.argmin())
        counts[folds[i]] += 1
    return folds


def draw_weights(digests: tuple[str, ...], start: WarmStart | None, new_share: float) -> np.ndarray:
    """Return how often each run is drawn, (n,) float64 with sum one.

    From scratch all alike; of a warm start at least `new_share` of the draws go to new runs, so
    that few new ones among many old ones are learnt, and the old ones are not forgotten.
    """
    even = np.full(len(digests), 1.0 / len(digests))
    if start is None:
        return even
    new = np.array([d not in start.digests for d in digests])
    if not new.any() or new.mean() >= new_share:
        return even
    return np.asarray(np.where(new, new_share / new.sum(), (1.0 - new_share) / (~new).sum()))


def _known_folds(start: WarmStart | None, members: int) -> dict[str, int]:
    if start is None or "folds" not in start.state:
        return {}
    digests = [d.decode() for d in np.asarray(start.state["fold_digests"]).tolist()]
    folds = np.asarray(start.state["folds"]).tolist()
    # Of another number of members they would mean something else.
    same = int(start.state["members"]) == members
    return dict(zip(digests, folds, strict=True)) if same else {}
