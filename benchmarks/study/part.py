"""What a section of docs/evidence.md is, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.study.bootstrap import Interval
from benchmarks.study.claims import Claim


@dataclass(frozen=True)
class Part:
    """A section of the document."""

    title: str
    text: str
    """Markdown."""
    claims: tuple[Claim, ...] = ()
    """Put into the table at the document's head."""


def cells(cells: tuple[int, int, int]) -> str:
    return " x ".join(str(n) for n in cells)


def signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
