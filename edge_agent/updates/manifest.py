"""Whether the parts of a release manifest fit each other: pure.

What an agent relies on beyond the types of the fields: which outputs there are, that columns left
out can be filled, and that readings give what callers must.
"""

from __future__ import annotations

import numpy as np

from edge_agent.contracts.features import SILENT, sensor_column
from edge_agent.contracts.release import FIELD_DIMS, ROW_DIMS, Release

#: Outputs that every release has; all others are diagnostics.
FIELDS = ("wind", "wind_std")
#: Largest input that a model can be given.
LARGEST = float(np.finfo(np.float32).max)


def problem_of(release: Release) -> str | None:
    """Return why a release cannot be served, or none."""
    return _outputs(release) or _inputs(release)


def _outputs(release: Release) -> str | None:
    names = [output.name for output in release.outputs]
    if not set(FIELDS) <= set(names) or sorted(names) != sorted(release.golden.outputs):
        return f"its outputs and golden outputs must be the same, {', '.join(FIELDS)} among them"
    for output in release.outputs:
        expected = FIELD_DIMS if output.name in FIELDS else ROW_DIMS
        if output.dims != expected:
            axes = ", ".join(output.dims)
            return f"its output {output.name} has axes {axes}, not {', '.join(expected)}"
    for name in release.uncertainty.limits:
        if name in FIELDS or name not in names:
            return f"it has a limit for {name!r}, which is none of its diagnostics"
    return None


def _inputs(release: Release) -> str | None:
    names = [v.name for v in release.inputs]
    if len(set(names)) < len(names):
        return "two of its inputs have the same name"
    defaults = {v.name: v.default for v in release.inputs if v.default is not None}
    required = [name for name in names if name not in defaults]
    if names[: len(required)] != required:
        return "an input with a default stands before one without"
    if large := [name for name, value in defaults.items() if abs(value) > LARGEST]:
        return f"the default of {large[0]!r} is no single-precision number"
    mapped = [name for name, _ in release.feature_map.columns]
    if missing := [name for name in mapped if name not in names]:
        return f"its feature map gives {missing[0]!r}, which is none of its inputs"
    if unknown := [name for name in required if name not in mapped]:
        return f"its input {unknown[0]!r} comes neither from readings nor has it a default"
    # Monitors know the wind by its place.
    if names[:2] != mapped[:2]:
        return f"its first inputs must be {', '.join(mapped[:2])}"
    for source in release.feature_map.optional:
        if defaults.get(sensor_column(source.sensor)) != SILENT:
            return f"the default of {sensor_column(source.sensor)!r} must be {SILENT:g}: silence"
    return None
