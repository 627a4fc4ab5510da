"""The covariance of flows in two scenarios: smooth on the circle, in speed, state and tear.

k(x, x') = p(x, x') [ d(x, x') + strength sum over b of e(x, x') t_b(x, x') ]

p is a product over wind speed and the scalars of the state, each sum_j r^j T_j T_j' of Chebyshev
polynomials with falling variances; d and e are sums over harmonics of direction with Matern-like
spectra (`apps.surrogates.spectral`); t is a sum over functions of a tear
(`apps.surrogates.tear_features`). All are products of features that a mirror of the house changes
by a sign at most, so the covariance of a symmetry part is the part of the sum whose signs behave
like it, exactly: the same as that of all mirrored copies, without making them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from apps.simulation_set import SimulationSet
from apps.space import Space
from apps.surrogates.pod import characters
from apps.surrogates.spectral import TensorBasis, chebyshev
from apps.surrogates.symmetry import Mirror
from apps.surrogates.tear_features import TearFeatures
from edge_agent.contracts.site import Site


@dataclass(frozen=True)
class Hyper:
    """Lengths and strengths of the kernel."""

    direction_scale: float = 2.0
    """Wavenumber at which the spectrum of the whole house starts to fall."""
    speed_decay: float = 0.1
    """Ratio of the variances of successive polynomials of speed."""
    scalar_decay: float = 0.1
    """The same of the scalars of the state."""
    tear_direction_scale: float = 4.0
    """Wavenumber at which the spectrum of what a tear does starts to fall."""
    tear_strength: float = 0.3
    """Variance of what a tear `apps.space.WIDE` wide does, over that of the flow."""
    tear_reach: float = 30.0
    """Distance within which tears of one panel do alike, m."""


@dataclass(frozen=True)
class Coordinates:
    """Scenarios as the kernel sees them."""

    waves: np.ndarray
    """(n, functions of direction)."""
    polynomials: tuple[np.ndarray, ...]
    """(n, degree + 1) each: of speed, then of each scalar."""
    tears: np.ndarray
    """(n, features of a tear)."""


#: Picks some features of scenarios.
Pick = Callable[[Coordinates], np.ndarray]


@dataclass(frozen=True)
class ScenarioKernel:
    """Kernel of one training set's range."""

    basis: TensorBasis
    """Functions of direction and of speed."""
    space: Space
    limits: tuple[tuple[float, float], ...]
    """Range of each scaled scalar in training."""
    tears: TearFeatures
    parts: np.ndarray
    """(parts, mirrors): ways in which something can behave under the mirrors."""
    wave_signs: np.ndarray
    """(mirrors, functions of direction)."""

    @classmethod
    def of(
        cls,
        data: SimulationSet,
        site: Site,
        group: tuple[Mirror, ...],
        *,
        harmonics: int,
        degree: int,
        speed_scale: float,
        waves: int,
    ) -> ScenarioKernel:
        """Return the kernel over the range of a training set.

        Parameters
        ----------
        data : SimulationSet
        site : Site
        group : tuple of (bool, bool)
            Mirrors that are used, the identity first.
        harmonics, degree : int
            Highest harmonic of direction; highest degree in speed and scalars.
        speed_scale : float, m/s
            Around which the dependence on speed levels off.
        waves : int
            Highest harmonic of a tear's place.
        """
        speed, space = data.wind_speed.astype(float), data.space
        basis = TensorBasis(
            bearing=site.footprint.x_axis_bearing,
            harmonics=harmonics,
            degree=degree,
            lowest=float(speed.min()),
            highest=float(speed.max()),
            speed_scale=speed_scale,
        )
        scaled = [s.scaled(data.state[:, j]) for j, s in enumerate(space.scalars)]
        return cls(
            basis=basis,
            space=space,
            limits=tuple((float(v.min()), float(v.max())) for v in scaled),
            tears=TearFeatures.of(site, space, group, powers=2, waves=waves),
            parts=characters(group),
            wave_signs=np.stack([basis.wave_signs(m) for m in group]),
        )

    def coordinates(self, inputs: np.ndarray) -> Coordinates:
        """Return the coordinates of scenarios, (n, 2 + columns): speed, direction and state."""
        inputs = np.asarray(inputs, float)
        count = len(self.space.scalars)
        polynomials = [self.basis.polynomials(inputs[:, 0])]
        for j, (scalar, (low, high)) in enumerate(
            zip(self.space.scalars, self.limits, strict=True)
        ):
            width = max(high - low, 1e-6)
            t = (2.0 * scalar.scaled(inputs[:, 2 + j]) - (high + low)) / width
            polynomials.append(chebyshev(t, self.basis.degree))
        tears = np.empty((len(inputs), 0))
        if self.space.panels:
            tears = self.tears.evaluate(inputs[:, 2 + count : 5 + count])
        return Coordinates(self.basis.waves(inputs[:, 1]), tuple(polynomials), tears)

    def spectra(self, hyper: Hyper) -> tuple[np.ndarray, np.ndarray]:
        """Return the variances of the functions of direction: of the house, of a tear."""
        both = (hyper.direction_scale, hyper.tear_direction_scale)
        house, tear = (self.basis.spectrum(scale) for scale in both)
        return house / house.sum(), tear / tear.sum()

    def decays(self, hyper: Hyper) -> list[np.ndarray]:
        """Return the variances of the polynomials, of speed and of each scalar."""
        powers = np.arange(self.basis.degree + 1)
        ratios = [hyper.speed_decay] + [hyper.scalar_decay] * len(self.limits)
        found = [r**powers for r in ratios]
        return [f / f.sum() for f in found]

    def tear_variances(self, hyper: Hyper) -> np.ndarray:
        """Return the variances of the features of a tear."""
        if not self.space.panels:
            return np.empty(0)
        # A Gaussian correlation over `tear_reach` on a panel of mean length, as a cosine series.
        angle = np.pi * np.arange(self.tears.waves + 1) * hyper.tear_reach
        series = np.exp(-0.5 * (angle / self.tears.lengths.mean()) ** 2)
        return np.asarray(hyper.tear_strength * (series / series.sum())[self.tears.harmonics])

    def behaving(self, signs: np.ndarray, part: int) -> np.ndarray:
        """Return which features, by their (mirrors, features) signs, behave like a part."""
        return np.flatnonzero((signs == self.parts[part][:, None]).all(axis=0))

    def companion(self, part: int, other: int) -> int:
        """Return the part whose product with `other` behaves like `part`."""
        wanted = self.parts[part] * self.parts[other]
        return int(np.flatnonzero((self.parts == wanted).all(axis=1))[0])

    def between(self, a: Coordinates, b: Coordinates, hyper: Hyper) -> np.ndarray:
        """Return the covariance of each part, (parts, n, m)."""
        smooth = np.ones((len(a.waves), len(b.waves)))
        for p, q, decay in zip(a.polynomials, b.polynomials, self.decays(hyper), strict=True):
            smooth *= (p * decay) @ q.T
        return np.stack(
            [smooth * total for total in self._sums(hyper, lambda x, v: (x(a) * v) @ x(b).T)]
        )

    def itself(self, a: Coordinates, hyper: Hyper) -> np.ndarray:
        """Return the variance of each part, (parts, n)."""
        smooth = np.ones(len(a.waves))
        for p, decay in zip(a.polynomials, self.decays(hyper), strict=True):
            smooth *= (p**2) @ decay
        return np.stack([smooth * total for total in self._sums(hyper, lambda x, v: x(a) ** 2 @ v)])

    def _sums(
        self, hyper: Hyper, product: Callable[[Pick, np.ndarray], np.ndarray]
    ) -> list[np.ndarray]:
        """Return the bracket of the kernel for each part; `product` sums over features."""
        house, tear = self.spectra(hyper)
        variances = self.tear_variances(hyper)
        count = range(len(self.parts))

        def direction(part: int, spectrum: np.ndarray) -> np.ndarray:
            which = self.behaving(self.wave_signs, part)
            return product(lambda x: x.waves[:, which], spectrum[which])

        def torn(part: int) -> np.ndarray:
            which = self.behaving(self.tears.signs, part)
            return product(lambda x: x.tears[:, which], variances[which])

        totals = [direction(part, house) for part in count]
        if not len(variances):
            return totals
        turning = [direction(part, tear) for part in count]
        for other in count:
            share = torn(other)
            for part in count:
                totals[part] = totals[part] + turning[self.companion(part, other)] * share
        return totals
