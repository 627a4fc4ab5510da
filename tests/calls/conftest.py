"""The agents of `tests.edge`, in process and as processes."""

from tests.edge.conftest import agent, config, launch

__all__ = ["agent", "config", "launch"]
