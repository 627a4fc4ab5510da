"""A network of coordinates with a physics residual: a physics-informed deep operator network.

The wind at a point is a sum of products: a *branch* sees the scenario, a *trunk* sees the point
(DeepONet, Lu et al. 2021, Nature Machine Intelligence 3:218). Because the trunk can be asked, and
differentiated, anywhere, what it says must also conserve mass between the cells: div u = 0 at
random points of the house is part of the loss (Wang, Wang and Perdikaris 2021, "Learning the
solution operator of parametric partial differential equations with physics-informed DeepONets",
Science Advances 7:eabi8605; the residual is that of Raissi et al. 2019, J. Comput. Phys. 378:686).
Momentum is left out: it needs pressure and turbulence, which are not on the output grid.

In the exported graph the points are the cells, so the trunk is a constant that the runtime folds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from apps.surrogates.base import UNCONDITIONAL, Conditions
from apps.surrogates.field_network import fit_fields, member_weights
from apps.surrogates.training_set import NetworkSettings, TrainingSet

if TYPE_CHECKING:
    from apps.simulation_set import SimulationSet
    from apps.surrogates.network import TorchSurrogate
    from edge_agent.contracts.site import Site

#: Random points of one step at which mass must be conserved.
_POINTS = 128


class Settings(NetworkSettings):
    """Settings of the coordinate network."""

    hidden: Annotated[int, Field(ge=1, le=1024)] = 64
    """Units of a hidden layer; branch and trunk have two each."""
    products: Annotated[int, Field(ge=1, le=1024)] = 48
    """Products of branch and trunk that are summed."""
    waves: tuple[
        Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]
    ] = (8, 6, 2)
    """Harmonics of x, y and z among the trunk's inputs."""
    continuity: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the mean square of div u, in units of the fields' scale over the house's height."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """Highest learning rate."""


class CoordinateNetwork(nn.Module):
    """Branch of the scenario times trunk of the point."""

    cells: Tensor
    wavenumbers: Tensor
    stretch: Tensor

    def __init__(
        self,
        features: int,
        site: Site,
        settings: Settings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        grid, box = site.grid(), site.footprint
        lengths = np.array([box.length_x, box.length_y, box.height])
        z, y, x = np.meshgrid(grid.z, grid.y, grid.x, indexing="ij")
        cells = np.stack([x, y, z], axis=-1).reshape(-1, 3) / lengths * 2 - 1
        axes = np.concatenate([np.full(n, i) for i, n in enumerate(settings.waves)])
        waves = np.concatenate([np.arange(1, n + 1) for n in settings.waves])
        self.continuity, self.members = settings.continuity, settings.members
        self.products = settings.products
        select = np.zeros((3, len(axes)))
        select[axes, np.arange(len(axes))] = waves * np.pi / 2
        # Of the height, each axis' length in [-1, 1].
        stretch = 2 * box.height / lengths[:, None]
        for name, value in (("cells", cells), ("wavenumbers", select), ("stretch", stretch)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        k, h, p = settings.members, settings.hidden, settings.products
        for name, sizes in (
            ("branch", (features, h, h, p)),
            ("trunk", (3 + 2 * len(axes), h, h, 3 * p)),
        ):
            for i in range(3):
                weight = member_weights(generator, k, sizes[i], sizes[i + 1], fan_in=sizes[i])
                self.register_parameter(f"{name}_weight_{i}", weight)
                bias = nn.Parameter(torch.zeros(k, 1, sizes[i + 1]))
                self.register_parameter(f"{name}_bias_{i}", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return fields (members, batch, d)."""
        return torch.matmul(self._branch(features), self._modes(self.cells))

    def _branch(self, features: Tensor) -> Tensor:
        return self._mlp("branch", features.unsqueeze(0))

    def _modes(self, points: Tensor) -> Tensor:
        """Return the trunk (members, products, 3 points) at points (n, 3) in [-1, 1]."""
        angles = torch.matmul(points, self.wavenumbers)
        inputs = torch.cat([points, torch.sin(angles), torch.cos(angles)], dim=1)
        found = self._mlp("trunk", inputs.unsqueeze(0)) / self.products**0.5
        found = found.reshape(self.members, -1, 3, self.products)
        return found.permute(0, 3, 2, 1).reshape(self.members, self.products, -1)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        for i in range(3):
            x = torch.matmul(x, getattr(self, f"{name}_weight_{i}"))
            x = x + getattr(self, f"{name}_bias_{i}")
            x = torch.tanh(x) if i < 2 else x
        return x

    def penalty(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the weighted mean square of div u times the house's height."""
        if self.continuity == 0:
            return torch.zeros(())
        points = torch.tensor(rng.uniform(-1, 1, (_POINTS, 3)), dtype=torch.float32)
        divergence = torch.matmul(self._branch(features), self._divergences(points))
        return self.continuity * (divergence**2).mean()

    def _divergences(self, points: Tensor) -> Tensor:
        """Return div of the trunk times the house's height, (members, products, points).

        Derivatives go forward through the layers beside the values.
        """
        angles = torch.matmul(points, self.wavenumbers)
        turns = self.stretch * self.wavenumbers
        x = torch.cat([points, torch.sin(angles), torch.cos(angles)], dim=1).unsqueeze(0)
        straight = torch.diag(self.stretch[:, 0]).unsqueeze(1).expand(3, len(points), 3)
        sines, cosines = torch.sin(angles), torch.cos(angles)
        slope = torch.cat(
            [straight, cosines * turns.unsqueeze(1), -sines * turns.unsqueeze(1)], dim=2
        ).unsqueeze(1)
        for i in range(3):
            weight = getattr(self, f"trunk_weight_{i}")
            x = torch.matmul(x, weight) + getattr(self, f"trunk_bias_{i}")
            slope = torch.matmul(slope, weight)
            if i < 2:
                x = torch.tanh(x)
                slope = slope * (1.0 - x**2)
        slope = slope.reshape(3, self.members, len(points), 3, self.products)
        total = slope[0, :, :, 0] + slope[1, :, :, 1] + slope[2, :, :, 2]
        return total.transpose(1, 2) / self.products**0.5


def fit(
    data: SimulationSet,
    site: Site,
    settings: Settings,
    seed: int,
    conditions: Conditions = UNCONDITIONAL,
) -> TorchSurrogate:
    """Train; see `apps.surrogates.base.FitFunction`."""

    def build(known: TrainingSet, generator: torch.Generator) -> CoordinateNetwork:
        return CoordinateNetwork(known.inputs.count, site, settings, generator)

    return fit_fields(data, site, settings, seed, conditions, build)
