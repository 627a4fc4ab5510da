"""Which release serves, what people tell the chain, and which baselines are beaten."""

import numpy as np
import pytest

from benchmarks.study import serving
from benchmarks.study.following import HOLE_ERROR, WASHED_ERROR, Rules, Version, told
from benchmarks.study.moving import ALARM_DAYS, TORN, WASHES, known
from edge_agent.contracts.site_state import SiteState

HOURS = np.arange(0.0, 48.0, 4.0)


def version(number, errors):
    both = np.stack([np.asarray(errors, float)] * 2)
    state = SiteState()
    return Version(number, 12.0 * number, state, 16, 16, both, 2 * both, 3 * both)


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


@pytest.mark.parametrize("wash", WASHES)
def test_a_wash_is_clean_screens_until_the_readings_say_better(wash):
    rules = Rules(cycle_hours=12.0)
    dusty = SiteState(screen_loss_factor=1.7, log_error=0.05)
    after = 24 * wash + 6
    told_ = told(dusty, known(after / 24), after, rules)
    assert (told_.screen_loss_factor, told_.log_error) == (1.0, WASHED_ERROR)
    # One cycle on it is no news.
    later = told(dusty, known((after + 12) / 24), after + 12, rules)
    assert later.screen_loss_factor == 1.7


def test_a_hole_is_named_when_it_is_found_and_makes_the_state_less_certain():
    rules = Rules(cycle_hours=12.0)
    before = SiteState(screen_loss_factor=1.4, log_error=0.05)
    hidden = 24 * (TORN[0] + ALARM_DAYS) - 1
    assert told(before, known(hidden / 24), hidden, rules) == before
    found = told(before, known((hidden + 6) / 24), hidden + 6, rules)
    assert [t.panel for t in found.tears] == ["west"]
    assert found.screen_loss_factor == 1.4
    assert found.log_error == pytest.approx(np.hypot(0.05, HOLE_ERROR))
