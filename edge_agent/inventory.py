"""What is known of releases, for people: the list and the status."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.columns import Columns, shortest
from edge_agent.lifecycle import State
from edge_agent.promotion import Promotion
from edge_agent.settings import PromotionSettings
from edge_agent.updates.store import stored_versions


def releases(promotion: Promotion) -> list[dict[str, Any]]:
    """Return what is known of each release, as JSON values; newest first."""
    state, slots = promotion.state, promotion.slots
    loaded = {s.version: s for s in slots.loaded}
    stored = set(stored_versions(slots.releases))
    known = stored | loaded.keys() | state.withdrawn.keys() | {r.version for r in state.refused}
    found = []
    for version in sorted(known, reverse=True):
        refusal = state.refusal(version)
        slot = loaded.get(version)
        found.append(
            {
                "version": version,
                "state": state.name_of(version),
                "reason": state.withdrawn.get(version) or (refusal and refusal.reason),
                "stored": version in stored,
                "loaded": slot is not None,
                "pinned": version == state.pinned,
            }
        )
        if slot is not None:
            found[-1]["created"] = slot.release.created.isoformat()
            found[-1]["rmse"] = {k: s.rmse for k, s in slot.release.scores.items()}
    return found


def release_status(promotion: Promotion, settings: PromotionSettings) -> dict[str, Any]:
    """Return the parts of the agent's status that are about releases, as JSON values."""
    state = promotion.state
    active, previous = promotion.slots.pair
    return {
        "ready": active is not None,
        "active": None if active is None else active.version,
        "previous": None if previous is None else previous.version,
        "candidate": state.candidate,
        "columns": None if active is None else list(active.columns.names),
        "defaults": None if active is None else _defaults(active.columns),
        "held": state.held,
        "pinned": state.pinned,
        "hold": state.hold,
        "withdrawn": sorted(state.withdrawn),
        "refused": [{"version": r.version, "reason": r.reason} for r in state.refused],
        "trials": _trials(state, settings),
        "swaps": [msgspec.structs.asdict(s) for s in list(promotion.journal.swaps)],
    }


def _defaults(columns: Columns) -> dict[str, float]:
    return {name: shortest(value) for name, value in columns.defaults.items()}


def _trials(state: State, settings: PromotionSettings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if state.shadow is not None:
        found["shadow"] = {
            "version": state.candidate,
            **msgspec.structs.asdict(state.shadow),
            "wanted_predictions": settings.shadow_predictions,
            "wanted_seconds": settings.shadow_seconds,
        }
    if state.soak is not None:
        found["soak"] = {
            "version": state.active,
            **msgspec.structs.asdict(state.soak),
            "wanted_seconds": settings.soak_seconds,
        }
    return found
