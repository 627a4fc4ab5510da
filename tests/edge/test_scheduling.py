"""Hints to the kernel: taken where there are, harmless where there are none."""

import ctypes
import os
import platform
import struct
import threading
from pathlib import Path

import pytest

from edge_agent import scheduling
from edge_agent.scheduling import SHORTEST_SLICE, ask_for_slice, awake

GETATTR = {"x86_64": 315, "aarch64": 275}


def granted_slice() -> int:
    """The calling thread's slice, ns; 0 where the kernel does not tell."""
    found = scheduling._Attributes(size=ctypes.sizeof(scheduling._Attributes))
    library = ctypes.CDLL(None)
    call = GETATTR[platform.machine()]
    assert library.syscall(call, 0, ctypes.byref(found), ctypes.sizeof(found), 0) == 0
    return found.runtime


def in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(platform.machine() not in GETATTR, reason="no number for sched_getattr here")
def test_a_thread_gets_its_slice_and_hands_it_to_threads_it_starts():
    def asks():
        before = granted_slice()
        taken = ask_for_slice(SHORTEST_SLICE)
        return before, taken, granted_slice(), in_a_thread(granted_slice)

    before, taken, after, inherited = in_a_thread(asks)
    if before == 0:
        pytest.skip("this kernel (before 6.12) knows no slices")
    assert taken
    assert after == inherited == round(SHORTEST_SLICE * 1e9)


def test_policy_and_nice_value_stay():
    def asks():
        before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
        ask_for_slice(SHORTEST_SLICE)
        return before, (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))

    before, after = in_a_thread(asks)
    assert before == after


def test_an_unknown_machine_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert not ask_for_slice(SHORTEST_SLICE)


def test_the_wish_to_stay_awake_is_written_and_held(tmp_path):
    device = tmp_path / "cpu_dma_latency"
    device.touch()
    with awake(20, device) as agreed:
        assert agreed
        assert struct.unpack("=i", device.read_bytes()) == (20,)
        holders = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        assert device in holders


def test_without_permission_the_agent_goes_on(tmp_path):
    with awake(0, tmp_path / "missing" / "device") as agreed:
        assert not agreed
