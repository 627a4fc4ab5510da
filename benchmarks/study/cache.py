"""Results kept on disk under a digest of all that determines them, so that a rerun resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.simulators.registry import solver_version
from benchmarks.study.following import Version
from benchmarks.study.truth import DEAR, FILE, FINE, SITE, TRAINING
from edge_agent.contracts.model import canonical_json, sha256
from edge_agent.contracts.site_state import SiteState

HERE = Path(__file__).parent


def _code(package: str, *names: str) -> tuple[str, ...]:
    return tuple(f"../../{package}/{name}" for name in names)


#: Modules whose code decides the numbers of a kind of result; a change of one computes anew.
CODE = {
    "learning": ("truth", "runs", "learning", *_code("apps", "discrepancy", "validate")),
    "chain": (
        *("truth", "runs", "moving", "readings", "following"),
        *_code("apps", "site_state", "discrepancy", "surrogates/assimilation"),
        *_code("workflows", "following", "steering", "variety"),
    ),
}
_ARRAYS = ("error", "seen", "nearest", "ratio")


def basis(kind: str) -> dict[str, str]:
    """Return what every result of a kind depends on."""
    found = {name: sha256((HERE / f"{name}.py").read_bytes()) for name in CODE[kind]}
    found |= {"truth file": sha256(FILE.read_bytes()), "site": sha256(SITE.read_bytes())}
    return found | {
        "grids": f"{TRAINING} {DEAR} {FINE}",
        "solver": solver_version(TRAINING.simulator),
    }


class Cache:
    """A folder of results.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str, key: Mapping[str, Any], suffix: str) -> Path:
        digest = sha256(canonical_json({"basis": basis(name), "name": name, "key": key}))
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{digest[:24]}.{suffix}"

    def values(self, name: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON
        """Return JSON values, made only if they are not there."""
        path = self._path(name, key, "json")
        if not path.exists():
            _replace(path, json.dumps(make()).encode())
        return json.loads(path.read_bytes())

    def versions(
        self, name: str, key: Mapping[str, Any], make: Callable[[], Sequence[Version]]
    ) -> list[Version]:
        """Return a chain of releases, made only if it is not there."""
        path = self._path(name, key, "npz")
        if not path.exists():
            partial = path.with_suffix(".partial.npz")
            np.savez_compressed(partial, **_packed(make()))
            partial.replace(path)
        with np.load(path, allow_pickle=False) as file:
            return _unpacked({k: file[k] for k in file.files})


def _packed(versions: Sequence[Version]) -> dict[str, np.ndarray]:
    found = {name: np.stack([getattr(v, name) for v in versions]) for name in _ARRAYS}
    numbers = [(v.number, v.hours, v.training, v.new, v.dear) for v in versions]
    states = [v.state.model_dump_json() for v in versions]
    return found | {"numbers": np.array(numbers, float), "states": np.array(states)}


def _unpacked(arrays: Mapping[str, np.ndarray]) -> list[Version]:
    return [
        Version(
            number=int(number),
            hours=float(hours),
            state=SiteState.model_validate_json(str(arrays["states"][k])),
            training=int(training),
            new=int(new),
            dear=int(dear),
            **{name: arrays[name][k] for name in _ARRAYS},
        )
        for k, (number, hours, training, new, dear) in enumerate(arrays["numbers"])
    ]


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
