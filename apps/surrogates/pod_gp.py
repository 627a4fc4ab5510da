"""POD + Gaussian processes: modes of the training fields, their coefficients by kriging.

Proper orthogonal decomposition with a Gaussian process for the coefficients (Guo and Hesthaven
2018, "Reduced order modeling for nonlinear structural analysis using Gaussian process regression",
Comput. Methods Appl. Mech. Eng. 341:807), with a kernel made for this flow
(`apps.surrogates.scenario_kernel`): a circle of directions, the site's mirrors built in, fields
over the wind speed. It takes what `pod_regression` cannot: the state of the house and a tear.

1. Fields are divided by the wind speed and split by the site's mirrors; each part has its POD basis
   (`apps.surrogates.pod`) and a Gaussian process for its coefficients. All share lengths and
   strengths of the kernel; each has its own noise.
2. Lengths, strengths and noise are those with the smallest leave-one-out error, found one after the
   other (Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eq. 5.10 to 5.12).
3. The standard deviation is the process's own: it grows with the distance to the runs. Its
   size is that of the leave-one-out errors.

What has to do with covariances is float64, in the exported graph too: with a hundred runs the
variance that is left is a difference of numbers that are alike to six digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from pydantic import Field

from apps.errors import TrainingError
from apps.surrogates.base import UNCONDITIONAL, Conditions, check_training_data
from apps.surrogates.pod import Basis, PodPart, decompose, kept_basis
from apps.surrogates.pod_regression import MINIMUM_STD
from apps.surrogates.scenario_kernel import Coordinates, Hyper, ScenarioKernel
from apps.surrogates.symmetry import IDENTITY, symmetries
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    import onnx

    from apps.simulation_set import SimulationSet

#: What is tried of each length and strength, one after the other, so many times round.
_TRIED: dict[str, tuple[float, ...]] = {
    "direction_scale": (1.0, 2.0, 4.0, 8.0),
    "speed_decay": (0.03, 0.1, 0.3),
    "scalar_decay": (0.03, 0.1, 0.2),
    "tear_direction_scale": (2.0, 4.0, 8.0),
    "tear_strength": (0.03, 0.1, 0.3, 1.0),
    "tear_reach": (15.0, 30.0, 60.0),
}
_ROUNDS = 2
#: Less would be chosen by chance: with 64 runs it cost half as much error again.
_NOISES = tuple(10.0**e for e in range(-6, 0))


class Settings(Contract):
    """Settings of POD + Gaussian processes."""

    symmetry: bool = True
    """Use the mirror symmetries that the site has."""
    harmonics: Annotated[int, Field(ge=2, le=64)] = 24
    """Highest harmonic of wind direction."""
    degree: Annotated[int, Field(ge=1, le=8)] = 4
    """Highest polynomial degree in wind speed and in each scalar of the state."""
    speed_scale: Annotated[float, Field(gt=0)] = 1.0
    """Wind speed around which the dependence on speed levels off, m/s."""
    tear_waves: Annotated[int, Field(ge=0, le=16)] = 5
    """Highest harmonic of a tear's place on its panel."""
    dropped_energy: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Share of the fields' mean square that the POD basis may leave out."""
    modes: Annotated[int, Field(ge=1, le=1024)] = 160
    """Most POD modes."""
    minimum_runs: Annotated[int, Field(ge=4)] = 8
    """Fewest training runs."""
    maximum_runs: Annotated[int, Field(ge=8)] = 1024
    """Most training runs: time grows with their third power, the model with their square."""


@dataclass(frozen=True)
class Process:
    """The Gaussian process of one symmetry part, as it is exported."""

    whiten: np.ndarray
    """(n, n) float64: transpose of the inverse of the Cholesky factor of the runs' covariance."""
    weights: np.ndarray
    """(n, r) float64: whitened coefficients."""
    modes: np.ndarray
    """(r, d) float32."""
    variance: np.ndarray
    """(d,) float32: of the field over the wind speed, where the process knows nothing."""
    noise: float
    """Variance of a run's noise over the kernel's."""
    part: int
    """Its place in the kernel's parts."""
    character: np.ndarray
    """(mirrors,): how it behaves under the site's mirrors."""


@dataclass(frozen=True)
class PodGp:
    """A trained surrogate."""

    kernel: ScenarioKernel
    hyper: Hyper
    runs: Coordinates
    """Of the training runs."""
    processes: tuple[Process, ...]
    residual_variance: np.ndarray
    """(d,) float32: mean square that the modes leave out, over the wind speed squared."""
    shape: tuple[int, int, int]
    """(nz, ny, nx)."""
    chosen: dict[str, Any]
    """What training chose."""

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return wind and standard deviation; see `apps.surrogates.base.Surrogate`."""
        shape = (-1, 3, *self.shape)
        wind, std = [], []
        for some in np.array_split(np.asarray(inputs, np.float32), max(1, len(inputs) // 64)):
            asked = self.kernel.coordinates(some)
            covariance = self.kernel.between(asked, self.runs, self.hyper)
            prior = self.kernel.itself(asked, self.hyper)
            fields = np.zeros((len(some), len(self.residual_variance)))
            variance = np.tile(self.residual_variance.astype(float), (len(some), 1))
            for p in self.processes:
                z = covariance[p.part] @ p.whiten
                fields += z @ p.weights @ p.modes.astype(float)
                unknown = np.maximum(prior[p.part] - (z**2).sum(axis=1), 0.0) + p.noise
                variance += unknown[:, None] * p.variance.astype(float)
            speed = some[:, :1].astype(float)
            wind.append((speed * fields).reshape(shape))
            std.append((speed * np.sqrt(variance) + MINIMUM_STD).reshape(shape))
        return np.concatenate(wind).astype(np.float32), np.concatenate(std).astype(np.float32)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph; see `apps.surrogates.base.Surrogate`."""
        from apps.surrogates.pod_gp_onnx import build

        return build(self)

    def summary(self) -> dict[str, Any]:
        """Return lengths, strengths, noise, and the leave-one-out error."""
        return self.chosen

    def state(self) -> dict[str, np.ndarray]:
        """Return the POD basis: all else is fitted anew, in closed form."""
        named = {f"modes_{p.part}": p.modes for p in self.processes}
        return named | {f"character_{p.part}": p.character for p in self.processes}


def fit(
    data: SimulationSet,
    site: Site,
    settings: Settings,
    seed: int,  # noqa: ARG001 - nothing is drawn
    conditions: Conditions = UNCONDITIONAL,
) -> PodGp:
    """Train; see `apps.surrogates.base.FitFunction`."""
    check_training_data(data, settings.minimum_runs, state=True)
    if len(data.digests) > settings.maximum_runs:
        msg = f"{len(data.digests)} runs are more than maximum_runs = {settings.maximum_runs}"
        raise TrainingError(f"{msg}; raise it, or take a network", runs=len(data.digests))
    data = data.take(np.argsort(np.array(data.digests)))
    speed = data.wind_speed.astype(float)
    fields = data.wind.astype(float) / speed[:, None, None, None, None]
    group = symmetries(site) if settings.symmetry else (IDENTITY,)
    kept = kept_basis(conditions.start, group, fields[0].size, _basis)
    parts, residual = decompose(fields, group, settings.dropped_energy, settings.modes, kept)
    kernel = ScenarioKernel.of(
        data,
        site,
        group,
        harmonics=settings.harmonics,
        degree=settings.degree,
        speed_scale=settings.speed_scale,
        waves=settings.tear_waves,
    )
    runs = kernel.coordinates(data.inputs)
    fits, hyper = _search(kernel, runs, parts)
    total = float((fields**2).sum(axis=(1, 2, 3, 4)).mean())
    left_out = sum(f.loss for f in fits) / len(fields)
    chosen = {
        "runs": len(fields),
        "mirrors": len(group),
        "modes": sum(len(p.modes) for p in parts),
        "basis_kept": kept is not None,
        "dropped_energy": float(residual.sum() / total),
        "leave_one_out_relative_l2": float(np.sqrt((left_out + residual.sum()) / total)),
        "noise": [f.noise for f in fits],
    } | {name: getattr(hyper, name) for name in _searched(kernel)}
    return PodGp(
        kernel=kernel,
        hyper=hyper,
        runs=runs,
        processes=tuple(_process(f, p) for f, p in zip(fits, parts, strict=True)),
        residual_variance=residual.astype(np.float32),
        shape=cast("tuple[int, int, int]", data.wind.shape[2:]),
        chosen=chosen,
    )


@dataclass(frozen=True)
class _Fit:
    """A part's process for one choice of lengths and strengths."""

    part: int
    covariance: np.ndarray
    """(n, n), without noise."""
    noise: float
    loss: float
    """Sum of squared leave-one-out errors of the coefficients."""


def _search(
    kernel: ScenarioKernel, runs: Coordinates, parts: list[PodPart]
) -> tuple[list[_Fit], Hyper]:
    """Return the best fit of each part, and the lengths and strengths that all share."""
    best = Hyper()
    fits = _fitted(kernel, runs, parts, best)
    for _ in range(_ROUNDS):
        before = best
        for name in _searched(kernel):
            for value in _TRIED[name]:
                if value == getattr(best, name):
                    continue
                other = replace(best, **{name: value})
                found = _fitted(kernel, runs, parts, other)
                if sum(f.loss for f in found) < sum(f.loss for f in fits):
                    best, fits = other, found
        if best == before:
            break
    return fits, best


def _searched(kernel: ScenarioKernel) -> Iterator[str]:
    """Yield what matters of `Hyper` for a kernel."""
    for name in _TRIED:
        if name.startswith("tear_"):
            matters = bool(kernel.space.panels)
        else:
            matters = name != "scalar_decay" or bool(kernel.space.scalars)
        if matters:
            yield name


def _fitted(
    kernel: ScenarioKernel, runs: Coordinates, parts: list[PodPart], hyper: Hyper
) -> list[_Fit]:
    covariances = kernel.between(runs, runs, hyper)
    found = []
    for p in parts:
        place = int(np.flatnonzero((kernel.parts == p.character).all(axis=1))[0])
        covariance = covariances[place]
        values, vectors = np.linalg.eigh(covariance)
        values = np.maximum(values, 0.0)
        projected, squares = vectors.T @ p.coefficients, vectors**2
        best = (np.inf, _NOISES[0])
        for noise in _NOISES:
            inverse = 1.0 / (values + noise)
            # The error at a run left out: [K^-1 y]_i / [K^-1]_ii.
            errors = vectors @ (inverse[:, None] * projected) / (squares @ inverse)[:, None]
            best = min(best, (float((errors**2).sum()), noise))
        found.append(_Fit(place, covariance, best[1], best[0]))
    return found


def _process(fit: _Fit, part: PodPart) -> Process:
    n = len(fit.covariance)
    lower = np.linalg.cholesky(fit.covariance + fit.noise * np.eye(n))
    whiten = np.linalg.inv(lower).T
    weights = whiten.T @ part.coefficients
    # Each mode's variance by maximum likelihood; all of them so that the errors left out fit.
    sizes = (weights**2).mean(axis=0)
    expected = sizes.sum() * (1.0 / (whiten**2).sum(axis=1)).sum()
    scale = fit.loss / max(expected, np.finfo(float).tiny)
    return Process(
        whiten=whiten,
        weights=weights,
        modes=part.modes.astype(np.float32),
        variance=(scale * sizes @ part.modes**2).astype(np.float32),
        noise=fit.noise,
        part=fit.part,
        character=part.character,
    )


def _basis(state: Mapping[str, np.ndarray]) -> Basis:
    names = [k.removeprefix("modes_") for k in state if k.startswith("modes_")]
    modes = [np.asarray(state[f"modes_{n}"], float) for n in names]
    ways = [
        np.tile(state[f"character_{n}"], (len(m), 1)) for n, m in zip(names, modes, strict=True)
    ]
    return Basis(np.concatenate(ways), np.concatenate(modes))
