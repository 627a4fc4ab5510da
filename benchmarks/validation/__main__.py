"""Run the validation and write its document: ``python -m benchmarks.validation [--only NAME]``."""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

from benchmarks.validation.report import ROOT, Section, table
from benchmarks.validation.sections import SECTIONS, compute

#: The long ones first, or one worker waits for the other at the end.
_FIRST = ("codes", "convergence", "windbreak", "cavity")

HEAD = """# Validation of the simulators

What the solvers give beside what is known, written by `make validation` (`benchmarks/validation/`)
from a run of every comparison: every measured number below comes out of that run. Where one misses,
the section says by how much and why.

{versions}

"""


def document(sections: list[Section]) -> str:
    import torch

    from apps.simulators.registry import SIMULATORS

    solvers = ", ".join(f"{name} {entry.version}" for name, entry in SIMULATORS.items())
    versions = f"Solvers: {solvers}; torch {torch.__version__}, fluids {version('fluids')}."
    checks = [check.row() for section in sections for check in section.checks]
    summary = table(["what", "measured", "bound", ""], checks)
    parts = [HEAD.format(versions=versions) + summary + "\n"]
    return "\n".join(parts + [section.markdown() for section in sections])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(SECTIONS), action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "validation.md")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    names = args.only or list(SECTIONS)
    order = sorted(names, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=context) as pool:
        jobs = {name: pool.submit(compute, name) for name in order}
        done = {}
        for name in names:
            done[name], seconds = jobs[name].result()
            print(f"{name}: {seconds:.0f} s")
            for check in done[name].checks:
                print("  ", " | ".join(check.row()))
    if args.only:
        print("a part only: the document is left alone")
        return
    args.out.write_text(document([done[name] for name in SECTIONS]), encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
