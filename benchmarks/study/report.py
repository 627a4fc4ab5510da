"""docs/evidence.md, written from the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.study import parts, serving_parts
from benchmarks.study.arrivals import DELAYS
from benchmarks.study.claims import Claim, compared
from benchmarks.study.part import Part
from benchmarks.study.study import Results
from benchmarks.validation.report import table

#: Sections of other studies, put before the last one in order: functions that return a part each.
EXTRA: list[Callable[[], Part]] = []

HEAD = """# Evidence

Does the served model get better while it serves, and what does an hour of delay cost? Written by
`make evidence` (`benchmarks/study/`) from its own output. What does not hold is said.

{summary}"""


def document(results: Results, extra: list[Part], folder: Path) -> tuple[str, list[Claim]]:
    """Return the document, and every claim in it; draws the figures into a folder."""
    found = compared(results)
    sections = [
        parts.made(results),
        parts.learning_curve(results, folder),
        serving_parts.served_for_two_months(results, found, folder),
        serving_parts.delay(results, found, folder),
        serving_parts.state(results, found, folder),
        serving_parts.sensors(results, found),
        *([serving_parts.circumstances(results, found)] if len(results.chains) > 1 else []),
        *([parts.families(results)] if len(results.learning) > 1 else []),
        serving_parts.weeks(results),
        parts.beside_openfoam(results),
        serving_parts.cost(results),
        *extra,
        parts.CONTEXT,
    ]
    claims = [c for p in sections for c in p.claims]
    head = HEAD.format(summary=table(["question", "found", ""], [c.row() for c in claims]))
    body = "\n\n".join(f"## {p.title}\n\n{p.text.strip()}" for p in sections)
    return f"{head}\n\n{body}\n\n{_again(results)}\n", claims


def _again(results: Results) -> str:
    setting = results.setting
    return f"""## Again

```
make evidence                                          # 19 minutes, 36 on a busy machine; resumes
python -m benchmarks.study --setting small --out DIR   # what CI runs
python -m benchmarks.study.truth --store DIR           # the truth itself
```

Setting `{setting.name}`. Simulations are kept by digest, results by a digest of code, settings and
truth, in `data/runs/study`: a rerun computes only what changed.
Fixed delays: {", ".join(f"{d:g}" for d in DELAYS)} h."""
