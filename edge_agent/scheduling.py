"""What the kernel can do for latency: time slices, and how deeply a processor sleeps.

Since 6.12 a thread may ask for a shorter time slice (``sched_setattr`` with ``sched_runtime``;
EEVDF): it then runs no less, but in shorter turns, and when it wakes it goes before threads with
longer ones. A thread that serves asks for short slices so that a request is not left waiting behind
somebody's three milliseconds; the thread that loads releases does so that nobody waits behind its.
Older kernels take no notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

#: The shortest that the kernel grants, s.
SHORTEST_SLICE = 1e-4
#: Where a process says how long waking may take (Documentation/power/pm_qos_interface.rst).
PM_QOS = Path("/dev/cpu_dma_latency")
_CALLS = {"x86_64": 314, "aarch64": 274, "armv7l": 380, "armv6l": 380, "riscv64": 274}


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_slice(seconds: float) -> bool:
    """Ask for time slices of this length, s, for the calling thread; return whether it was taken.

    Its scheduling policy and nice value stay as they are.
    """
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    asked = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=os.SCHED_OTHER,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=int(seconds * 1e9),
    )
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.syscall(number, 0, ctypes.byref(asked), 0) == 0)


@contextlib.contextmanager
def awake(latency_us: int, device: Path = PM_QOS) -> Iterator[bool]:
    """Keep the processors out of sleep states from which waking takes longer than this, us.

    Yields whether the system agreed. A processor that sleeps deeply answers late: on an idle
    virtual machine waking one takes 40 us, more than everything this agent does for a request.
    """
    with contextlib.ExitStack() as holding:
        try:
            # The request holds while the file is open.
            file = holding.enter_context(device.open("r+b", buffering=0))
            file.write(struct.pack("=i", latency_us))
        except OSError as error:
            log.warning(
                "processors may sleep; wake_latency_us has no effect",
                reason=str(error),
                remedy=f"let the agent's user write {device}, or leave wake_latency_us out",
            )
            yield False
        else:
            yield True
