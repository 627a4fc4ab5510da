"""OpenFOAM's fields as arrays: text and binary, uniform or not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from apps.errors import DatasetError

_PARTS = {"scalar": 1, "vector": 3}
#: A field's header and first entries are within so many bytes.
_HEAD = 4096


def times(folder: Path) -> list[Path]:
    """Return the time folders of a case in order, the start's left out."""
    found = [p for p in folder.iterdir() if re.fullmatch(r"\d+(\.\d+)?", p.name) and p.is_dir()]
    return sorted((p for p in found if float(p.name) > 0), key=lambda p: float(p.name))


def read_field(path: Path, size: int) -> np.ndarray:
    """Return the internal values of a field.

    Parameters
    ----------
    path : Path
    size : int
        Number of values that it must have.

    Returns
    -------
    (size,) or (size, 3) float64

    Raises
    ------
    DatasetError
        If it is missing, truncated, or has another size.
    """
    try:
        data = path.read_bytes()
        values = _internal(data, size)
    except (OSError, ValueError, LookupError) as error:
        msg = f"{path}: truncated or not a field of {size} values ({error})"
        raise DatasetError(msg, file=str(path)) from error
    return values


def _internal(data: bytes, size: int) -> np.ndarray:
    uniform = re.search(rb"internalField\s+uniform\s+([^;]+);", data[:_HEAD])
    if uniform:
        value = np.array([float(v) for v in uniform[1].strip(b"() \n").split()])
        return np.squeeze(np.tile(value, (size, 1)))
    listed = re.search(rb"internalField\s+nonuniform\s+List<(\w+)>\s*(\d+)\s*\(", data)
    if listed is None or int(listed[2]) != size:
        msg = f"holds {listed[2].decode() if listed else 'no'} values"
        raise ValueError(msg)
    parts = _PARTS[listed[1].decode()]
    if re.search(rb"format\s+binary;", data[:_HEAD]):
        end = listed.end() + 8 * size * parts
        if data[end : end + 1] != b")" or b"boundaryField" not in data[end:]:
            msg = "ends early"
            raise ValueError(msg)
        values = np.frombuffer(data, dtype=np.float64, count=size * parts, offset=listed.end())
    else:
        body = data[listed.end() : data.index(b"\n)", listed.end())]
        values = np.array(body.replace(b"(", b" ").replace(b")", b" ").split(), dtype=float)
    return values.reshape(size, parts) if parts > 1 else values.copy()
