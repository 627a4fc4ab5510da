"""Functions of a tear that a mirror of the house changes by a sign at most.

A tear on panel k, at the share p of its length and of width w, is told by the functions
w^i cos(j pi p) of panel k, nought elsewhere. A mirror takes panel k to another one and turns p
round, which makes (-1)^j of the cosine: it permutes the functions, up to a sign. Their projections
on the ways in which something can behave under the mirrors are the features: each is changed by a
factor of +1 or -1. Panels that are no mirror images of each other share nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apps.space import WIDE, Space
from apps.surrogates.pod import characters
from apps.surrogates.symmetry import Mirror, mirror_panels
from edge_agent.contracts.site import Site


@dataclass(frozen=True)
class TearFeatures:
    """Features of a tear, from the columns ``tear_panel``, ``tear_centre`` and ``tear_width``."""

    starts: np.ndarray
    """(panels,) m: where each panel begins along its first coordinate."""
    lengths: np.ndarray
    """(panels,) m: extent of each along it."""
    powers: int
    """Highest power of the width."""
    waves: int
    """Highest harmonic of the place."""
    mixing: np.ndarray
    """(panels powers (waves + 1), features) orthonormal: of functions, panel-major, to features."""
    signs: np.ndarray
    """(mirrors, features): factor of each feature in each mirror."""

    @classmethod
    def of(
        cls, site: Site, space: Space, group: tuple[Mirror, ...], powers: int, waves: int
    ) -> TearFeatures:
        """Return the features of a site; none if its space has no tears."""
        panels = [p for name in space.panels for p in site.panels if p.name == name]
        starts = np.array([p.start[0] for p in panels])
        count = len(panels) * powers * (waves + 1)
        mixing, signs = np.empty((count, 0)), np.empty((len(group), 0))
        images = [_image(site, space, mirror, powers, waves) for mirror in group]
        for character in characters(group):
            project = sum(s * image for s, image in zip(character, images, strict=True))
            basis = _independent(np.asarray(project).reshape(count, count) / len(group))
            mixing = np.concatenate([mixing, basis], axis=1)
            signs = np.concatenate([signs, np.tile(character[:, None], basis.shape[1])], axis=1)
        lengths = np.array([p.end[0] for p in panels]) - starts
        return cls(starts, lengths, powers, waves, mixing, signs)

    @property
    def harmonics(self) -> np.ndarray:
        """(features,): harmonic of the place that each feature is made of."""
        each = np.tile(np.arange(self.waves + 1), len(self.starts) * self.powers)
        return np.asarray(each[np.abs(self.mixing).argmax(axis=0)] if len(each) else each)

    def evaluate(self, tears: np.ndarray) -> np.ndarray:
        """Return the features.

        Parameters
        ----------
        tears : (n, 3) array
            Number of the panel (nought without a tear), middle (m), width (m).

        Returns
        -------
        (n, features) float64
        """
        panel, centre, width = np.asarray(tears, float).T[:, :, None]
        there = np.abs(panel - np.arange(1, len(self.starts) + 1)) < 0.5
        place = np.clip((centre - self.starts) / self.lengths, 0.0, 1.0)
        powers = (width / WIDE)[:, :, None] ** np.arange(1, self.powers + 1)
        waves = np.cos(place[:, :, None] * np.arange(self.waves + 1) * np.pi)
        product = (there[:, :, None] * powers)[..., None] * waves[:, :, None, :]
        return np.asarray(product.reshape(len(there), -1) @ self.mixing)


def _image(site: Site, space: Space, mirror: Mirror, powers: int, waves: int) -> np.ndarray:
    """Return the signed permutation of the functions in a mirror."""
    each = np.eye(powers)
    kept, turned = np.eye(waves + 1), np.diag((-1.0) ** np.arange(waves + 1))
    moved = np.zeros((len(space.panels) * powers * (waves + 1),) * 2)
    size = powers * (waves + 1)
    for k, (other, turns) in enumerate(mirror_panels(site, space.panels, mirror)):
        block = np.kron(each, turned if turns else kept)
        moved[k * size : (k + 1) * size, other * size : (other + 1) * size] = block
    return moved


def _independent(projection: np.ndarray) -> np.ndarray:
    """Return orthonormal columns that span a projection's image.

    Its columns are equal up to a sign or have no function in common: no elimination is needed.
    """
    found: list[np.ndarray] = []
    for column in projection.T:
        size = np.linalg.norm(column)
        if size > 1e-9 and all(abs(column @ f) < 1e-9 for f in found):
            found.append(column / size)
    return np.stack(found, axis=1) if found else np.empty((len(projection), 0))
