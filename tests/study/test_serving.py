"""Which release serves, and which baselines are beaten."""

import numpy as np
import pytest

from benchmarks.study import serving
from benchmarks.study.following import Version
from edge_agent.contracts.site_state import SiteState

HOURS = np.arange(0.0, 48.0, 4.0)


def version(number, errors):
    both = np.stack([np.asarray(errors, float)] * 2)
    state = SiteState()
    return Version(
        number,
        12.0 * number,
        state,
        16,
        16,
        2,
        both,
        seen=both / 2,
        nearest=2 * both,
        ratio=3 * both,
    )


@pytest.fixture
def chain():
    return [version(k, np.full(len(HOURS), 1.0 / k)) for k in (1, 2, 3)]


def test_each_instant_has_the_newest_release_that_is_there(chain):
    at_once = serving.serve(chain, HOURS, np.array([12.0, 24.0, 36.0]))
    assert np.isnan(at_once.error[:3]).all()
    assert at_once.error[3:].tolist() == [1.0] * 3 + [0.5] * 3 + [1 / 3] * 3
    assert at_once.age[3:].tolist() == [0.0, 4.0, 8.0] * 3
    assert at_once.releases == 3


def test_a_release_that_was_overtaken_never_serves(chain):
    late = serving.serve(chain, HOURS, np.array([12.0, 44.0, 36.0]))
    assert late.error[3:].tolist() == [1.0] * 6 + [1 / 3] * 3
    assert late.releases == 2


def test_baselines_have_the_runs_of_the_release_without_delay(chain):
    winds = np.zeros((2, len(HOURS), 3, 1, 1, 1))
    winds[:, 1::2, 0] = 2.0
    found = serving.baselines(chain, HOURS, winds)
    assert found["nearest simulation"][3:].tolist() == [2.0] * 3 + [1.0] * 3 + [2 / 3] * 3
    assert found["constant ratio"][-1] == 1.0
    assert np.isnan(found["persistence"][0])
    assert (found["persistence"][1:] == 4.0).all()


def test_a_baseline_is_beaten_from_where_no_later_version_loses(chain):
    rivals = {"weak": np.full(len(HOURS), 9.0), "strong": np.full(len(HOURS), 0.4)}
    rivals["unbeaten"] = np.full(len(HOURS), 0.1)
    rivals["weak"][0] = np.nan
    assert serving.beaten_from(chain, rivals) == {"weak": 1, "strong": 3, "unbeaten": None}


def test_only_instants_that_all_can_answer_count(chain):
    ways = {d: serving.serve(chain, HOURS, np.array([12.0, 24.0, 36.0]) + d).error for d in (0, 8)}
    assert serving.scored_from(ways).tolist() == [h >= 20 for h in HOURS]


def test_both_signatures_are_served_alike(chain):
    arrives = np.array([12.0, 24.0, 36.0])
    blind, seeing = (
        serving.serve(chain, HOURS, arrives, signature=signature)
        for signature in (serving.BLIND, serving.SEEING)
    )
    np.testing.assert_array_equal(seeing.age, blind.age)
    np.testing.assert_array_equal(seeing.error, blind.error / 2)
