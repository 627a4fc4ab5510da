"""The report's section on the house."""

from edge_agent.contracts.site_state import SiteState, Tear
from workflows.ledger import StateRow
from workflows.report_state import _torn, state_section

HOLE = (Tear(panel="west", centre=27.0, width=20.0),)


def states(*tears):
    return [
        StateRow(f"2016-06-{i + 1:02}T00:00:00", SiteState(screen_loss_factor=1 + i, tears=t), ())
        for i, t in enumerate(tears)
    ]


def test_a_campaign_that_follows_no_house_says_nothing():
    assert state_section([], []) == ""


def test_each_stretch_with_a_tear_is_one():
    assert _torn(states((), HOLE, HOLE, (), HOLE)) == [(1, 2), (4, 4)]
    assert _torn(states((), ())) == []


def test_the_section_says_how_the_house_is_at_the_end():
    text = state_section(states((), HOLE), [])
    assert "At the end 2.00, torn: west" in text
    assert "<img" in text or "data:image" in text
    assert "torn" not in state_section(states(HOLE, ()), []).split("At the end")[1]
