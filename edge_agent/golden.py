"""Golden examples: whoever loads a release runs them first."""

from __future__ import annotations

import io

import numpy as np

from edge_agent.contracts.errors import GoldenMismatch
from edge_agent.contracts.release import Release
from edge_agent.inference import Model
from edge_agent.updates.store import StoredRelease


def output_shapes(release: Release) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output, by name and in order, without the batch."""
    field = (3, *release.grid.shape)
    return {o.name: () if o.diagnostic else field for o in release.outputs}


def check_golden(stored: StoredRelease, model: Model) -> np.ndarray:
    """Run the golden examples; return their inputs, (n, inputs) float32."""
    release, files = stored.release, stored.files
    inputs = _array(files["golden_inputs.npy"], release.version)
    if inputs.ndim != 2 or inputs.shape[1] != len(release.inputs) or not len(inputs):
        msg = f"golden inputs of release {release.version} have shape {inputs.shape}"
        raise GoldenMismatch(msg, version=release.version, output="inputs")
    try:
        found = model.run(np.ascontiguousarray(inputs))
    except Exception as error:  # whatever the engine raises, this release must not serve
        msg = f"release {release.version} fails on its golden examples: {error}"
        raise GoldenMismatch(msg, version=release.version, output=None) from error
    tolerance, step = release.golden.absolute_tolerance, np.float32(release.golden.step)
    shapes = output_shapes(release)
    for name in release.golden.outputs:
        expected = _array(files[f"golden_{name}.npy"], release.version) * step
        shape = (len(inputs), *shapes[name])
        if expected.shape != shape or found[name].shape != shape:
            msg = (
                f"release {release.version}: {name} has shape {found[name].shape}, "
                f"its golden examples {expected.shape}, its manifest asks for {shape}"
            )
            raise GoldenMismatch(msg, version=release.version, output=name)
        worst = float(np.abs(found[name] - expected).max())
        if not worst <= tolerance:  # also when it is NaN
            msg = (
                f"release {release.version} misses its golden {name} by {worst:.3g}, "
                f"more than {tolerance:.3g}"
            )
            raise GoldenMismatch(msg, version=release.version, output=name, error=worst)
    return inputs


def _array(data: bytes, version: int) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        msg = f"golden examples of release {version} are not an array file: {error}"
        raise GoldenMismatch(msg, version=version, output=None) from error
    return np.asarray(array, dtype=np.float32)
