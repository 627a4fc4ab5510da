"""What a campaign would ask of the scheduler now, without asking."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workflows.backfill.planner import Backlog, BlockShape, Limits

if TYPE_CHECKING:
    from parsl.config import Config

    from workflows.backfill.executor import BlockExecutor
    from workflows.backfill.provider import GapProvider


def describe(config: Config, backlog: Backlog) -> str:
    """Return windows, the blocks chosen from them with reasons, and the first one's batch script.

    Reads as an ordinary user; writes and submits nothing.

    Raises
    ------
    SchedulerError
        If the scheduler does not answer.
    """
    from workflows.backfill.executor import BlockExecutor

    executor = config.executors[0]
    if not isinstance(executor, BlockExecutor):
        return f"no windows here: {executor.label} is one block, started at once"
    return "\n".join(_lines(executor, executor.gaps, backlog))


def _lines(executor: BlockExecutor, provider: GapProvider, backlog: Backlog) -> Iterator[str]:
    times = ", ".join(f"{r.seconds:.1f} ± {r.spread:.1f} s on {r.cores}" for r in backlog.run_times)
    yield f"backlog: {backlog.tasks} tasks ({times})"
    yield f"limits: {_limits(provider.limits)}, {provider.max_blocks} blocks"
    chosen: list[BlockShape] = []
    provider.backlog = backlog
    for number in range(provider.max_blocks):
        decision, windows = provider.decide(time.time(), chosen)
        if number == 0:
            yield f"windows in {provider.partition}: {len(windows)}"
            for window in windows:
                end = f"{window.seconds:.0f} s" if math.isfinite(window.seconds) else "no end"
                seen = "" if window.seen else " (assumed: other people's jobs are hidden)"
                yield f"  {window.nodes} nodes x {window.cores} cores x {end}{seen}"
        if decision.shape is None:
            yield f"no {'further ' if chosen else ''}block: {decision.reason}"
            break
        yield f"block {number + 1}: {decision.reason}"
        chosen.append(decision.shape)
        left = max(0, provider.backlog.tasks - decision.shape.slots)
        if left == 0:
            break
        provider.backlog = Backlog(left, backlog.run_times, backlog.checkpoint_seconds)
    if chosen:
        yield "batch script of block 1:"
        yield provider.script(chosen[0], executor.command(), f"{provider.tag}-dry-run")
    yield "nothing was submitted"


def _limits(limits: Limits) -> str:
    return (
        f"{limits.max_nodes} nodes x {limits.max_cores} cores x"
        f" {limits.min_minutes} to {limits.max_minutes} min, margin {limits.margin_seconds:.0f} s"
    )
