"""A Fourier neural operator over the plan of the house, its transforms written as matrix products.

Layers add a pointwise map and a product with learnt complex weights in Fourier space, for the
lowest wavenumbers (Li et al. 2021, "Fourier neural operator for parametric partial differential
equations", ICLR). A dozen wavenumbers of a few dozen cells: four small matrix products do it, where
ONNX Runtime's DFT operator is several times slower. Fields are not periodic, so the period is a
quarter longer than the house. Height and component are channels.
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

#: Period of the transforms over the length of the house.
_PERIOD = 1.25


class Settings(NetworkSettings):
    """Settings of the Fourier neural operator."""

    width: Annotated[int, Field(ge=1, le=256)] = 16
    """Channels."""
    layers: Annotated[int, Field(ge=1, le=8)] = 3
    """Fourier layers."""
    modes: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (8, 5)
    """Wavenumbers kept along x and, of each sign, along y; zero included."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """Highest learning rate."""


class FourierOperator(nn.Module):
    """Features, spread over the plan beside its coordinates, to fields."""

    place: Tensor
    cos_x: Tensor
    sin_x: Tensor
    cos_y: Tensor
    sin_y: Tensor
    back: Tensor

    def __init__(
        self,
        features: int,
        shape: tuple[int, int, int],
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        nz, ny, nx = shape
        k, w = settings.members, settings.width
        self.members, self.width, self.layers = k, w, settings.layers
        x, y = (np.arange(nx) + 0.5) / nx, (np.arange(ny) + 0.5) / ny
        waves_x = np.arange(min(settings.modes[0], nx // 2 + 1))
        most = min(settings.modes[1], ny // 2 + 1) - 1
        waves_y = np.arange(-most, most + 1)
        angle_x = 2 * np.pi / _PERIOD * waves_x[:, None] * x
        angle_y = 2 * np.pi / _PERIOD * waves_y[:, None] * y
        places = np.stack(np.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij"), axis=-1)
        for name, value in (
            ("place", places.reshape(-1, 2)),
            ("cos_x", np.cos(angle_x) / nx),
            ("sin_x", np.sin(angle_x) / nx),
            ("cos_y", np.cos(angle_y) / ny),
            ("sin_y", np.sin(angle_y) / ny),
            # The field is real: each wavenumber but zero stands for its negative, too.
            ("back", np.where(waves_x > 0, 2.0, 1.0)[:, None] * np.ones_like(angle_x)),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.plan, self.count = (ny, nx), (len(waves_y), len(waves_x))
        self.weight_in = member_weights(generator, k, features, w, fan_in=features + 2)
        self.weight_place = member_weights(generator, k, 1, 2, w, fan_in=features + 2)
        self.bias_in = nn.Parameter(torch.zeros(k, 1, 1, w))
        modes = len(waves_x) * len(waves_y)
        for i in range(settings.layers):
            for part in ("real", "imaginary"):
                weight = member_weights(generator, k, modes, w, w, fan_in=2 * w)
                self.register_parameter(f"{part}_{i}", weight)
            self.register_parameter(
                f"weight_{i}", member_weights(generator, k, 1, w, w, fan_in=2 * w)
            )
            self.register_parameter(f"bias_{i}", nn.Parameter(torch.zeros(k, 1, 1, w)))
        self.weight_mid = member_weights(generator, k, 1, w, 4 * w, fan_in=w)
        self.bias_mid = nn.Parameter(torch.zeros(k, 1, 1, 4 * w))
        self.weight_out = member_weights(generator, k, 1, 4 * w, 3 * nz, fan_in=4 * w)
        self.bias_out = nn.Parameter(torch.zeros(k, 1, 1, 3 * nz))

    def forward(self, features: Tensor) -> Tensor:
        """Return fields (members, batch, d)."""
        # (members, batch, cells, channels) throughout.
        spread = torch.matmul(features.unsqueeze(0), self.weight_in).unsqueeze(2)
        h = spread + torch.matmul(self.place, self.weight_place) + self.bias_in
        h = functional.gelu(h)
        for i in range(self.layers):
            point = torch.matmul(h, getattr(self, f"weight_{i}")) + getattr(self, f"bias_{i}")
            h = functional.gelu(point + self._spectral(h, i)) + h
        h = functional.gelu(torch.matmul(h, self.weight_mid) + self.bias_mid)
        h = torch.matmul(h, self.weight_out) + self.bias_out
        return h.transpose(2, 3).reshape(self.members, -1, h.shape[3] * h.shape[2])

    def _spectral(self, h: Tensor, i: int) -> Tensor:
        k, w, (ny, nx), (my, mx) = self.members, self.width, self.plan, self.count
        h = h.reshape(k, -1, ny, nx, w)
        # e^(-i a): along x, then along y.
        real = torch.matmul(self.cos_x, h).transpose(2, 3)
        imag = -torch.matmul(self.sin_x, h).transpose(2, 3)
        a = torch.matmul(self.cos_y, real) + torch.matmul(self.sin_y, imag)
        b = torch.matmul(self.cos_y, imag) - torch.matmul(self.sin_y, real)
        a, b = (t.reshape(k, -1, mx * my, w).transpose(1, 2) for t in (a, b))
        c, d = getattr(self, f"real_{i}"), getattr(self, f"imaginary_{i}")
        real = torch.matmul(a, c) - torch.matmul(b, d)
        imag = torch.matmul(a, d) + torch.matmul(b, c)
        real, imag = (t.transpose(1, 2).reshape(k, -1, mx, my, w) for t in (real, imag))
        # And back; the sums of the forward way were means.
        cos_y, sin_y = self.cos_y.T * ny, self.sin_y.T * ny
        a = (torch.matmul(cos_y, real) - torch.matmul(sin_y, imag)).transpose(2, 3)
        b = (torch.matmul(cos_y, imag) + torch.matmul(sin_y, real)).transpose(2, 3)
        cos_x, sin_x = (self.cos_x * self.back).T * nx, (self.sin_x * self.back).T * nx
        h = torch.matmul(cos_x, a) - torch.matmul(sin_x, b)
        return h.reshape(k, -1, ny * nx, w)

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

    def build(known: TrainingSet, generator: torch.Generator) -> FourierOperator:
        return FourierOperator(known.inputs.count, known.shape, settings, generator)

    return fit_fields(data, site, settings, seed, conditions, build)
