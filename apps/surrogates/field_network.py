"""Training of networks that give the field itself, cell by cell.

Their mirrors are augmentation: each run of a batch is shown as itself or as one of its mirror
images, drawn from the seed and the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apps.surrogates.base import Conditions, WarmStart
from apps.surrogates.network import FieldEnsemble, TorchSurrogate, deterministic
from apps.surrogates.optimise import optimise
from apps.surrogates.symmetry import mirror_field
from apps.surrogates.training_set import NetworkSettings, TrainingSet
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet


class FieldCore(Protocol):
    """Features (batch, n) to fields (members, batch, d) over the scale of the training set."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the fields."""
        ...

    def penalty(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        """Return what is added to the loss."""
        ...


class Scaled(nn.Module):
    """A network times the scale of the training set: wind over wind speed.

    Parameters
    ----------
    network : nn.Module
        A `FieldCore`.
    scale : float
        Root mean square of the training fields, dimensionless.
    """

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, features: Tensor) -> Tensor:
        """Return fields (members, batch, d) of wind over wind speed."""
        return self.network(features) * self.scale


class _Problem:
    """Fields of the training runs and their mirror images; see `optimise.Problem`."""

    def __init__(self, network: FieldCore, data: TrainingSet, scale: float) -> None:
        self.members, self.runs = data.members, data.runs
        self.folds, self.weights = data.folds, data.weights
        self._network = network
        images = [mirror_field(data.fields, m).reshape(data.runs, -1) for m in data.group]
        self._wanted = torch.tensor(np.stack(images) / scale, dtype=torch.float32)
        signs = np.stack([data.inputs.signs(m) for m in data.group])
        self._features = torch.from_numpy(data.features[None] * signs[:, None])

    def loss(self, batch: np.ndarray, rng: np.random.Generator, mask: Tensor) -> Tensor:
        image = rng.integers(len(self._features), size=len(batch))
        features = self._features[image, batch]
        wrong = self._network(features) - self._wanted[image, batch]
        error = ((wrong**2).mean(dim=2) * mask).sum() / mask.sum().clamp(min=1.0)
        return error + self._network.penalty(features, rng)

    def errors(self) -> Tensor:
        return ((self.predicted() - self._wanted[0]) ** 2).mean(dim=2)

    def predicted(self) -> Tensor:
        return self._network(self._features[0])

    def left_out(self) -> np.ndarray:
        """Return the errors (runs, d) of each run by the member that left it out."""
        wrong = (self.predicted() - self._wanted[0]).numpy()
        return np.asarray(wrong[self.folds, np.arange(self.runs)])


def fit_fields(
    data: SimulationSet,
    site: Site,
    settings: NetworkSettings,
    seed: int,
    conditions: Conditions,
    build: Callable[[TrainingSet, torch.Generator], Any],
) -> TorchSurrogate:
    """Train the network that `build` makes; see `apps.surrogates.base.FitFunction`."""
    known = TrainingSet.of(data, site, settings, seed, conditions.start)
    with deterministic(conditions.threads):
        scale = float(np.sqrt((known.fields.astype(float) ** 2).mean()))
        core = Scaled(build(known, torch.Generator().manual_seed(seed)), scale)
        warm = _take_over(core, conditions.start)
        problem = _Problem(core.network, known, scale)
        outcome = optimise(core, problem, settings.plan(seed, warm), conditions)
        with torch.no_grad():
            variance = (problem.left_out().astype(float) ** 2).mean(axis=0) * scale**2
    chosen = {
        "runs": known.runs,
        "mirrors": len(known.group),
        "warm_start": warm,
        "left_out_relative_l2": float(np.sqrt(variance.mean()) / scale),
        "parameters": sum(p.numel() for p in core.parameters()),
        "steps": outcome.steps,
        "best_steps": list(outcome.best_steps),
    }
    module = FieldEnsemble(known.inputs, core, variance, known.shape)
    return TorchSurrogate(module, chosen, known.state(), known.example)


def member_weights(generator: torch.Generator, *shape: int, fan_in: int) -> nn.Parameter:
    """Return normal weights of variance 1 / fan_in."""
    return nn.Parameter(torch.randn(*shape, generator=generator) / fan_in**0.5)


def _take_over(core: nn.Module, start: WarmStart | None) -> bool:
    """Start from earlier weights if they are of the same architecture."""
    if start is None:
        return False
    named = dict(core.named_parameters())
    old = {k: start.state.get(f"core.{k}") for k in named}
    if any(o is None or np.shape(o) != tuple(named[k].shape) for k, o in old.items()):
        return False
    with torch.no_grad():
        for name, value in named.items():
            value.copy_(torch.tensor(np.asarray(old[name]), dtype=torch.float32))
    return True
