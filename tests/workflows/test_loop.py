from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from apps.errors import SimulationError
from apps.parsl_apps import Stages
from workflows.config import Campaign
from workflows.errors import CampaignError
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.loop import CampaignLoop
from workflows.machine import FixedMachine


def refuse(_task):
    future = Future()
    future.set_exception(SimulationError("OpenFOAM is missing: apt install openfoam"))
    return future


def test_a_simulator_that_cannot_run_at_all_ends_the_campaign_and_says_why(tmp_path):
    campaign = Campaign(name="t")
    site = campaign.load_site(Path("t.toml"))
    stages = Stages(refuse, refuse, refuse, refuse, lost=lambda _error: False)
    with closing(Ledger(tmp_path / "ledger.sqlite", "t")) as ledger:
        loop = CampaignLoop(
            campaign, site, RunFolder(tmp_path), ledger, stages, machine=FixedMachine(2)
        )
        with pytest.raises(CampaignError, match="apt install openfoam"):
            loop.run()
        assert ledger.simulations()[0].state == "planned", "it is run when the set-up is mended"
