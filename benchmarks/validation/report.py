"""What a validation returns, and how the document is written from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
REFERENCE = ROOT / "data" / "reference"


@dataclass(frozen=True)
class Check:
    """One number beside its bound; without a bound it is only stated."""

    what: str
    measured: float
    bound: float | None = None
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return "stated"
        return "holds" if self.measured <= self.bound else "**misses**"

    def row(self) -> list[str]:
        bound = "-" if self.bound is None else f"{self.bound:.3g}{self.unit}"
        return [self.what, f"{self.measured:.3g}{self.unit}", bound, self.verdict]


@dataclass(frozen=True)
class Section:
    """One comparison, with its source."""

    title: str
    source: str
    text: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    """Name of a PNG in docs/figures."""
    caption: str = ""
    checks: Sequence[Check] = field(default=())

    def markdown(self) -> str:
        parts = [f"## {self.title}", f"Source: {self.source}", *self.text]
        if self.rows:
            parts.append(table(self.header, self.rows))
        if self.figure:
            parts.append(f"![{self.caption}](figures/{self.figure})\n\n*{self.caption}*")
        return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(width: float = 6.4, height: float = 3.2, columns: int = 1) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")


def save(fig: Any, name: str, folder: Path = FIGURES) -> str:  # noqa: ANN401 - matplotlib has no types
    """Write a figure and return its name; few colours keep it small."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    # No software version or date in the file: equal figures are equal bytes.
    fig.savefig(folder / name, dpi=90, metadata={"Software": None})
    plt.close(fig)
    return name
