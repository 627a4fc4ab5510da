"""What carries `RemoteAgent`'s calls to an agent."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edge_agent.prediction import Prediction


class Transport(Protocol):
    """One way to an agent. All raise `AgentUnreachable` if nobody answers in time."""

    poll_seconds: float
    """Time between looks of someone who waits for a change, s."""

    def status(self) -> dict[str, Any]:
        """Return the agent's status."""
        ...

    def releases(self) -> dict[str, Any]:
        """Return the releases on the device."""
        ...

    def predict(
        self,
        rows: np.ndarray,
        columns: tuple[str, ...],
        name: str,
        *,
        version: int | None,
        request_id: str | None,
    ) -> Prediction:
        """Predict rows (batch, columns) float32 of the columns named, with the model of a name."""
        ...

    def call(self, command: str, arguments: dict[str, Any], request_id: str) -> dict[str, Any]:
        """Have a command carried out once; return its result, or raise its error."""
        ...

    def result(self, request_id: str) -> dict[str, Any] | None:
        """Return the result of an earlier call, or raise its error; none while it is under way."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...
