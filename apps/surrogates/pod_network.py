"""POD + network: modes of the training fields, their coefficients from an ensemble of small MLPs.

Proper orthogonal decomposition with a neural network for the coefficients (Hesthaven and Ubbiali
2018, "Non-intrusive reduced order modeling of nonlinear problems using neural networks", J. Comput.
Phys. 363:55). Fields are divided by the wind speed; the speed enters as U / (U + speed_scale).

The site's mirrors are built in: the network is asked for the scenario and its mirror images, and
the answers are averaged with the sign that each mode takes. That equals endless augmentation with
mirrored copies, exactly.

The architecture depends on settings alone once the number of modes is fixed, so a warm start keeps
every weight. A basis that is kept (`WarmStart.keep_basis`) leaves the modes as they are; a new one
turns the last layer into it by the overlap of old and new modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from apps.surrogates.base import UNCONDITIONAL, Conditions
from apps.surrogates.network import FieldEnsemble, TorchSurrogate, deterministic
from apps.surrogates.optimise import optimise
from apps.surrogates.pod import Basis, PodPart, decompose, in_place, kept_basis
from apps.surrogates.training_set import NetworkSettings, TrainingSet
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet


class Settings(NetworkSettings):
    """Settings of POD + network."""

    members: Annotated[int, Field(ge=2, le=64)] = 6
    """Members of the ensemble."""
    hidden: Annotated[int, Field(ge=4, le=1024)] = 64
    """Units of a hidden layer; there are two."""
    dropped_energy: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Share of the fields' mean square that the POD basis may leave out."""
    modes: Annotated[int, Field(ge=1, le=1024)] = 64
    """Most POD modes."""
    steps: Annotated[int, Field(ge=1)] = 3000
    """Most steps of gradient descent."""


class Coefficients(nn.Module):
    """Members' MLPs from features to POD coefficients, averaged over mirror images."""

    signs: Tensor
    characters: Tensor
    modes: Tensor

    def __init__(
        self,
        signs: np.ndarray,
        parts: list[PodPart],
        scale: float,
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        modes, ways, _ = in_place(parts)
        self.members, self.scale, self.mirrors = settings.members, scale, len(signs)
        for name, value in (("signs", signs), ("characters", ways.T), ("modes", modes)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        sizes = (signs.shape[1], settings.hidden, settings.hidden, len(modes))
        for i in range(3):
            weight = torch.randn(self.members, sizes[i], sizes[i + 1], generator=generator)
            self.register_parameter(f"weight_{i}", nn.Parameter(weight / sizes[i] ** 0.5))
            bias = torch.zeros(self.members, 1, sizes[i + 1])
            self.register_parameter(f"bias_{i}", nn.Parameter(bias))

    def coefficients(self, features: Tensor) -> Tensor:
        """Return scaled coefficients (members, batch, modes) of features (batch, n)."""
        images = features.unsqueeze(1) * self.signs
        x = images.reshape(1, -1, features.shape[1])
        for i in range(2):
            x = torch.tanh(torch.matmul(x, getattr(self, f"weight_{i}")) + self._bias(i))
        x = torch.matmul(x, self.weight_2) + self.bias_2
        x = x.reshape(self.members, -1, self.mirrors, self.modes.shape[0])
        return (x * self.characters).mean(dim=2)

    def _bias(self, i: int) -> Tensor:
        return cast("Tensor", getattr(self, f"bias_{i}"))

    def forward(self, features: Tensor) -> Tensor:
        """Return fields (members, batch, d) of wind over wind speed."""
        return torch.matmul(self.coefficients(features) * self.scale, self.modes)


class _Problem:
    """Coefficients of the training fields from their features; see `optimise.Problem`."""

    def __init__(self, core: Coefficients, data: TrainingSet, parts: list[PodPart]) -> None:
        self.members, self.runs = data.members, data.runs
        self.folds, self.weights = data.folds, data.weights
        self._core, self._features = core, torch.from_numpy(data.features)
        wanted = in_place(parts)[2] / core.scale
        self._wanted = torch.tensor(wanted, dtype=torch.float32)

    def loss(self, batch: np.ndarray, rng: np.random.Generator, mask: Tensor) -> Tensor:  # noqa: ARG002
        wrong = self._core.coefficients(self._features[batch]) - self._wanted[batch]
        return ((wrong**2).sum(dim=2) * mask).sum() / mask.sum().clamp(min=1.0)

    def errors(self) -> Tensor:
        wrong = self._core.coefficients(self._features) - self._wanted
        return (wrong**2).sum(dim=2)


def fit(
    data: SimulationSet,
    site: Site,
    settings: Settings,
    seed: int,
    conditions: Conditions = UNCONDITIONAL,
) -> TorchSurrogate:
    """Train; see `apps.surrogates.base.FitFunction`."""
    known = TrainingSet.of(data, site, settings, seed, conditions.start)
    fields = known.fields.astype(float)
    kept = kept_basis(conditions.start, known.group, fields[0].size, _basis)
    with deterministic(conditions.threads):
        parts, residual = decompose(
            fields, known.group, settings.dropped_energy, settings.modes, kept
        )
        signs = np.stack([known.inputs.signs(m) for m in known.group])
        scale = float(np.sqrt(sum((p.coefficients**2).sum(axis=1).mean() for p in parts)))
        if kept is not None and conditions.start is not None:
            scale = float(conditions.start.state.get("scale", scale))
        generator = torch.Generator().manual_seed(seed)
        core = Coefficients(signs, parts, scale, settings, generator)
        warm = _take_over(core, conditions)
        problem = _Problem(core, known, parts)
        outcome = optimise(core, problem, settings.plan(seed, warm), conditions)
        with torch.no_grad():
            own = core.coefficients(torch.from_numpy(known.features)).numpy()
    modes = core.modes.numpy().astype(float)
    wanted = in_place(parts)[2]
    left_out = own[known.folds, np.arange(known.runs)] * scale - wanted
    variance = residual + ((left_out @ modes) ** 2).mean(axis=0)
    total = float((fields**2).sum(axis=(1, 2, 3, 4)).mean())
    chosen = {
        "runs": known.runs,
        "mirrors": len(known.group),
        "modes": len(modes),
        "basis_kept": kept is not None,
        "warm_start": warm,
        "dropped_energy": float(residual.sum() / total),
        "left_out_relative_l2": float(np.sqrt(variance.sum() / total)),
        "steps": outcome.steps,
        "best_steps": list(outcome.best_steps),
    }
    state = {
        "core.modes": core.modes.numpy(),
        "core.characters": core.characters.numpy(),
        "scale": np.array(scale),
    } | known.state()
    module = FieldEnsemble(known.inputs, core, variance, known.shape)
    return TorchSurrogate(module, chosen, state, known.example)


def _basis(state: Mapping[str, np.ndarray]) -> Basis:
    ways, modes = (np.asarray(state[f"core.{k}"], float) for k in ("characters", "modes"))
    return Basis(np.sign(ways.T), modes)


def _take_over(core: Coefficients, conditions: Conditions) -> bool:
    """Start from earlier weights if they are of the same architecture."""
    if conditions.start is None:
        return False
    state = conditions.start.state
    if any(f"core.{k}" not in state for k, _ in core.named_parameters()):
        return False
    old = {k: np.asarray(state[f"core.{k}"]) for k, _ in core.named_parameters()}
    before = np.asarray(state["core.modes"], float)
    if np.array_equal(before, core.modes.numpy()[: len(before)]):
        overlap = np.eye(len(before), len(core.modes))  # kept: what is new starts from nought
    else:  # old coefficients, as seen in the new basis
        overlap = before @ core.modes.numpy().T.astype(float)
    overlap *= float(state["scale"]) / core.scale
    old["weight_2"], old["bias_2"] = old["weight_2"] @ overlap, old["bias_2"] @ overlap
    if any(old[k].shape != tuple(v.shape) for k, v in core.named_parameters()):
        return False
    with torch.no_grad():
        for name, value in core.named_parameters():
            value.copy_(torch.tensor(old[name], dtype=torch.float32))
    return True
