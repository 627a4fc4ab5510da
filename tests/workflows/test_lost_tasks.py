"""Who pays for a lost worker: not the task whose block went, but the one that kills its worker."""

from concurrent.futures import Future

import pytest

from apps.errors import OutOfTime
from apps.parsl_apps import Stages
from apps.simulate import SimulateOutcome, SimulateResult, simulation_digests
from edge_agent.contracts.site import Site
from workflows.config import CAMPAIGNS, SITES, Budget, Campaign
from workflows.flight import AGAIN_SECONDS
from workflows.layout import RunFolder
from workflows.ledger import Ledger
from workflows.loop import ATTEMPTS, CampaignLoop
from workflows.machine import FixedMachine


class WorkerLost(Exception):
    """A worker went."""


class BlockLost(WorkerLost):
    """A whole block went."""


class Done(Exception):
    """Enough was seen."""


class Machine(FixedMachine):
    def blameless(self, error):
        return isinstance(error, BlockLost)


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Run a loop whose first simulation task meets some errors; return its ledger and the runs."""
    monkeypatch.setattr("workflows.flight.AGAIN_SECONDS", 0.0)
    assert AGAIN_SECONDS > 0
    ledger = Ledger(tmp_path / "ledger.sqlite", "test")

    def play(errors, enough):
        campaign = Campaign.from_toml(CAMPAIGNS / "quick.toml")
        campaign = campaign.model_copy(update={"budget": Budget(simulations=8, wall_seconds=60)})
        runs = []

        def simulate(task):
            future = Future()
            digests = simulation_digests(task)
            runs.append(digests)
            mine = [r for r in runs if r == runs[0]]
            if digests == runs[0] and len(mine) <= len(errors):
                error = errors[len(mine) - 1]
                if isinstance(error, Exception):
                    future.set_exception(error)
                    return future
                status = error
            else:
                status = "finished"
            future.set_result(
                SimulateResult(
                    outcomes=tuple(
                        SimulateOutcome(digest=d, status=status, seconds=0.1) for d in digests
                    )
                )
            )
            return future

        def other(_task):
            raise Done

        stages = Stages(
            simulate=simulate, train=other, validate=other, publish=other,
            lost=lambda error: isinstance(error, WorkerLost),
        )  # fmt: skip

        def tick(loop):
            if enough(loop, runs):
                raise Done

        loop = CampaignLoop(
            campaign, Site.from_toml(SITES / "lindcove.toml"), RunFolder(tmp_path), ledger,
            stages, machine=Machine(1), on_tick=tick,
        )  # fmt: skip
        with pytest.raises(Done):
            loop.run()
        return ledger, runs

    yield play
    ledger.close()


def states(ledger, digests):
    return {row.state for row in ledger.simulations() if row.digest in digests}


def count(runs):
    return sum(r == runs[0] for r in runs)


def test_lost_blocks_charge_no_retry(play):
    ledger, runs = play([BlockLost("gone")] * 9, lambda _loop, runs: count(runs) > 9)
    assert states(ledger, runs[0]) == {"done"}
    assert len(ledger.events("task_lost")) == 9


def test_a_task_that_kills_its_worker_three_times_is_a_recorded_failure(play):
    ledger, runs = play(
        [WorkerLost("dead")] * 9,
        lambda loop, _runs: any(r.state == "failed" for r in loop.ledger.simulations()),
    )
    assert count(runs) == ATTEMPTS
    assert states(ledger, runs[0]) == {"failed"}
    assert {r.reason for r in ledger.simulations() if r.digest in runs[0]} == {"worker_lost"}


def test_lost_blocks_between_do_not_count(play):
    errors = [WorkerLost("dead"), BlockLost("gone"), WorkerLost("dead"), BlockLost("gone")]
    ledger, runs = play(errors, lambda _loop, runs: count(runs) > 4)
    assert states(ledger, runs[0]) == {"done"}


def test_unfinished_and_deferred_tasks_go_on(play):
    errors = ["unfinished", OutOfTime("later"), "unfinished"]
    ledger, runs = play(errors, lambda _loop, runs: count(runs) > 3)
    assert states(ledger, runs[0]) == {"done"}
    assert len(ledger.events("task_unfinished")) == 2
    assert len(ledger.events("task_deferred")) == 1


def test_work_left_shrinks_to_nothing():
    from workflows.backlog import work_left
    from workflows.decisions import Tally
    from workflows.ledger import ROLES

    campaign = Campaign.from_toml(CAMPAIGNS / "quick.toml")
    fresh = work_left(campaign, {r: Tally() for r in ROLES}, (), out_of_time=False, training=0.0)
    assert fresh.tasks == (48 + 96) // 8
    full = {r: Tally(done=96) for r in ROLES}
    left = work_left(campaign, full, (4.0, 6.0), out_of_time=False, training=3.0)
    assert (left.tasks, left.training_seconds) == (0, 3.0)
    assert left.run_times[0].seconds == 5.0
