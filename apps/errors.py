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
            ├── RepositoryConflict  somebody else published meanwhile; try again
            ├── RepositoryDamaged   its metadata are not what its keys signed
            └── SigningError        a key is missing, locked or not enough
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


class RepositoryConflict(PublishError):
    """Somebody else published meanwhile; the same call again starts from what they made."""


class RepositoryDamaged(PublishError):
    """Metadata are missing, or not what the repository's keys signed; nothing is built on them."""


class SigningError(PublishError):
    """A key is missing or cannot be unlocked, or there are too few for the role."""


class OutOfTime(StageError):
    """The next step would not fit before the block ends; the task runs again in another."""
