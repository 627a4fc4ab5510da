"""The stages as Parsl apps. The stages themselves know nothing of Parsl."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from apps.publish import PublishResult, PublishTask, publish
from apps.simulate import SimulateResult, SimulateTask, simulate
from apps.train import TrainResult, TrainTask, train
from apps.validate import ValidateResult, ValidateTask, validate

#: HighThroughputExecutor serves lower priorities first: what is nearest to a release goes first.
PUBLISH, VALIDATE, TRAIN, SIMULATE = ({"priority": rank} for rank in range(4))


def rbf_simulate(
    task: SimulateTask,
    parsl_resource_specification: dict[str, Any] = SIMULATE,  # noqa: ARG001 - Parsl reads it
) -> SimulateResult:
    """Run `apps.simulate.simulate` in a block."""
    return simulate(task)


def rbf_train(
    task: TrainTask,
    parsl_resource_specification: dict[str, Any] = TRAIN,  # noqa: ARG001
) -> TrainResult:
    """Run `apps.train.train` in a block."""
    return train(task)


def rbf_validate(
    task: ValidateTask,
    parsl_resource_specification: dict[str, Any] = VALIDATE,  # noqa: ARG001
) -> ValidateResult:
    """Run `apps.validate.validate` in a block."""
    return validate(task)


def rbf_publish(
    task: PublishTask,
    parsl_resource_specification: dict[str, Any] = PUBLISH,  # noqa: ARG001
) -> PublishResult:
    """Run `apps.publish.publish` in a block."""
    return publish(task)


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
