"""Every section by name, and one computed; apart from `__main__`, which workers cannot import."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.validation import codes, houses, known
from benchmarks.validation.report import Section

#: In the order of the document.
SECTIONS: dict[str, Callable[[], Section]] = {
    "cavity": known.cavity_section,
    "duct": known.duct_section,
    "taylor": known.taylor_section,
    "tunnel": known.tunnel_section,
    "windbreak": known.windbreak_section,
    "codes": codes.codes_section,
    "convergence": houses.convergence_section,
    "symmetry": houses.symmetry_section,
    "scaling": houses.scaling_section,
    "mass": houses.mass_section,
}


def compute(name: str) -> tuple[Section, float]:
    """Return a section and the seconds it took; runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    return SECTIONS[name](), time.perf_counter() - start
