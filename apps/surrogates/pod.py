"""Proper orthogonal decomposition of a site's fields, split by its mirror symmetries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from apps.surrogates.base import WarmStart
from apps.surrogates.symmetry import Mirror, mirror_field


@dataclass(frozen=True)
class PodPart:
    """The modes of one symmetry part."""

    character: np.ndarray
    """(mirrors,) float64: +1 where a mirror leaves the part unchanged, -1 where it negates it."""
    modes: np.ndarray
    """(r, d) float64: orthonormal, strongest first."""
    coefficients: np.ndarray
    """(n, r) float64: of the training fields."""


@dataclass(frozen=True)
class Basis:
    """Modes kept from an earlier training."""

    characters: np.ndarray
    """(r, mirrors): of the part that each mode belongs to."""
    modes: np.ndarray
    """(r, d)."""


def characters(group: tuple[Mirror, ...]) -> np.ndarray:
    """Return the ways in which a part can behave under the mirrors, (parts, mirrors) of +1, -1."""
    ways = [[(-1.0) ** (a * m[0] + b * m[1]) for m in group] for a, b in product((0, 1), repeat=2)]
    return np.unique(np.array(ways), axis=0)


def kept_basis(start: WarmStart | None, group: tuple[Mirror, ...], size: int) -> Basis | None:
    """Return the modes to keep, None if there are none to keep or they are of another site."""
    if start is None or not start.keep_basis:
        return None
    modes, ways = (np.asarray(start.state[k], float) for k in ("modes", "characters"))
    if modes.shape[1] != size or ways.shape[1] != len(group):
        return None
    return Basis(ways, modes)


def decompose(
    fields: np.ndarray,
    group: tuple[Mirror, ...],
    dropped_energy: float,
    most: int,
    kept: Basis | None = None,
) -> tuple[list[PodPart], np.ndarray]:
    """Split fields by symmetry and each part into POD modes.

    Parameters
    ----------
    fields : (n, 3, nz, ny, nx) float64
        Wind over wind speed, dimensionless.
    group : tuple of (bool, bool)
        Mirrors of the site, the identity first.
    dropped_energy : float
        Share of the mean square that the modes may leave out.
    most : int
        Most modes.
    kept : Basis, optional
        Modes to use as they are, in place of new ones.

    Returns
    -------
    parts : list of PodPart
        Parts without energy are left out.
    residual : (d,) float64
        Mean square, over runs, of what the modes leave out.
    """
    n = len(fields)
    mirrored = [mirror_field(fields, m) for m in group]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for character in characters(group):
        part = sum(s * f for s, f in zip(character, mirrored, strict=True)) / len(group)
        found.append((character, np.asarray(part).reshape(n, -1)))
    if kept is not None:
        return _projected(found, kept)
    # The n x n Gram matrix: there are far fewer runs than cells.
    eigen = [np.linalg.eigh(part @ part.T) for _, part in found]
    energies = [np.maximum(values[::-1], 0.0) for values, _ in eigen]
    everything = np.sort(np.concatenate(energies))[::-1]
    wanted = np.cumsum(everything) < (1 - dropped_energy) * everything.sum()
    # Directions with no more energy than round-off are not modes.
    count = min(int(wanted.sum()) + 1, most)
    threshold = max(everything[min(count, len(everything)) - 1], 1e-12 * everything[0])
    parts, residual = [], np.zeros(fields[0].size)
    for (character, part), energy, (_, vectors) in zip(found, energies, eigen, strict=True):
        r = int((energy >= threshold).sum())
        if r == 0:
            residual += (part**2).mean(axis=0)
            continue
        v = vectors[:, ::-1][:, :r]
        v = v * np.where(v[np.abs(v).argmax(axis=0), np.arange(r)] < 0, -1.0, 1.0)
        scale = np.sqrt(energy[:r])
        modes = (v / scale).T @ part
        coefficients = v * scale
        residual += ((part - coefficients @ modes) ** 2).mean(axis=0)
        parts.append(PodPart(character, modes, coefficients))
    return parts, residual


def _projected(
    found: list[tuple[np.ndarray, np.ndarray]], kept: Basis
) -> tuple[list[PodPart], np.ndarray]:
    parts, residual = [], np.zeros(kept.modes.shape[1])
    for character, part in found:
        modes = kept.modes[(kept.characters == character).all(axis=1)]
        coefficients = part @ modes.T
        residual += ((part - coefficients @ modes) ** 2).mean(axis=0)
        if len(modes):
            parts.append(PodPart(character, modes, coefficients))
    return parts, residual
