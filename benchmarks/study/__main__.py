"""Run the study and write its document: ``python -m benchmarks.study``."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.study.report import EXTRA, document
from benchmarks.study.setting import SETTINGS
from benchmarks.study.study import study
from benchmarks.study.truth import ROOT
from benchmarks.validation.report import FIGURES

WORK = ROOT / "data" / "runs" / "study"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=list(SETTINGS), default="full")
    parser.add_argument("--work", type=Path, default=WORK, help="keeps simulations and results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence.md")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures")
    parser.add_argument("--json", type=Path, help="write the claims here too")
    args = parser.parse_args()
    began = time.perf_counter()
    results = study(SETTINGS[args.setting], args.work)
    text, claims = document(results, [make() for make in EXTRA], args.figures)
    out = args.out
    out.write_text(text, encoding="utf-8")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(c) for c in claims], indent=1), encoding="utf-8")
    for claim in claims:
        print(" | ".join(claim.row()))
    seconds = time.perf_counter() - began
    print(f"{out}: {seconds:.0f} s, of which solver {results.solver_seconds:.0f} s")


if __name__ == "__main__":
    main()
