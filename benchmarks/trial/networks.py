"""The trial's networks: steps, rates and sizes as they were there, one thread, one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from apps.simulation_set import SimulationSet
from apps.surrogates.network import deterministic
from benchmarks.trial.columns import Columns, Modes, Predict, mirrored, over_speed
from edge_agent.contracts.site import Site

RATE = 2e-3
MODES, MIRRORED_MODES = 48, 64
_SEED = 0
#: Steepness of a hole's edge on the map, and its width there over its own.
_EDGE, _SMEARED = 12.0, 2.0


@contextmanager
def alone() -> Iterator[None]:
    """Compute and draw inside as in a process of one's own."""
    with deterministic(1), torch.random.fork_rng():
        torch.manual_seed(_SEED)
        yield


def mlp(inputs: int, outputs: int, hidden: int, layers: int) -> nn.Sequential:
    sizes = [inputs, *[hidden] * layers]
    found: list[nn.Module] = []
    for a, b in pairwise(sizes):
        found += [nn.Linear(a, b), nn.GELU()]
    return nn.Sequential(*found, nn.Linear(hidden, outputs))


def descend(
    network: nn.Module, loss: Callable[[], Tensor], steps: int, weight_decay: float = 1e-4
) -> None:
    """Take AdamW's steps under the trial's one cycle of rates."""
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        cycle.step()


def fitted(
    network: nn.Module, inputs: np.ndarray, wanted: Tensor, steps: int, batch: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Train a map from inputs (n, columns); return it as a function of arrays."""
    x = torch.tensor(inputs, dtype=torch.float32)

    def loss() -> Tensor:
        i = torch.randint(0, len(x), (min(batch, len(x)),))
        return ((network(x[i]) - wanted[i]) ** 2).mean()

    descend(network, loss, steps)

    def answer(asked: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor(asked, dtype=torch.float32)).numpy()

    return answer


def coefficients(
    inputs: np.ndarray, pod: Modes, steps: int, hidden: int = 128, batch: int = 32
) -> Callable[[np.ndarray], np.ndarray]:
    """Train an MLP from inputs to POD coefficients, all over one scale."""
    scale = pod.coefficients.std()
    wanted = torch.tensor(pod.coefficients / scale, dtype=torch.float32)
    with alone():
        network = mlp(inputs.shape[1], wanted.shape[1], hidden, 3)
        answer = fitted(network, inputs, wanted, steps, batch)
    return lambda asked: answer(asked) * scale


def pod_mlp(data: SimulationSet, site: Site) -> Predict:
    columns, pod = Columns.of(data, site), Modes.of(data, MODES)
    network = coefficients(columns(data.inputs), pod, steps=2500)
    return lambda asked: pod.wind(network(columns(asked.inputs)), asked.wind_speed)


def mirrored_pod_mlp(data: SimulationSet, site: Site) -> Predict:
    """Learn every run in all of the site's mirrors: the trial's best."""
    data = mirrored(data, site)
    columns, pod = Columns.of(data, site), Modes.of(data, MIRRORED_MODES)
    network = coefficients(columns(data.inputs), pod, steps=5000, hidden=192, batch=64)
    return lambda asked: pod.wind(network(columns(asked.inputs)), asked.wind_speed)


class UNet(nn.Module):
    """Columns, spread over the plan beside its coordinates and a picture of the hole, to maps."""

    mean: Tensor
    spread: Tensor
    place: Tensor
    reach: Tensor

    def __init__(self, columns: Columns, shape: tuple[int, ...], width: int = 32) -> None:
        super().__init__()
        self.faces = [p.face for p in columns.panels]
        plan = [torch.linspace(-1, 1, n) for n in shape[-2:]]
        y, x = torch.meshgrid(*plan, indexing="ij")
        for name, value in (
            ("mean", torch.tensor(columns.mean, dtype=torch.float32)),
            ("spread", torch.tensor(columns.spread, dtype=torch.float32)),
            ("place", torch.stack([x, y])),
            # A width of one is `apps.space.WIDE`: 40 m, of a wall from -1 to 1.
            ("reach", torch.tensor(_SMEARED * 40.0 / columns.lengths, dtype=torch.float32)),
        ):
            self.register_buffer(name, value)
        c = width
        self.down_1 = self._twice(len(columns.mean) + 2 + len(self.faces), c)
        self.down_2, self.down_3 = self._twice(c, 2 * c), self._twice(2 * c, 4 * c)
        self.up_2, self.up_1 = self._twice(6 * c, 2 * c), self._twice(3 * c, c)
        self.out = nn.Conv2d(c, int(np.prod(shape[:-2])), 1)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.Sequential:
        first = nn.Conv2d(inputs, outputs, 3, padding=1)
        second = nn.Conv2d(outputs, outputs, 3, padding=1)
        return nn.Sequential(first, nn.GELU(), second, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (n, 3 nz, ny, nx) of columns that are not scaled."""
        plan = self.place.expand(len(x), -1, -1, -1)
        told = ((x - self.mean) / self.spread)[:, :, None, None]
        told = told.expand(-1, -1, *plan.shape[2:])
        a = self.down_1(torch.cat([told, plan, *self._holes(x, plan)], dim=1))
        b = self.down_2(functional.avg_pool2d(a, 2))
        c = self.down_3(functional.avg_pool2d(b, 2))
        b = self.up_2(torch.cat([functional.interpolate(c, b.shape[2:]), b], dim=1))
        a = self.up_1(torch.cat([functional.interpolate(b, a.shape[2:]), a], dim=1))
        return self.out(a)

    def _holes(self, x: Tensor, plan: Tensor) -> Iterator[Tensor]:
        """Yield a map for each wall: the hole's shadow along it, fading across the house."""
        count = len(self.faces)
        for k, face in enumerate(self.faces):
            torn, middle, width = (x[:, i, None, None] for i in (k - count - 2, -2, -1))
            across, along = (plan[:, 0], plan[:, 1])[:: 1 if face[0] == "x" else -1]
            away = (along - 2 * middle).abs()
            shadow = torch.sigmoid(_EDGE * (self.reach[k] * width - away))
            near = (1 + across) / 2 if face[1] == "1" else (1 - across) / 2
            yield (torn * shadow * near).unsqueeze(1)


def u_net(data: SimulationSet, site: Site) -> Predict:
    columns, fields, shape = Columns.of(data, site), over_speed(data), data.wind.shape[1:]
    scale = fields.std()
    maps = torch.tensor(fields.reshape(len(fields), -1, *shape[-2:]) / scale, dtype=torch.float32)
    with alone():
        network = UNet(columns, shape)
        answer = fitted(network, columns.raw(data.inputs), maps, steps=1500, batch=32)

    def predict(asked: SimulationSet) -> np.ndarray:
        found = answer(columns.raw(asked.inputs)).reshape(-1, *shape)
        return found * scale * asked.wind_speed[:, None, None, None, None]

    return predict


def coordinate_mlp(data: SimulationSet, site: Site) -> Predict:
    """Learn the wind at a place in the house from the columns and the place."""
    columns, fields, shape = Columns.of(data, site), over_speed(data), data.wind.shape[1:]
    scale = fields.std()
    axes = [torch.linspace(-1, 1, n) for n in shape[1:]]
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    known = torch.tensor(columns(data.inputs), dtype=torch.float32)
    wanted = torch.tensor(fields.reshape(len(fields), 3, -1) / scale, dtype=torch.float32)
    with alone():
        network = mlp(known.shape[1] + 3, 3, 128, 4)

        def loss() -> Tensor:
            i, j = torch.randint(0, len(known), (4096,)), torch.randint(0, len(cells), (4096,))
            found = network(torch.cat([known[i], cells[j]], dim=1))
            return ((found - wanted[i, :, j]) ** 2).mean()

        descend(network, loss, steps=2500, weight_decay=1e-2)

    def predict(asked: SimulationSet) -> np.ndarray:
        rows = torch.tensor(columns(asked.inputs), dtype=torch.float32)
        with torch.inference_mode():
            found = [network(torch.cat([r.expand(len(cells), -1), cells], 1)).T for r in rows]
        wind = torch.stack(found).numpy().reshape(-1, *shape) * scale
        return wind * asked.wind_speed[:, None, None, None, None]

    return predict
