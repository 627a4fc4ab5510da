"""What a training can start from: the candidate before it, as it serves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.candidates import Candidate, read_candidate, read_state
from apps.errors import TrainingError, ValidationError
from apps.surrogates.base import WarmStart
from apps.tensors import tensor_values
from apps.transport import serving_model
from edge_agent.contracts.model import sha256

if TYPE_CHECKING:
    from apps.train_task import TrainTask

#: What of a candidate follows from the estimated state alone, or is of its own training.
_OF_THE_STATE = {"digest", "site_state", "inputs", "previous", "training", "model_sha256"}
_OF_THE_TRAINING = {"chosen", "parity", "seconds", "contenders", "environment"}


def warm_start(task: TrainTask, name: str) -> WarmStart | None:
    """Return what the previous candidate left for a family, None if it left nothing."""
    if task.previous is None:
        return None
    folder = Path(task.candidates) / task.previous
    try:
        candidate = read_candidate(folder)
        served, keep = task.served, task.keep_basis
        own = next((c.candidate for c in candidate.contenders if c.family == name), None)
        if candidate.family != name:  # of several it has the best one's state only
            served, keep = None, False
            if own is not None:
                folder = folder.with_name(own)
                candidate = read_candidate(folder)
    except TrainingError:
        return None
    state = read_state(folder)
    if candidate.family != name or state is None:
        return None
    if served is not None:
        state = _as_served(state, folder, served)
    return WarmStart(state, frozenset(candidate.simulations), keep)


def same_but_state(task: TrainTask, known: Candidate) -> tuple[Candidate, Path] | None:
    """Return the previous candidate and its folder if only the estimated state has moved since.

    Parameters
    ----------
    task : TrainTask
    known : Candidate
        What the training would make, with whatever it would choose.
    """
    if task.previous is None:
        return None
    folder = Path(task.candidates) / task.previous
    try:
        before = read_candidate(folder)
        serving_model(folder)
    except (TrainingError, ValidationError, OSError):
        return None
    leave = _OF_THE_STATE | _OF_THE_TRAINING
    return (before, folder) if _rest(before, leave) == _rest(known, leave) else None


def _rest(candidate: Candidate, without: Iterable[str]) -> dict[str, object]:
    return candidate.model_dump(mode="json", exclude=set(without))


def _as_served(state: dict[str, np.ndarray], folder: Path, served: str) -> dict[str, np.ndarray]:
    """Return a state with the tensors of the model that serves, where it has them."""
    model = serving_model(folder)
    if sha256(model) != served:
        msg = f"{folder} serves as another model by now; plan the training anew"
        raise TrainingError(msg, folder=str(folder))
    known = tensor_values(model)
    return state | {k: known[k] for k, v in state.items() if k in known and _is(known[k], v)}


def _is(served: np.ndarray, trained: np.ndarray) -> bool:
    """Tell whether a tensor is the trained one, rounded; an exporter may have turned it round."""
    if served.shape != trained.shape:
        return False
    away = np.linalg.norm(served.astype(float) - trained)
    return bool(away <= 0.3 * np.linalg.norm(trained.astype(float)))
