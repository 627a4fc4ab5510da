"""A convolutional decoder: features of the scenario become a small map that grows into the field.

The decoding half of an encoder-decoder such as U-Net (Ronneberger et al. 2015, MICCAI 9351:234);
there is no map to encode, the scenario is a handful of numbers. Height and component are channels,
so convolutions run over the plan of the house. Members are the groups of grouped convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from apps.surrogates.base import UNCONDITIONAL, Conditions
from apps.surrogates.field_network import fit_fields, member_weights
from apps.surrogates.training_set import NetworkSettings, TrainingSet

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet
    from apps.surrogates.network import TorchSurrogate
    from edge_agent.contracts.site import Site


class Settings(NetworkSettings):
    """Settings of the convolutional decoder."""

    channels: Annotated[int, Field(ge=1, le=256)] = 24
    """Channels of the maps."""
    hidden: Annotated[int, Field(ge=1, le=1024)] = 64
    """Units between the features and the smallest map."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    """Highest learning rate."""


class Decoder(nn.Module):
    """Features to fields; doubles the map twice, then cuts it to the grid."""

    def __init__(
        self,
        features: int,
        shape: tuple[int, int, int],
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        members, c, h = settings.members, settings.channels, settings.hidden
        nz, self.ny, self.nx = shape
        self.members, self.channels = members, c
        self.start = (-(-self.ny // 4), -(-self.nx // 4))
        cells = self.start[0] * self.start[1]
        self.weight_in = member_weights(generator, members, features, h, fan_in=features)
        self.bias_in = nn.Parameter(torch.zeros(members, 1, h))
        self.weight_map = member_weights(generator, members, h, c * cells, fan_in=h)
        self.bias_map = nn.Parameter(torch.zeros(members, 1, c * cells))
        sizes = ((c, c), (c, c), (c, 3 * nz))
        for i, (a, b) in enumerate(sizes):
            weight = member_weights(generator, members * b, a, 3, 3, fan_in=9 * a)
            self.register_parameter(f"weight_{i}", weight)
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(members * b)))

    def forward(self, features: Tensor) -> Tensor:
        """Return fields (members, batch, d)."""
        x = functional.gelu(torch.matmul(features.unsqueeze(0), self.weight_in) + self.bias_in)
        x = functional.gelu(torch.matmul(x, self.weight_map) + self.bias_map)
        x = x.transpose(0, 1).reshape(-1, self.members * self.channels, *self.start)
        for i in range(2):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = functional.gelu(self._convolved(x, i))
        x = self._convolved(x, 2)[:, :, : self.ny, : self.nx]
        return x.reshape(x.shape[0], self.members, -1).transpose(0, 1)

    def _convolved(self, x: Tensor, i: int) -> Tensor:
        weight, bias = getattr(self, f"weight_{i}"), getattr(self, f"bias_{i}")
        return functional.conv2d(x, weight, bias, padding=1, groups=self.members)

    def penalty(self, features: Tensor, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        """Return nothing to add."""
        return torch.zeros(())


def fit(
    data: SimulationSet,
    site: Site,
    settings: Settings,
    seed: int,
    conditions: Conditions = UNCONDITIONAL,
) -> TorchSurrogate:
    """Train; see `apps.surrogates.base.FitFunction`."""

    def build(known: TrainingSet, generator: torch.Generator) -> Decoder:
        return Decoder(known.inputs.count, known.shape, settings, generator)

    return fit_fields(data, site, settings, seed, conditions, build)
