"""The report's section on a house that changes: what was estimated, and what was released."""

from __future__ import annotations

import itertools
from datetime import datetime

import numpy as np

from edge_agent.contracts.site_state import SiteState
from workflows.figures import COLOURS, SURROGATE, embed
from workflows.ledger import CandidateRow, StateRow
from workflows.tasks import state_of


def state_section(states: list[StateRow], candidates: list[CandidateRow]) -> str:
    """Return the section as HTML, or nothing for a campaign that followed no house."""
    if not states:
        return ""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 3.5))
    at = [datetime.fromisoformat(row.until) for row in states]
    factor = np.array([row.state.screen_loss_factor for row in states])
    error = np.array([row.state.log_error or 0.0 for row in states])
    axes.fill_between(
        at, factor * np.exp(-error), factor * np.exp(error), color=SURROGATE, alpha=0.2, lw=0
    )
    axes.plot(at, factor, color=SURROGATE, label="estimated")
    for began, ended in _torn(states):
        axes.axvspan(at[began], at[ended], color=COLOURS[0], alpha=0.15, lw=0)
    released = [
        state_of(c) or SiteState() for c in candidates if c.state == "published" and c.version
    ]
    for state in released:
        axes.axhline(state.screen_loss_factor, color="0.8", lw=0.5, zorder=0)
    axes.set(xlabel="data time", ylabel="loss factor of the screens")
    axes.grid(alpha=0.3)
    figure.autofmt_xdate()
    last = states[-1].state
    known = f", torn: {', '.join(t.panel for t in last.tears)}" if last.tears else ""
    caption = (
        "Loss factor of the screens over that of the site file, with its standard error, as "
        f"estimated from the interior sensors; shaded: a tear was known. At the end "
        f"{last.screen_loss_factor:.2f}{known}. Grey lines: what the {len(released)} releases were "
        "made for."
    )
    return f"<h2>The house</h2>{embed(figure, caption)}"


def _torn(states: list[StateRow]) -> list[tuple[int, int]]:
    """Return the first and last place of each stretch with a known tear."""
    found = []
    places = itertools.groupby(range(len(states)), key=lambda k: bool(states[k].state.tears))
    for torn, stretch in places:
        members = list(stretch)
        if torn:
            found.append((members[0], members[-1]))
    return found
