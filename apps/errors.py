"""Errors of the stages.

The tree (`RbfError` is in `edge_agent.contracts.errors`)::

    RbfError
    └── StageError
        ├── SimulationError   a simulator cannot run these cases at all (the set-up, not the flow)
        ├── DatasetError      a file that is not what it should be: missing, truncated, wrong site
        ├── TrainingError     a surrogate cannot be fitted or exported
        ├── ValidationError   scores cannot be computed
        ├── OutOfTime         the next step would not fit into the block; no failure
        └── PublishError      a repository that cannot take the release
"""

from edge_agent.contracts.errors import RbfError


class StageError(RbfError):
    """A stage cannot do its work."""


class SimulationError(StageError):
    """A simulator cannot run these cases at all."""


class DatasetError(StageError):
    """A data file is not what it should be."""


class TrainingError(StageError):
    """A surrogate cannot be fitted or exported."""


class ValidationError(StageError):
    """Scores cannot be computed."""


class PublishError(StageError):
    """A repository cannot take the release."""


class OutOfTime(StageError):
    """The next step would not fit before the block ends; the task runs again in another."""
