"""What the families of neural networks share: inputs, ensemble, standard deviation, export.

A family brings a *core*: a torch module from features of the scenario to the wind over the wind
speed of every member. All around it is physics and bookkeeping. Of every parameter of a core the
first axis is the members' (or a multiple of it, members first), so that members can be told apart.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from apps.surrogates.base import INPUT, WIND, WIND_STD
from apps.surrogates.state_features import StateFeatures
from apps.surrogates.symmetry import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

#: Added to every standard deviation, m/s: it must not vanish in a calm.
MINIMUM_STD = 1e-3
#: Written low so that older ONNX Runtimes load it.
OPSET = 18


class Features(nn.Module):
    """Features of a scenario: harmonics of direction, and the speed where it matters.

    phi is the direction that the wind blows *to*, counter-clockwise from the house's +x axis, so
    that a mirror of the house changes at most a feature's sign; t = U / (U + speed_scale) scaled to
    [-1, 1] over the training range and held at its ends (`apps.surrogates.spectral`).

    Parameters
    ----------
    bearing : float, degrees
        Compass bearing of the house's +x axis.
    harmonics : int
    speed : (float, float), m/s
        Range of the training set.
    speed_scale : float, m/s
    state : StateFeatures, optional
        Of the house, if it is among the inputs.
    """

    wavenumbers: Tensor
    phases: Tensor
    limits: Tensor

    def __init__(
        self,
        bearing: float,
        harmonics: int,
        speed: tuple[float, float],
        speed_scale: float,
        state: StateFeatures | None = None,
    ) -> None:
        super().__init__()
        self.state = state
        k = torch.arange(1, harmonics + 1, dtype=torch.float32)
        self.bearing, self.speed_scale = bearing - 180.0, speed_scale
        low, high = (u / (u + speed_scale) for u in speed)
        width = max(high - low, 1e-6)
        self.slope, self.offset = 2.0 / width, -(high + low) / width
        self.register_buffer("wavenumbers", torch.cat([k, k]))
        self.register_buffer("phases", torch.repeat_interleave(torch.tensor([0.0, -0.5]), len(k)))
        self.register_buffer("limits", torch.tensor(speed, dtype=torch.float32))

    @property
    def count(self) -> int:
        """Number of features."""
        return len(self.wavenumbers) + 1 + (0 if self.state is None else self.state.count)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (batch, count) and wind speed (batch, 1) of inputs (batch, columns)."""
        speed, direction = inputs[:, 0:1], inputs[:, 1:2]
        phi = (direction - self.bearing) * (-np.pi / 180.0)
        waves = torch.cos(phi * self.wavenumbers + self.phases * np.pi)
        held = torch.minimum(torch.maximum(speed, self.limits[0]), self.limits[1])
        t = (held / (held + self.speed_scale)) * self.slope + self.offset
        if self.state is None:
            return torch.cat([waves, t], dim=1), speed
        return torch.cat([waves, t, self.state(inputs)], dim=1), speed

    def signs(self, mirror: Mirror) -> np.ndarray:
        """Return the factor (+1 or -1) that each feature takes in a mirror, (count,) float32."""
        sines = self.phases.numpy() < 0
        odd = self.wavenumbers.numpy() % 2 == 1
        flipped = (mirror[0] & (odd != sines)) ^ (mirror[1] & sines)
        own = np.append(np.where(flipped, -1.0, 1.0), 1.0).astype(np.float32)
        return own if self.state is None else np.concatenate([own, self.state.signs(mirror)])


class FieldEnsemble(nn.Module):
    """The whole surrogate: inputs in physical units to wind and its standard deviation, m/s."""

    residual_std: Tensor

    def __init__(
        self,
        features: Features,
        core: nn.Module,
        residual: np.ndarray,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.features, self.core, self.shape = features, core, shape
        self.register_buffer("residual_std", torch.tensor(residual**0.5, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return wind and standard deviation, (batch, 3, nz, ny, nx), of inputs."""
        features, speed = self.features(inputs)
        fields = self.core(features)
        wind = fields.mean(dim=0)
        spread = ((fields - wind) ** 2).sum(dim=0) / max(1, fields.shape[0] - 1)
        # Squared here: however a delta rounds it, the variance is not negative.
        std = torch.sqrt(spread + self.residual_std**2) * speed + MINIMUM_STD
        shape = (-1, 3, *self.shape)
        return (wind * speed).reshape(shape), std.reshape(shape)


class TorchSurrogate:
    """A trained ensemble; see `apps.surrogates.base.Surrogate`.

    Parameters
    ----------
    module : FieldEnsemble
    chosen : dict
        What training chose, JSON values.
    state : dict of arrays
        Beside the core's parameters, what a warm start needs.
    example : (n, columns) float32
        Inputs to trace the export with; at least two.
    """

    def __init__(
        self,
        module: FieldEnsemble,
        chosen: dict[str, Any],
        state: dict[str, np.ndarray],
        example: np.ndarray,
    ) -> None:
        self._module, self._chosen, self._state = module.eval(), chosen, state
        self._example = example

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return wind and standard deviation; see `apps.surrogates.base.Surrogate`."""
        parts = np.array_split(np.asarray(inputs, np.float32), max(1, len(inputs) // 64))
        with torch.inference_mode():
            found = [self._module(torch.from_numpy(np.ascontiguousarray(p))) for p in parts]
        wind, std = (torch.cat([f[i] for f in found]).numpy() for i in range(2))
        return wind, std

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph; see `apps.surrogates.base.Surrogate`."""
        batch = torch.export.Dim("batch", min=1, max=65536)
        # It misses torchvision, loudly, at every first use.
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # The exporter warns of its own deprecations.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                self._module,
                (torch.from_numpy(self._example),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[WIND, WIND_STD],
                dynamic_shapes={"inputs": {0: batch}},
            )
        if program is None:
            msg = "unreachable: the dynamo exporter returns a program"
            raise AssertionError(msg)
        return program.model_proto

    def summary(self) -> dict[str, Any]:
        """Return what training chose."""
        return self._chosen

    def state(self) -> dict[str, np.ndarray]:
        """Return the core's parameters and what the family added."""
        named = self._module.core.named_parameters()
        return {f"core.{k}": v.detach().numpy().copy() for k, v in named} | self._state


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Compute with `threads` threads and deterministic kernels inside the block."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
