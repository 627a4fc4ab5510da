"""What every surrogate family offers, and the families by name.

A family is one module with a settings model and a ``fit`` function. Nothing heavy is imported
until a family is used; ``onnx`` not before a model is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from pydantic import ValidationError

from apps.deadline import Unlimited
from apps.errors import TrainingError
from apps.simulators.base import Control
from edge_agent.contracts.model import Contract
from edge_agent.contracts.site import Site

if TYPE_CHECKING:
    import onnx

    from apps.simulation_set import SimulationSet

#: The exported graph: one input (batch, 2 + columns of the state) float32, two outputs
#: (batch, 3, nz, ny, nx) float32.
INPUT, WIND, WIND_STD = "inputs", "wind", "wind_std"


class Surrogate(Protocol):
    """A trained map from wind speed and direction, and perhaps the state, to the house's wind."""

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the wind and its standard deviation.

        Parameters
        ----------
        inputs : (n, 2 + columns) float32
            Wind speed at the reference height (m/s), direction it comes from (degrees), and the
            state of the house in the columns of the training set's space.

        Returns
        -------
        wind : (n, 3, nz, ny, nx) float32, m/s
            Along the house's x, y and z axes.
        wind_std : (n, 3, nz, ny, nx) float32, m/s
            Positive; an interval only after calibration.
        """
        ...

    def to_onnx(self) -> onnx.ModelProto:
        """Return the same map as a graph with a dynamic batch, in the same physical units."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return what training chose, as JSON values."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return what a later training of the same family can start from."""
        ...


@dataclass(frozen=True)
class WarmStart:
    """An earlier surrogate of the same family, site and settings, to start from."""

    state: Mapping[str, np.ndarray]
    """Its `Surrogate.state`."""
    digests: frozenset[str] = frozenset()
    """Runs that it was trained on."""
    keep_basis: bool = False
    """Whether its POD modes stay as they are, and new ones are added: small updates."""


@dataclass(frozen=True)
class Conditions:
    """What a training may use beside its data, and when it must stop."""

    control: Control = field(default_factory=Unlimited)
    """Asked before every step of a family that can go on from a checkpoint."""
    checkpoint: Path | None = None
    """Where such a family leaves its state when it is stopped, and finds it again."""
    threads: int = 1
    """Threads of linear algebra."""
    start: WarmStart | None = None
    """What to start from; a family may ignore it."""


UNCONDITIONAL = Conditions()


class FitFunction(Protocol):
    """Trains one family."""

    def __call__(
        self,
        data: SimulationSet,
        site: Site,
        settings: Any,  # noqa: ANN401 - each family has its own settings model
        seed: int,
        conditions: Conditions = ...,
    ) -> Surrogate:
        """Return the surrogate; equal arguments give equal numbers, whatever the runs' order.

        The control and the checkpoint of `conditions` do not change the numbers: a training that
        was stopped and goes on gives what it would have given at once.

        Raises
        ------
        TrainingError
            If there are too few runs or a value is not finite.
        OutOfTime
            If the control ends it; called again with the same checkpoint it goes on.
        """
        ...


@dataclass(frozen=True)
class Family:
    """Where a family is, and the version that goes into every candidate's digest."""

    module: str
    version: str
    """Raised by hand when the numbers change; a golden test guards it."""
    resumable: bool = False
    """Whether a training that is stopped goes on where it was."""
    takes_state: bool = True
    """Whether it can take the state of the house beside the wind."""
    packages: tuple[str, ...] = ()
    """Packages beside the usual ones whose versions matter."""

    @property
    def settings(self) -> type[Contract]:
        """The family's settings model."""
        return cast("type[Contract]", import_module(self.module).Settings)

    @property
    def fit(self) -> FitFunction:
        """The family's training function."""
        return cast("FitFunction", import_module(self.module).fit)


def _network(module: str, version: str) -> Family:
    return Family(
        f"apps.surrogates.{module}", version, resumable=True, packages=("torch", "onnxscript")
    )


FAMILIES: dict[str, Family] = {
    "pod_regression": Family("apps.surrogates.pod_regression", version="2", takes_state=False),
    "pod_gp": Family("apps.surrogates.pod_gp", version="1"),
    "pod_network": _network("pod_network", version="1"),
    "fourier_operator": _network("fourier_operator", version="1"),
    "convolutional": _network("convolutional", version="1"),
    "coordinate_network": _network("coordinate_network", version="1"),
}
#: What ``family = "auto"`` tries.
AUTO = tuple(FAMILIES)


def family(name: str) -> Family:
    """Return a family.

    Raises
    ------
    TrainingError
        If there is none of that name.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        msg = f"no surrogate family {name!r}; known: {', '.join(FAMILIES)}"
        raise TrainingError(msg, family=name) from None


def family_settings(name: str, values: Mapping[str, Any]) -> Contract:
    """Return a family's settings, complete with defaults.

    Raises
    ------
    TrainingError
        If the family does not exist or does not know a setting.
    """
    model = family(name).settings
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"settings of {name}: {field}: {first['msg']}"
        raise TrainingError(msg, family=name, field=field) from error


def check_training_data(data: SimulationSet, minimum_runs: int, *, state: bool = False) -> None:
    """Refuse what a family cannot learn from.

    Parameters
    ----------
    data : SimulationSet
    minimum_runs : int
    state : bool
        Whether the family takes the state of the house.

    Raises
    ------
    TrainingError
        If there are fewer than `minimum_runs`, a run is there twice, a value is not finite, a wind
        speed is not positive, or the runs tell of a state that the family does not take.
    """
    n = len(data.digests)
    if data.space.columns and not state:
        names = ", ".join(name for name, _ in data.space.columns)
        msg = f"this family takes wind alone, not {names}; take pod_gp or a network"
        raise TrainingError(msg, columns=names)
    if n < minimum_runs:
        msg = f"{n} training runs; at least {minimum_runs} are needed, simulate more"
        raise TrainingError(msg, runs=n, needed=minimum_runs)
    if len(set(data.digests)) != n:
        msg = "a training run is listed twice; list each once"
        raise TrainingError(msg, runs=n)
    finite = np.isfinite(data.wind.reshape(n, -1)).all(axis=1)
    finite &= np.isfinite(data.wind_speed) & np.isfinite(data.wind_from_direction)
    finite &= np.isfinite(data.state).all(axis=1)
    if not finite.all():
        bad = data.digests[int(np.argmin(finite))]
        msg = f"training run {bad} holds a value that is not finite; remove it"
        raise TrainingError(msg, digest=bad)
    if not (data.wind_speed > 0).all():
        bad = data.digests[int(np.argmin(data.wind_speed))]
        msg = f"training run {bad} has no wind; only positive wind speeds can be learnt from"
        raise TrainingError(msg, digest=bad)


Predictor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def by_name(predict: Predictor) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a predictor whose outputs have the exported graph's names."""
    return lambda inputs: dict(zip((WIND, WIND_STD), predict(inputs), strict=True))
