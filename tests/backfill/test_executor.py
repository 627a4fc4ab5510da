"""Which blocks get no more tasks, which go, and whose fault a lost task is."""

import time
from collections import deque

import pytest
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from workflows.backfill.blocks import Block
from workflows.backfill.executor import BlockExecutor
from workflows.backfill.planner import BlockShape, Limits
from workflows.backfill.provider import STILLBORN, GapProvider
from workflows.backfill.slurm import Slurm
from workflows.backfill.watcher import LEAVE
from workflows.errors import MachineError


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.setattr("parsl.providers.SlurmProvider.execute_wait", lambda *_: (1, "", "none"))
    provider = GapProvider(
        blocks=tmp_path, limits=Limits(leave_seconds=10.0), slurm=Slurm(run=lambda *_: "")
    )
    executor = BlockExecutor(
        provider=provider, watch_command="watch", idle_seconds=5.0, address="127.0.0.1"
    )
    executor.held = deque()
    monkeypatch.setattr(executor, "_hold_manager", executor.held.append)
    return executor


def block(executor, state="RUNNING", left=100.0, **known):
    made = Block("7", "n", BlockShape(1, 2, 5), "", time.time(), state=state, **known)
    made.ends_at = time.time() + left
    executor.gaps.blocks["7"] = made
    return made


def manager(tasks, idle=0.0):
    return {"manager": "m", "block_id": "7", "tasks": tasks, "idle_duration": idle, "active": True}


@pytest.mark.parametrize(
    ("made", "managers", "held", "left"),
    [
        ({}, [manager(2)], False, False),
        ({}, [manager(0, idle=3.0)], False, False),
        ({}, [manager(0, idle=6.0)], True, True),
        ({"left": 8.0}, [manager(1)], True, False),
        ({"left": 8.0}, [manager(0)], True, True),
        ({"recalled": True, "left": 60.0}, [manager(2)], True, False),
        ({"state": "COMPLETING"}, [manager(2)], True, False),
        ({"state": "NODE_FAIL"}, [manager(1)], True, False),
        ({"state": "PENDING", "left": 1.0}, [], False, False),
        ({"left": 8.0}, [], True, False),
    ],
)
def test_release(executor, tmp_path, made, managers, held, left):
    one = block(executor, **made)
    executor._release(one, managers, time.time())
    assert one.held == held
    assert list(executor.held) == (["m"] if held and managers else [])
    assert (tmp_path / "7" / LEAVE).exists() == left


@pytest.mark.parametrize(
    ("state", "recalled", "blameless"),
    [
        ("TIMEOUT", False, True),
        ("PREEMPTED", True, True),
        ("NODE_FAIL", False, True),
        ("CANCELLED", False, True),
        ("RUNNING", True, True),
        ("RUNNING", False, False),
        ("FAILED", False, False),
        ("OUT_OF_MEMORY", False, False),
    ],
)
def test_whose_fault(executor, state, recalled, blameless):
    block(executor, state=state, recalled=recalled).held = True
    executor._managers_of["m"] = "7"
    assert executor.blameless(ManagerLost(b"m", "host")) == blameless
    assert not executor.blameless(WorkerLost(1, "host"))
    assert not executor.blameless(ManagerLost(b"unknown", "host"))


def test_blocks_that_never_come_up_end_the_campaign_with_the_reason(executor, tmp_path):
    block(executor)
    executor.gaps.stillborn = STILLBORN
    (tmp_path / "n.err").write_text("first\nbash: module: command not found\n")
    with pytest.raises(MachineError, match="module: command not found"):
        executor.set_backlog(executor.gaps.backlog)


def test_a_scale_in_of_parsl_cancels_nothing(executor):
    block(executor, state="PENDING")
    assert executor.scale_in(1) == []
    assert executor.gaps.blocks["7"].waiting
