"""The regression basis: harmonics of the wind direction times polynomials of the wind speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apps.surrogates.symmetry import Mirror


@dataclass(frozen=True)
class TensorBasis:
    """Products of cos(k phi), sin(k phi) and Chebyshev polynomials T_d(t).

    phi is the direction that the wind blows *to*, counter-clockwise from the house's +x axis, so
    that a mirror of the house changes at most a function's sign. t is U / (U + speed_scale), scaled
    to [-1, 1] over the training range and held at its ends: beyond, the flow keeps the pattern of
    the nearest speed learnt. A screen's loss coefficient a / U + b changes fast in light wind and
    hardly in strong, and so does t.
    """

    bearing: float
    """Compass bearing of the house's +x axis, degrees."""
    harmonics: int
    """Highest k."""
    degree: int
    """Highest d."""
    lowest: float
    """Slowest wind of the training set, m/s."""
    highest: float
    """Fastest wind of the training set, m/s."""
    speed_scale: float
    """Wind speed around which the flow's dependence on speed levels off, m/s."""

    @property
    def wavenumbers(self) -> np.ndarray:
        """(2 harmonics + 1,) int: k of each function of direction: 1, cosines, sines."""
        k = np.arange(1, self.harmonics + 1)
        return np.concatenate([[0], k, k])

    @property
    def sines(self) -> np.ndarray:
        """(2 harmonics + 1,) bool: which functions of direction are sines."""
        return np.arange(2 * self.harmonics + 1) > self.harmonics

    @property
    def size(self) -> int:
        """Number of products."""
        return (2 * self.harmonics + 1) * (self.degree + 1)

    @property
    def speed_map(self) -> tuple[float, float]:
        """(a, b) of t = a U / (U + speed_scale) + b."""
        low, high = (u / (u + self.speed_scale) for u in (self.lowest, self.highest))
        if high - low < 1e-6:
            return (0.0, 0.0)
        return (2 / (high - low), -(high + low) / (high - low))

    def evaluate(self, inputs: np.ndarray) -> np.ndarray:
        """Return every product.

        Parameters
        ----------
        inputs : (n, 2) array
            Wind speed (m/s) and the direction it comes from (degrees).

        Returns
        -------
        (n, size) float64
            Direction-major; each function of direction has mean square one.
        """
        speed, from_direction = np.asarray(inputs, dtype=float).T
        h, g = self.waves(from_direction), self.polynomials(speed)
        return np.asarray((h[:, :, None] * g[:, None, :]).reshape(len(speed), -1))

    def waves(self, from_direction: np.ndarray) -> np.ndarray:
        """Return every function of direction (degrees), (n, 2 harmonics + 1) float64."""
        phi = np.deg2rad(self.bearing - 180.0 - np.asarray(from_direction, float))
        shift = np.where(self.sines, np.pi / 2, 0.0)
        return np.asarray(np.cos(phi[:, None] * self.wavenumbers - shift) * self.amplitudes)

    def polynomials(self, speed: np.ndarray) -> np.ndarray:
        """Return every polynomial of speed (m/s), (n, degree + 1) float64."""
        a, b = self.speed_map
        held = np.clip(np.asarray(speed, float), self.lowest, self.highest)
        return chebyshev(a * held / (held + self.speed_scale) + b, self.degree)

    @property
    def amplitudes(self) -> np.ndarray:
        """(2 harmonics + 1,) factors that give each function of direction mean square one."""
        return np.where(self.wavenumbers == 0, 1.0, np.sqrt(2.0))

    def signs(self, mirror: Mirror) -> np.ndarray:
        """Return the factor (+1 or -1) that each product takes in a mirror, (size,) float64."""
        return np.repeat(self.wave_signs(mirror), self.degree + 1)

    def wave_signs(self, mirror: Mirror) -> np.ndarray:
        """Return the factor that each function of direction takes in a mirror, float64."""
        # phi becomes pi - phi where x flips, and -phi where y flips.
        odd_x = (self.wavenumbers % 2 == 1) != self.sines
        flipped = (mirror[0] & odd_x) ^ (mirror[1] & self.sines)
        return np.where(flipped, -1.0, 1.0)

    def spectrum(self, direction_scale: float) -> np.ndarray:
        """Return the prior variance of each function of direction; see `prior`."""
        return np.asarray((1.0 + (self.wavenumbers / direction_scale) ** 2) ** -2.5)

    def prior(self, direction_scale: float, speed_decay: float) -> np.ndarray:
        """Return the prior variance of each product's weight; they sum to one.

        Ridge regression with these is Gaussian-process regression with a kernel that is Matern-like
        on the circle, smooth in speed: fine structure is allowed, but has to be earned.

        Parameters
        ----------
        direction_scale : float
            Wavenumber at which the spectrum starts to fall, dimensionless.
        speed_decay : float
            Ratio of the variances of successive polynomials, 0 to 1.

        Returns
        -------
        (size,) float64
        """
        spectrum = self.spectrum(direction_scale)
        decay = speed_decay ** np.arange(self.degree + 1)
        prior = (spectrum[:, None] * decay).reshape(-1)
        return np.asarray(prior / prior.sum())


def chebyshev(t: np.ndarray, degree: int) -> np.ndarray:
    """Return Chebyshev polynomials T_0 to T_degree of t, held to [-1, 1]: (n, degree + 1)."""
    held = np.clip(np.asarray(t, float), -1.0, 1.0)
    return np.asarray(np.cos(np.arccos(held)[:, None] * np.arange(degree + 1)))
