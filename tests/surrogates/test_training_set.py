import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.surrogates.base import WarmStart
from apps.surrogates.network import Features
from apps.surrogates.spectral import TensorBasis
from apps.surrogates.symmetry import mirror_direction
from apps.surrogates.training_set import assign_folds, draw_weights

names = st.lists(
    st.text("abcdef0123456789", min_size=6, max_size=6), unique=True, min_size=1, max_size=60
)


@given(names, st.integers(2, 8), st.integers(0, 9), st.integers(0, 60))
def test_folds_are_even_and_stay(digests, members, seed, before):
    first = tuple(sorted(digests[:before]))
    folds = assign_folds(first, members, seed, {})
    known = dict(zip(first, folds.tolist(), strict=True))
    everyone = tuple(sorted(digests))
    again = assign_folds(everyone, members, seed, known)
    assert all(again[everyone.index(d)] == f for d, f in known.items())
    for one in (folds, again):
        counts = np.bincount(one, minlength=members)
        assert counts.max() - counts.min() <= 1


@given(names, st.integers(0, 60), st.floats(0.05, 0.95))
def test_new_runs_get_their_share_and_old_ones_are_not_forgotten(digests, before, share):
    old = frozenset(digests[:before])
    weights = draw_weights(tuple(digests), WarmStart({}, old), share)
    assert len(weights) == len(digests)
    assert np.isclose(weights.sum(), 1)
    assert (weights > 0).all()
    new = np.array([d not in old for d in digests])
    if new.any():
        assert weights[new].sum() >= min(share, new.mean()) - 1e-9


@given(st.floats(0.1, 20), st.floats(0, 360), st.floats(0, 359))
def test_features_are_those_of_the_basis_and_know_the_mirrors(speed, direction, bearing):
    features = Features(bearing, 5, (0.5, 14.0), 1.0)
    basis = TensorBasis(bearing, 5, 1, 0.5, 14.0, 1.0)
    at = np.array([[speed, direction]], np.float32)
    rows = features(torch.from_numpy(at))[0].numpy()
    expected = basis.evaluate(at)[0].reshape(-1, 2)
    scale = basis.amplitudes[1:]
    np.testing.assert_allclose(rows[0, :-1], expected[1:, 0] / scale, atol=2e-4)
    np.testing.assert_allclose(rows[0, -1], expected[0, 1], atol=1e-5)
    for mirror in ((True, False), (False, True), (True, True)):
        turned = mirror_direction(at[:, 1], mirror, bearing)
        image = torch.tensor([[speed, turned[0]]], dtype=torch.float32)
        np.testing.assert_allclose(
            features(image)[0].numpy(), rows * features.signs(mirror), atol=1e-3
        )
