"""Where scenarios lie, and how far they are apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.space import WIND, space_of
from apps.surrogates.places import Places
from apps.surrogates.symmetry import mirror_scenarios, symmetries
from apps.surrogates.tear_features import TearFeatures

SPEEDS = (0.5, 14.0)


def scenarios(seed, n, space):
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(*SPEEDS, n), rng.uniform(0, 360, n)]
    columns += [rng.uniform(0.5, 2.0, n) for _ in space.scalars]
    if space.panels:
        columns += [
            rng.integers(0, len(space.panels) + 1, n), rng.uniform(10, 60, n), rng.uniform(8, 40, n)
        ]  # fmt: skip
    return np.stack(columns, axis=1)


def places(site, space, group=None):
    limits = ((np.log(0.5), np.log(2.0)),) * len(space.scalars)
    return Places(site, space, group or symmetries(site), SPEEDS, limits)


@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_a_mirror_image_is_the_same_place(site, seed, loss, tears):
    space = space_of(site, loss=loss, tears=tears)
    some = scenarios(seed, 6, space)
    found = places(site, space)
    between = found.apart(some, some)
    np.testing.assert_allclose(between, between.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(between), 0, atol=1e-6)
    for mirror in symmetries(site):
        seen = mirror_scenarios(some, site, space, mirror)
        np.testing.assert_allclose(np.diag(found.apart(some, seen)), 0, atol=1e-6)


def test_the_whole_range_counts_one_and_half_the_circle_its_chord(site):
    one = ((False, False),)
    ends = np.array([[SPEEDS[0], 0.0], [SPEEDS[1], 0.0], [SPEEDS[0], 180.0]])
    between = places(site, WIND, one).apart(ends, ends)
    assert between[0, 1] == pytest.approx(1.0)
    assert between[0, 2] == pytest.approx(1 / np.pi)


def test_tears_are_apart_by_panel_place_and_width(site):
    space = space_of(site, loss=False, tears=True)
    rows = [(0, 0, 0), (1, 30, 20), (1, 37.4, 20), (1, 30, 40), (3, 30, 20)]
    some = np.array([(5.0, 90.0, *row) for row in rows])
    whole, west, beside, wide, south = places(site, space, ((False, False),)).apart(some, some)[0]
    between = places(site, space, ((False, False),)).apart(some, some)[1]
    assert whole == 0
    assert west > 1
    assert between[2] == pytest.approx(0.1)
    assert between[3] == pytest.approx(0.5)
    assert between[4] > np.sqrt(2)
    assert min(beside, wide, south) > 1


def test_with_no_runs_there_is_no_distance(site):
    assert places(site, WIND).apart(np.ones((3, 2)), np.empty((0, 2))).shape == (3, 0)


@given(st.integers(0, 1000))
def test_features_of_a_tear_change_by_their_sign_in_a_mirror(site, seed):
    space, group = space_of(site, loss=False, tears=True), symmetries(site)
    features = TearFeatures.of(site, space, group, powers=2, waves=3)
    some = scenarios(seed, 8, space)
    own = features.evaluate(some[:, 2:])
    for k, mirror in enumerate(group):
        seen = mirror_scenarios(some, site, space, mirror)[:, 2:]
        np.testing.assert_allclose(features.evaluate(seen), own * features.signs[k], atol=1e-9)
    # Nothing is lost: as many features as functions, and orthonormal.
    count = len(space.panels) * 2 * 4
    np.testing.assert_allclose(features.mixing.T @ features.mixing, np.eye(count), atol=1e-12)
