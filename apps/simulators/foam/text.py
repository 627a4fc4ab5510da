"""OpenFOAM's dictionary syntax, written from plain Python values."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def number(value: float) -> str:
    """Return a number with all its digits."""
    return f"{value:.15g}"


def render(value: Any) -> str:  # noqa: ANN401 - any of the plain values below
    """Return a value in OpenFOAM's syntax: words as they are, sequences in parentheses."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "{\n" + entries(value) + "}"
    if isinstance(value, Sequence):
        return "(" + " ".join(render(v) for v in value) + ")"
    return number(float(value)) if not isinstance(value, int) else str(value)


def entries(content: Mapping[str, Any]) -> str:
    """Return the entries of a dictionary, one per line."""
    lines = []
    for key, value in content.items():
        end = "\n" if isinstance(value, Mapping) else ";\n"
        lines.append(f"{key} {render(value)}{end}")
    return "".join(lines)


def write(folder: Path, name: str, content: Mapping[str, Any], kind: str = "dictionary") -> None:
    """Write ``folder/name`` as an OpenFOAM file.

    Parameters
    ----------
    folder : Path
        The case.
    name : str
        Path in it.
    content : mapping
        Entries in order.
    kind : str
        OpenFOAM class of the object.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"version": "2.0", "format": "ascii", "class": kind, "object": path.name}
    path.write_text(f"FoamFile\n{render(header)}\n{entries(content)}")


def write_binary(folder: Path, name: str, points: np.ndarray) -> None:
    """Write ``folder/name`` as a binary list of points, (n, 3) in m."""
    order = "LSB" if sys.byteorder == "little" else "MSB"
    header = {
        "version": "2.0",
        "format": "binary",
        "class": "vectorField",
        "arch": f'"{order};label=32;scalar=64"',
        "object": Path(name).name,
    }
    with (folder / name).open("wb") as file:
        file.write(f"FoamFile\n{render(header)}\n{len(points)}\n(".encode())
        file.write(np.ascontiguousarray(points, dtype=float).tobytes())
        file.write(b")\n")
