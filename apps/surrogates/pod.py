"""Proper orthogonal decomposition of a site's fields, split by its mirror symmetries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    places: np.ndarray
    """(r,) int: of each mode among those of all parts. Kept modes have the places they had, new
    ones come behind them."""


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


def kept_basis(
    start: WarmStart | None,
    group: tuple[Mirror, ...],
    size: int,
    read: Callable[[Mapping[str, np.ndarray]], Basis],
) -> Basis | None:
    """Return the modes to keep, None if there are none to keep or they are of another site.

    Parameters
    ----------
    start : WarmStart, optional
    group : tuple of (bool, bool)
        Mirrors of the site.
    size : int
        Values of a field.
    read : callable
        Finds the family's basis in its state.
    """
    if start is None or not start.keep_basis:
        return None
    basis = read(start.state)
    if basis.modes.shape[1] != size or basis.characters.shape[1] != len(group):
        return None
    return basis


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
        Modes to use as they are; new ones take up what they leave of new runs.

    Returns
    -------
    parts : list of PodPart
        Parts without energy are left out.
    residual : (d,) float64
        Mean square, over runs, of what the modes leave out.
    """
    n = len(fields)
    mirrored = [mirror_field(fields, m) for m in group]
    found: list[_Split] = []
    for character in characters(group):
        part = sum(s * f for s, f in zip(character, mirrored, strict=True)) / len(group)
        found.append(_split(character, np.asarray(part).reshape(n, -1), kept))
    before = sum(f.kept_energy for f in found)
    everything = np.sort(np.concatenate([f.energies for f in found]))[::-1]
    enough = (1 - dropped_energy) * (before + everything.sum())
    wanted = int((before + np.cumsum(everything) < enough).sum()) + 1 if before < enough else 0
    # Directions with no more energy than round-off are not modes.
    count = max(0, min(wanted, most - sum(len(f.modes) for f in found), len(everything)))
    threshold = max(everything[count - 1], 1e-12 * max(everything[0], before)) if count else np.inf
    parts, residual = [], np.zeros(fields[0].size)
    place = 0 if kept is None else len(kept.modes)
    for f in found:
        r = int((f.energies >= threshold).sum())
        v = f.vectors[:, ::-1][:, :r]
        v = v * np.where(v[np.abs(v).argmax(axis=0), np.arange(r)] < 0, -1.0, 1.0) if r else v
        scale = np.sqrt(f.energies[:r])
        modes, coefficients = (v / scale).T @ f.rest, v * scale
        residual += ((f.rest - coefficients @ modes) ** 2).mean(axis=0)
        if r + len(f.modes):
            parts.append(
                PodPart(
                    f.character,
                    np.concatenate([f.modes, modes]),
                    np.concatenate([f.coefficients, coefficients], axis=1),
                    np.concatenate([f.places, place + np.arange(r)]),
                )
            )
        place += r
    return parts, residual


@dataclass(frozen=True)
class _Split:
    """A symmetry part: what the kept modes give of it, and the rest."""

    character: np.ndarray
    modes: np.ndarray
    coefficients: np.ndarray
    places: np.ndarray
    kept_energy: float
    rest: np.ndarray
    """(n, d)."""
    energies: np.ndarray
    """(n,): of the rest's own modes, strongest first."""
    vectors: np.ndarray
    """(n, n): weakest first."""


def _split(character: np.ndarray, part: np.ndarray, kept: Basis | None) -> _Split:
    places = np.zeros(0, int)
    modes, coefficients, rest = np.zeros((0, part.shape[1])), np.zeros((len(part), 0)), part
    if kept is not None:
        places = np.flatnonzero((kept.characters == character).all(axis=1))
        modes = kept.modes[places]
        # Rounded on their way, kept modes are not quite orthonormal.
        coefficients = np.linalg.lstsq(modes.T, part.T, rcond=None)[0].T
        rest = part - coefficients @ modes
    # The n x n Gram matrix: there are far fewer runs than cells.
    values, vectors = np.linalg.eigh(rest @ rest.T)
    energy = float((part**2).sum() - (rest**2).sum()) if len(modes) else 0.0
    return _Split(
        character, modes, coefficients, places, energy, rest, np.maximum(values[::-1], 0.0), vectors
    )


def in_place(parts: list[PodPart]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every mode at its place.

    Returns
    -------
    modes : (r, d) float64
    characters : (r, mirrors) float64
    coefficients : (n, r) float64
    """
    order = np.argsort(np.concatenate([p.places for p in parts]))
    ways = np.concatenate([np.tile(p.character, (len(p.modes), 1)) for p in parts])
    modes = np.concatenate([p.modes for p in parts])
    coefficients = np.concatenate([p.coefficients for p in parts], axis=1)
    return modes[order], ways[order], coefficients[:, order]
