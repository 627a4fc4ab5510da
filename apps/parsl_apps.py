"""The stages as Parsl apps. The stages themselves know nothing of Parsl."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.deadline import deadline_file, here, require
from apps.publish import PublishResult, PublishTask, publish
from apps.simulate import SimulateResult, SimulateTask, simulate
from apps.trace import traced
from apps.train import TrainResult, TrainTask, train
from apps.validate import ValidateResult, ValidateTask, validate

#: HighThroughputExecutor serves lower priorities first: what is nearest to a release goes first.
PUBLISH, VALIDATE, TRAIN, SIMULATE = ({"priority": rank} for rank in range(4))

#: Validation and publication are not begun with less time than this, s.
SHORT_SECONDS = 5.0


def rbf_simulate(
    task: SimulateTask,
    parsl_resource_specification: dict[str, Any] = SIMULATE,  # noqa: ARG001 - Parsl reads it
) -> SimulateResult:
    """Run `apps.simulate.simulate` in a block."""
    deadline = deadline_file()
    if task.deadline is None and deadline is not None:
        task = task.model_copy(update={"deadline": str(deadline)})
    checkpoint = task.checkpoint or ""
    with _traced("simulate", Path(checkpoint).name, checkpoint):
        return simulate(task)


def rbf_train(
    task: TrainTask,
    parsl_resource_specification: dict[str, Any] = TRAIN,  # noqa: ARG001
) -> TrainResult:
    """Run `apps.train.train` in a block."""
    with _traced("train", task.digest()):
        return train(task, here())


def rbf_validate(
    task: ValidateTask,
    parsl_resource_specification: dict[str, Any] = VALIDATE,  # noqa: ARG001
) -> ValidateResult:
    """Run `apps.validate.validate` in a block."""
    with _traced("validate", Path(task.candidate).name):
        require(here(), SHORT_SECONDS, "validation")
        return validate(task)


def rbf_publish(
    task: PublishTask,
    parsl_resource_specification: dict[str, Any] = PUBLISH,  # noqa: ARG001
) -> PublishResult:
    """Run `apps.publish.publish` in a block."""
    with _traced("publish", Path(task.candidate).name):
        require(here(), SHORT_SECONDS, "publication")
        return publish(task)


def _traced(stage: str, name: str, checkpoint: str = "") -> AbstractContextManager[None]:
    deadline = deadline_file()
    return traced(None if deadline is None else deadline.parent, stage, name, checkpoint)


@dataclass(frozen=True)
class Stages:
    """The four stages, each returning a future."""

    simulate: Callable[[SimulateTask], Future[SimulateResult]]
    train: Callable[[TrainTask], Future[TrainResult]]
    validate: Callable[[ValidateTask], Future[ValidateResult]]
    publish: Callable[[PublishTask], Future[PublishResult]]
    lost: Callable[[BaseException], bool]
    """Whether an error means that the worker went, not that the task failed."""


def parsl_stages(executor: str) -> Stages:
    """Return the stages as apps on a loaded Parsl executor.

    Parameters
    ----------
    executor : str
        Its label.
    """
    from parsl import python_app
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    def app(function: Callable[..., Any]) -> Callable[[Any], Future[Any]]:
        # Parsl's cache stays off: its key is the app's name and arguments, not the code.
        wrapped: Callable[[Any], Future[Any]] = python_app(
            function, executors=[executor], cache=False
        )
        return wrapped

    return Stages(
        simulate=app(rbf_simulate),
        train=app(rbf_train),
        validate=app(rbf_validate),
        publish=app(rbf_publish),
        lost=lambda error: isinstance(error, ManagerLost | WorkerLost),
    )
