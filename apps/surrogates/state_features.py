"""Features of the house's state for networks: its scalars, and functions of a tear."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from apps.simulation_set import SimulationSet
from apps.space import WIDE, Space
from apps.surrogates.symmetry import Mirror
from apps.surrogates.tear_features import TearFeatures
from edge_agent.contracts.site import Site

#: Powers of a tear's width and harmonics of its place.
_POWERS, _WAVES = 1, 2


class StateFeatures(nn.Module):
    """Features (batch, count) of the state columns of inputs (batch, 2 + columns).

    A scalar is scaled to [-1, 1] over the training range and held at its ends; a tear is told by
    functions of its place and width (`apps.surrogates.tear_features`).

    Parameters
    ----------
    data : SimulationSet
        The training runs.
    site : Site
    group : tuple of (bool, bool)
        Mirrors that are used, the identity first.
    """

    slope: Tensor
    offset: Tensor
    numbers: Tensor
    starts: Tensor
    lengths: Tensor
    angles: Tensor
    mixing: Tensor

    def __init__(self, data: SimulationSet, site: Site, group: tuple[Mirror, ...]) -> None:
        super().__init__()
        self._space: Space = data.space
        self._group = group
        scaled = [s.scaled(data.state[:, j]) for j, s in enumerate(data.space.scalars)]
        low, high = (np.array([f(v) for v in scaled]) for f in (np.min, np.max))
        width = np.maximum(high - low, 1e-6)
        self._tears = TearFeatures.of(site, data.space, group, _POWERS, _WAVES)
        for name, value in (
            ("slope", 2.0 / width),
            ("offset", -(high + low) / width),
            ("numbers", np.arange(1.0, len(self._tears.starts) + 1)),
            ("starts", self._tears.starts),
            ("lengths", self._tears.lengths),
            ("angles", np.pi * np.arange(_WAVES + 1)),
            ("mixing", self._tears.mixing),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    @property
    def count(self) -> int:
        """Number of features."""
        return len(self._space.scalars) + int(self._tears.mixing.shape[1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features (batch, count)."""
        parts = []
        for j, scalar in enumerate(self._space.scalars):
            value = inputs[:, 2 + j : 3 + j]
            if scalar.logarithmic:
                value = torch.log(torch.clamp(value, min=1e-6))
            parts.append(torch.clamp(value * self.slope[j] + self.offset[j], -1.0, 1.0))
        if self._space.panels:
            parts.append(self._torn(inputs[:, 2 + len(self._space.scalars) :]))
        return torch.cat(parts, dim=1)

    def _torn(self, tear: Tensor) -> Tensor:
        there = ((tear[:, 0:1] - self.numbers).abs() < 0.5).to(tear.dtype)
        place = torch.clamp((tear[:, 1:2] - self.starts) / self.lengths, 0.0, 1.0)
        waves = torch.cos(place.unsqueeze(2) * self.angles)
        sizes = there * (tear[:, 2:3] / WIDE)
        functions = (sizes.unsqueeze(2) * waves).reshape(-1, self.mixing.shape[0])
        return torch.matmul(functions, self.mixing)

    def signs(self, mirror: Mirror) -> np.ndarray:
        """Return the factor (+1 or -1) that each feature takes in a mirror, (count,) float32."""
        torn = self._tears.signs[self._group.index(mirror)]
        return np.concatenate([np.ones(len(self._space.scalars)), torn]).astype(np.float32)
