"""Errors of the campaign.

The tree (`RbfError` is in `edge_agent.contracts.errors`)::

    RbfError
    └── CampaignError
        ├── LedgerError     a ledger of another campaign, another schema, or in use
        ├── MachineError    no such machine, or its Parsl configuration does not start
        │   └── SchedulerError  the batch scheduler does not answer, or refuses
        │       └── NoWindow    the planner wants no block now
        ├── ObservationError  the store of observations cannot be used
        └── AgentError      the campaign's edge agent does not start
"""

from edge_agent.contracts.errors import RbfError


class CampaignError(RbfError):
    """The campaign cannot go on."""


class LedgerError(CampaignError):
    """The ledger cannot be used."""


class MachineError(CampaignError):
    """A machine cannot be used."""


class ObservationError(CampaignError):
    """The store of observations cannot be used."""


class AgentError(CampaignError):
    """The campaign's edge agent does not start."""


class SchedulerError(MachineError):
    """The batch scheduler does not answer, or refuses."""


class NoWindow(SchedulerError):
    """The planner wants no block now."""
