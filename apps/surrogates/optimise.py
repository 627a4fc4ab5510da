"""Gradient descent that can stop at any step and go on elsewhere, to the same bits.

Nothing is drawn from a global generator: the batch of step k follows from the seed and k alone, the
learning rate from k, and parameters, moments and best weights so far are in the checkpoint. Members
of an ensemble are trained side by side; each leaves one fold of the runs out, stops early by its
error there, and is scored there: no run is both learnt from and validated on, and no frozen set is
touched (cross-validation committee, Krogh and Vedelsby 1995, NIPS 7:231).
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apps.errors import OutOfTime
from apps.simulators.base import Control
from apps.surrogates.base import Conditions
from edge_agent.contracts.storage import write_bytes

#: Seconds that writing a checkpoint and leaving may take.
_RESERVE = 2.0
#: Wall time between checkpoints against a kill without warning, s.
_SAVE_EVERY = 30.0


@dataclass(frozen=True)
class Plan:
    """How long, how fast, when to stop."""

    steps: int
    """Most steps."""
    learning_rate: float
    """Highest learning rate."""
    weight_decay: float
    batch: int
    """Runs of one step."""
    check_every: int
    """Steps between looks at the held-out error."""
    patience: int
    """Looks without an improvement of any member after which training ends."""
    seed: int

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: a short rise, then half a cosine to zero."""
        rise = max(1, self.steps // 20)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        done = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1.0 + float(np.cos(np.pi * done)))


class Problem(Protocol):
    """What is to be learnt."""

    members: int
    """Members of the ensemble."""
    runs: int
    """Number of training runs."""
    folds: np.ndarray
    """(runs,) int: the member that leaves each run out."""
    weights: np.ndarray
    """(runs,) float64, sum one: how often each run is drawn."""

    def loss(self, batch: np.ndarray, rng: np.random.Generator, mask: Tensor) -> Tensor:
        """Return the loss of some runs; `mask` (members, batch) is zero for left-out ones."""
        ...

    def errors(self) -> Tensor:
        """Return the mean square error of every member on every run, (members, runs)."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a training went."""

    steps: int
    """Steps taken."""
    best_steps: tuple[int, ...]
    """Step of each member's weights."""
    held_out: float
    """Root mean square error on the runs that each member left out, in the units of the loss."""


def optimise(core: nn.Module, problem: Problem, plan: Plan, conditions: Conditions) -> Outcome:
    """Train the members of a core in place; at the end each has its best weights.

    Raises
    ------
    OutOfTime
        If the control ends it; the checkpoint is written, and a call with the same arguments goes
        on from there.
    """
    members = problem.members
    parameters = dict(core.named_parameters())
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    best = _Best(parameters, members)
    step, stale = 0, 0
    saved = _load(conditions.checkpoint)
    if saved is not None:
        core.load_state_dict(saved["core"])
        optimiser.load_state_dict(saved["optimiser"])
        best.load_state_dict(saved["best"])
        step, stale = saved["step"], saved["stale"]

    def save() -> None:
        _save(
            conditions.checkpoint,
            {
                "core": core.state_dict(),
                "optimiser": optimiser.state_dict(),
                "best": best.state_dict(),
                "step": step,
                "stale": stale,
            },
        )

    watch = _Watch(conditions.control, save)
    folds = torch.from_numpy(problem.folds)
    held = torch.arange(members)[:, None] != folds
    while step < plan.steps and stale < plan.patience:
        watch.before_step(step / plan.steps)
        rng = np.random.default_rng([plan.seed, step])
        batch = rng.choice(
            problem.runs, size=plan.batch, replace=plan.batch > problem.runs, p=problem.weights
        )
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step)
        optimiser.zero_grad()
        loss = problem.loss(batch, rng, held[:, batch].float())
        loss.backward()
        optimiser.step()
        step += 1
        if step % plan.check_every == 0 or step == plan.steps:
            with torch.no_grad():
                errors = problem.errors()
            stale = 0 if best.update(parameters, errors, folds, step) else stale + 1
    save()
    best.restore(parameters)
    return Outcome(step, tuple(best.steps), float(np.sqrt(np.mean(best.errors))))


class _Best:
    """The best weights of each member so far, by its error on the runs that it left out."""

    def __init__(self, parameters: dict[str, nn.Parameter], members: int) -> None:
        self.weights = {k: v.detach().clone() for k, v in parameters.items()}
        self.errors = [float("inf")] * members
        self.steps = [0] * members

    def update(
        self, parameters: dict[str, nn.Parameter], errors: Tensor, folds: Tensor, step: int
    ) -> bool:
        members, better = len(self.errors), False
        for m in range(members):
            mine = folds == m
            # A member that leaves nothing out goes by what all learn.
            error = float(errors[m, mine].mean() if mine.any() else errors[m].mean())
            if error < self.errors[m]:
                self.errors[m], self.steps[m], better = error, step, True
                for name, value in parameters.items():
                    self.weights[name].view(members, -1)[m] = value.detach().view(members, -1)[m]
        return better

    def restore(self, parameters: dict[str, nn.Parameter]) -> None:
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "errors": self.errors, "steps": self.steps}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.weights, self.errors, self.steps = saved["weights"], saved["errors"], saved["steps"]


class _Watch:
    """Asks the control before each step; saves now and then, and before leaving."""

    def __init__(self, control: Control, save: Callable[[], None]) -> None:
        self._control, self._save = control, save
        self._slowest, self._last = 0.0, time.monotonic()
        self._saved = self._last

    def before_step(self, progress: float) -> None:
        now = time.monotonic()
        self._slowest, self._last = max(self._slowest, now - self._last), now
        left = self._control.remaining()
        if self._control.stop_requested() or left < _RESERVE + 2 * self._slowest:
            self._save()
            msg = f"training stopped at {progress:.0%}, the block ends in {left:.0f} s"
            raise OutOfTime(msg, remaining=left, needed=_RESERVE, progress=progress)
        if now - self._saved > _SAVE_EVERY:
            self._save()
            self._saved = self._last = time.monotonic()


def _save(path: Path | None, content: dict[str, Any]) -> None:
    if path is None:
        return
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def _load(path: Path | None) -> dict[str, Any] | None:
    """Return a checkpoint, None without one; a damaged one is none, and training begins anew."""
    if path is None or not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError):
        return None
    return content
