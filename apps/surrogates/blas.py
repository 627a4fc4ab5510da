"""How many threads numpy's linear algebra uses: its sums depend on it in the last bit."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

#: Names under which OpenBLAS exports its switch; numpy's wheels prefix and suffix theirs.
_NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")


@contextmanager
def blas_threads(count: int) -> Iterator[bool]:
    """Use `count` threads inside the block; yields whether that was possible.

    OpenBLAS of numpy's own wheels is switched. Other builds keep what the environment says
    (``OMP_NUM_THREADS``, ``MKL_NUM_THREADS``): set it to make machines comparable.
    """
    get, put = _switch()
    if get is None or put is None:
        yield False
        return
    before = get()
    put(count)
    try:
        yield True
    finally:
        put(before)


@cache
def _switch() -> tuple[Any, Any]:
    import numpy as np

    libraries = Path(np.__file__).parent.parent / "numpy.libs"
    for path in sorted(libraries.glob("*openblas*")):
        library = ctypes.CDLL(str(path))
        for name in _NAMES:
            get = getattr(library, name.format("get_num_threads"), None)
            put = getattr(library, name.format("set_num_threads"), None)
            if get is not None and put is not None:
                return get, put
    return None, None
