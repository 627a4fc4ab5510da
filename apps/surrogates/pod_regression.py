"""POD + regression: modes of the training fields, their coefficients regressed on the scenario.

The literature's principal component regression (Jolliffe 1982, "A note on the use of principal
components in regression", Applied Statistics 31(3):300; for flows: proper orthogonal decomposition
with interpolation, Ly and Tran 2001, Math. Comput. Modelling 33:223).

1. Fields are divided by the wind speed. What is left depends on direction and, because a screen's
   loss coefficient falls with speed, smoothly on speed.
2. The site's mirror symmetries split the fields into parts that mirrors leave unchanged or negate.
   A part couples only to those functions of direction that behave alike, so each part is fitted by
   itself. This equals training on all mirrored copies, without making them.
3. Each part has its POD basis. Its coefficients are regressed on harmonics of direction times
   polynomials of speed by ridge regression; strength and smoothness are those with the smallest
   leave-one-out error of the part, so detail enters as the runs come in that support it. (Chosen
   mode by mode, or by marginal likelihood, the error with 8 to 16 runs was a fifth larger.)
4. The spread of an ensemble of members, each trained without one fold of the runs (delete-a-group
   jackknife, Kott 2001, J. Official Statistics 17:521), and the leave-one-out residual of every
   cell make the standard deviation.

Everything is closed-form float64 linear algebra in the order of the runs' digests: equal data, seed
and settings give equal numbers on one machine. BLAS sums in an order that may depend on its number
of threads; set ``OPENBLAS_NUM_THREADS`` where machines are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
from pydantic import Field

from apps.surrogates.base import UNCONDITIONAL, Conditions, check_training_data
from apps.surrogates.pod import Basis, PodPart, decompose, kept_basis
from apps.surrogates.spectral import TensorBasis
from apps.surrogates.symmetry import IDENTITY, symmetries
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    import onnx

    from apps.simulation_set import SimulationSet

#: Added to every standard deviation, m/s: it must not vanish in a calm.
MINIMUM_STD = 1e-3

_DIRECTION_SCALES = (1.0, 2.0, 4.0, 8.0)
_SPEED_DECAYS = (0.01, 0.1, 0.5)
_RIDGES = tuple(10.0**e for e in range(-7, 1))


class Settings(Contract):
    """Settings of POD + regression."""

    members: Annotated[int, Field(ge=2, le=64)] = 8
    """Members of the ensemble behind the standard deviation."""
    symmetry: bool = True
    """Use the mirror symmetries that the site has."""
    harmonics: Annotated[int, Field(ge=2, le=64)] = 32
    """Highest harmonic of wind direction on offer; the regression decides what to use."""
    speed_degree: Annotated[int, Field(ge=0, le=8)] = 4
    """Highest polynomial degree in wind speed on offer."""
    speed_scale: Annotated[float, Field(gt=0)] = 1.0
    """Wind speed around which the dependence on speed levels off, m/s; 0.5 to 2 serve alike."""
    dropped_energy: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Share of the fields' mean square that the POD basis may leave out."""
    modes: Annotated[int, Field(ge=1, le=1024)] = 128
    """Most POD modes."""
    minimum_runs: Annotated[int, Field(ge=4)] = 8
    """Fewest training runs; at least one per member is needed too."""


@dataclass(frozen=True)
class Regression:
    """How one symmetry part follows from the scenario."""

    character: np.ndarray
    """(mirrors,): how it behaves under the site's mirrors, +1 or -1."""
    functions: np.ndarray
    """(p,) int64: the products that behave like the part."""
    weights: np.ndarray
    """(p, 1 + members, r) float32: of the prediction, then the scaled deviations of the members."""

    @property
    def name(self) -> str:
        """A name that stays from release to release: the part's first function."""
        return f"from_{self.functions[0]}"


@dataclass(frozen=True)
class PodRegression:
    """A trained surrogate: weights in float32, as they are exported."""

    basis: TensorBasis
    parts: tuple[Regression, ...]
    """One per symmetry part, in the order of the modes."""
    modes: np.ndarray
    """(modes, 3 nz ny nx): POD modes of the wind over the wind speed."""
    residual_variance: np.ndarray
    """(3 nz ny nx,): mean square leave-one-out error over the wind speed squared."""
    shape: tuple[int, int, int]
    """(nz, ny, nx)."""
    chosen: dict[str, Any]
    """What training chose."""

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return wind and standard deviation; see `apps.surrogates.base.Surrogate`."""
        modes, residual = self.modes.astype(float), self.residual_variance.astype(float)
        shape = (-1, 3, *self.shape)
        wind, std = [], []
        # Slices keep the members' fields small.
        for part in np.array_split(np.asarray(inputs, np.float32), max(1, len(inputs) // 64)):
            products = self.basis.evaluate(part)
            coefficients = [
                np.tensordot(products[:, p.functions], p.weights.astype(float), axes=1)
                for p in self.parts
            ]
            fields = np.concatenate(coefficients, axis=2) @ modes
            speed = part[:, :1].astype(float)
            variance = (fields[:, 1:] ** 2).sum(axis=1) + residual
            wind.append((speed * fields[:, 0]).reshape(shape))
            std.append((speed * np.sqrt(variance) + MINIMUM_STD).reshape(shape))
        return np.concatenate(wind).astype(np.float32), np.concatenate(std).astype(np.float32)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph; see `apps.surrogates.base.Surrogate`."""
        from apps.surrogates.pod_onnx import build

        return build(self)

    def summary(self) -> dict[str, Any]:
        """Return the orders and strengths chosen, and the leave-one-out error."""
        return self.chosen

    def state(self) -> dict[str, np.ndarray]:
        """Return the POD basis: all else is fitted anew, in closed form."""
        state, first = {}, 0
        for part in self.parts:
            last = first + part.weights.shape[2]
            state[f"modes_{part.name}"] = self.modes[first:last]
            state[f"character_{part.name}"] = part.character
            first = last
        return state


def fit(
    data: SimulationSet,
    site: Site,
    settings: Settings,
    seed: int,
    conditions: Conditions = UNCONDITIONAL,
) -> PodRegression:
    """Train; see `apps.surrogates.base.FitFunction`."""
    check_training_data(data, max(settings.minimum_runs, settings.members))
    order = np.argsort(np.array(data.digests))
    speed = data.wind_speed[order].astype(float)
    inputs = np.stack([speed, data.wind_from_direction[order]], axis=1)
    fields = data.wind[order].astype(float) / speed[:, None, None, None, None]
    basis = TensorBasis(
        bearing=site.footprint.x_axis_bearing,
        harmonics=settings.harmonics,
        degree=settings.speed_degree,
        lowest=float(speed.min()),
        highest=float(speed.max()),
        speed_scale=settings.speed_scale,
    )
    group = symmetries(site) if settings.symmetry else (IDENTITY,)
    kept = kept_basis(conditions.start, group, fields[0].size, _basis)
    parts, residual = decompose(fields, group, settings.dropped_energy, settings.modes, kept)
    signs = np.stack([basis.signs(m) for m in group])
    products = basis.evaluate(inputs)
    folds = np.random.default_rng(seed).permutation(len(order)) % settings.members

    regressions, squared, choices = [], residual, []
    for part in parts:
        functions = np.flatnonzero((signs == part.character[:, None]).all(axis=0))
        regression, errors, choice = _regress(
            part, functions, basis, products, folds, settings.members
        )
        regressions.append(regression)
        squared = squared + ((errors @ part.modes) ** 2).mean(axis=0)
        choices.append({"modes": len(part.modes)} | choice)
    total = float((fields**2).sum(axis=(1, 2, 3, 4)).mean())
    chosen = {
        "runs": len(order),
        "mirrors": len(group),
        "modes": sum(len(p.modes) for p in parts),
        "basis_kept": kept is not None,
        "dropped_energy": float(residual.sum() / total),
        "leave_one_out_relative_l2": float(np.sqrt(squared.sum() / total)),
        "parts": choices,
    }
    return PodRegression(
        basis=basis,
        parts=tuple(regressions),
        modes=np.concatenate([p.modes for p in parts]).astype(np.float32),
        residual_variance=squared.astype(np.float32),
        shape=cast("tuple[int, int, int]", data.wind.shape[2:]),
        chosen=chosen,
    )


def _basis(state: Mapping[str, np.ndarray]) -> Basis:
    names = [k.removeprefix("modes_") for k in state if k.startswith("modes_")]
    modes = [np.asarray(state[f"modes_{n}"], float) for n in names]
    ways = [
        np.tile(state[f"character_{n}"], (len(m), 1)) for n, m in zip(names, modes, strict=True)
    ]
    return Basis(np.concatenate(ways), np.concatenate(modes))


def _regress(
    part: PodPart,
    functions: np.ndarray,
    basis: TensorBasis,
    products: np.ndarray,
    folds: np.ndarray,
    members: int,
) -> tuple[Regression, np.ndarray, dict[str, float]]:
    """Regress a part's coefficients; return that, its leave-one-out errors (n, r), the choice."""
    y = part.coefficients
    best, smallest = (0.0, 0.0, 0.0), np.inf
    errors = y
    for scale, decay in product(_DIRECTION_SCALES, _SPEED_DECAYS):
        x = products[:, functions] * np.sqrt(basis.prior(scale, decay)[functions])
        for ridge, error in zip(_RIDGES, leave_one_out(x, y, _RIDGES), strict=True):
            if (loss := float((error**2).sum())) < smallest:
                best, smallest, errors = (scale, decay, ridge), loss, error
    scale, decay, ridge = best
    root = np.sqrt(basis.prior(scale, decay)[functions])
    x = products[:, functions] * root
    centre = _ridge(x, y, ridge)
    # The jackknife's variance is (members - 1) / members times the sum of squared deviations.
    spread = [
        (_ridge(x[folds != m], y[folds != m], ridge) - centre) * np.sqrt((members - 1) / members)
        for m in range(members)
    ]
    weights = np.stack([centre, *spread], axis=1) * root[:, None, None]
    choice = {"direction_scale": scale, "speed_decay": decay, "ridge": ridge}
    return Regression(part.character, functions, weights.astype(np.float32)), errors, choice


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Return argmin |x w - y|^2 + ridge |w|^2, (p, r)."""
    if x.shape[0] < x.shape[1]:
        gram = x @ x.T + ridge * np.eye(len(x))
        return np.asarray(x.T @ np.linalg.solve(gram, y))
    gram = x.T @ x + ridge * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, x.T @ y))


def leave_one_out(x: np.ndarray, y: np.ndarray, ridges: tuple[float, ...]) -> list[np.ndarray]:
    """Return the leave-one-out errors of ridge regression, exactly and without refitting.

    The error at a run left out is its residual over one minus its leverage (Allen 1974, "The
    relationship between variable selection and data augmentation", Technometrics 16:125).

    Parameters
    ----------
    x : (n, p) array
    y : (n, r) array
    ridges : tuple of float

    Returns
    -------
    list of (n, r) float64, one per ridge
    """
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    out = []
    for ridge in ridges:
        shrink = s**2 / (s**2 + ridge)
        leverage = (u**2) @ shrink
        residual = y - u @ (shrink[:, None] * projected)
        out.append(residual / np.maximum(1.0 - leverage, 1e-9)[:, None])
    return out
