"""What the agent counts, in the Prometheus text format (0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from edge_agent.agent import EdgeAgent
from edge_agent.metrics import BOUNDS, HELP, Histogram, Stages
from edge_agent.process import resident_bytes

log = structlog.get_logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(agent: EdgeAgent, stages: Stages, version: str) -> str:
    """Return every metric of an agent."""
    return "\n".join(_lines(agent, stages, version)) + "\n"


def _lines(agent: EdgeAgent, stages: Stages, version: str) -> Iterator[str]:
    yield from _head("build_info", "gauge", "Version of the agent.")
    yield f'rbf_build_info{{version="{_escaped(version)}",model="{_escaped(agent.config.name)}"}} 1'
    for name, value in vars(agent.counters).items():
        if isinstance(value, int):
            yield from _head(f"{name}_total", "counter", HELP.get(name, name.replace("_", " ")))
            yield f"rbf_{name}_total {value}"
    yield from _head("readings_rejected_total", "counter", "Readings refused, by reason.")
    for reason, count in sorted(agent.counters.rejected.items()):
        yield f'rbf_readings_rejected_total{{reason="{_escaped(reason)}"}} {count}'
    yield from _head(
        "update_failures_total", "counter", "Looks at the repository that failed, by reason."
    )
    for reason, count in sorted(agent.counters.update_failures.items()):
        yield f'rbf_update_failures_total{{reason="{_escaped(reason)}"}} {count}'
    yield from _head("release_transitions_total", "counter", "Steps of releases on their way.")
    for step, count in sorted(agent.counters.transitions.items()):
        kind, _, reason = step.partition(":")
        yield f'rbf_release_transitions_total{{to="{kind}",reason="{_escaped(reason)}"}} {count}'
    yield from _head("release_state", "gauge", "Where each loaded release stands on its way.")
    for slot in agent.loaded:
        where = agent.promotion.state.name_of(slot.version)
        yield f'rbf_release_state{{version="{slot.version}",state="{where}"}} 1'
    for name, (help_text, found) in {**_gauges(agent), **_others(agent)}.items():
        if found is not None:
            yield from _head(name, "gauge", help_text)
            yield f"rbf_{name} {float(found)!r}"
    yield from _head(
        "stage_duration_seconds",
        "histogram",
        "Time of each stage of an infer request, since the first scrape.",
    )
    for stage, histogram in stages.by_name():
        yield from _histogram("rbf_stage_duration_seconds", stage, histogram)


def _gauges(agent: EdgeAgent) -> dict[str, tuple[str, float | None]]:
    active = agent.versions[0] if agent.ready else None
    state = agent.promotion.state
    swaps = agent.swaps
    last = swaps[-1] if swaps else None
    return {
        "ready": ("Whether a release serves.", float(agent.ready)),
        "release_version": ("Version of the active release.", active),
        "release_held_version": ("Version rolled back from, kept out.", state.held),
        "release_pinned_version": ("Version fixed by command.", state.pinned),
        "release_hold": ("Whether a command has stopped updates.", float(state.hold)),
        "release_shadow_predictions": (
            "Live predictions on which the candidate was compared.",
            None if state.shadow is None else state.shadow.compared,
        ),
        "release_data_age_seconds": (
            "Age, in data time, of the newest data behind the release, at the last answer.",
            agent.last_staleness,
        ),
        "release_last_swap_timestamp_seconds": (
            "When the active release last changed.",
            None if last is None else last.swapped_at,
        ),
        "release_source_reachable": (
            "Whether the last look at the repository found what it needs.",
            float(agent.source_trouble is None),
        ),
        "release_source_refreshed_timestamp_seconds": (
            "When the repository was last found good.",
            agent.source.refreshed_at,
        ),
        "release_source_expiry_timestamp_seconds": (
            "When the repository's metadata expires; no new release after that.",
            agent.source.expires_at,
        ),
        "start_timestamp_seconds": ("When the agent started.", agent.started_at),
        "resident_memory_bytes": ("Resident memory of the process.", resident_bytes()),
    }


def _others(agent: EdgeAgent) -> dict[str, tuple[str, float | None]]:
    found = {}
    for name, (text, read) in agent.gauges.items():
        try:
            found[name] = (text, read())
        except Exception:  # one part's trouble must not hide the others' metrics
            log.exception("a gauge failed", name=name)
    return found


def _histogram(name: str, stage: str, histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip((*BOUNDS, None), histogram.counts, strict=True):
        total += count
        le = "+Inf" if bound is None else repr(bound)
        yield f'{name}_bucket{{stage="{stage}",le="{le}"}} {total}'
    yield f'{name}_sum{{stage="{stage}"}} {histogram.total!r}'
    yield f'{name}_count{{stage="{stage}"}} {total}'


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP rbf_{name} {_plain(text)}", f"# TYPE rbf_{name} {kind}"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped(text: str) -> str:
    return _plain(text).replace('"', '\\"')
