"""What Globus Compute asks of its clients: how often, how much.

20 requests in 10 s and 10 MB for one submission and for one result, each after encoding
(https://globus-compute.readthedocs.io/en/latest/limits.html).
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.contracts.errors import PayloadTooLarge

REQUESTS, WINDOW_SECONDS = 20, 10.0
#: Largest submission, bytes: 10 MiB, less what the SDK puts round the arguments.
PAYLOAD_BYTES = 10 * 2**20 - 64 * 2**10


class RateLimit:
    """So many requests in any window of so many seconds; any thread may ask.

    Parameters
    ----------
    requests : int
    window : float, s
    clock, sleep : callable
        For tests.
    """

    def __init__(
        self,
        requests: int = REQUESTS,
        window: float = WINDOW_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._window = window
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[float] = deque(maxlen=requests)
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Return how long the next request has to wait, s."""
        with self._lock:
            return self._wait()

    def take(self) -> None:
        """Wait until a request may go, and count it."""
        while True:
            with self._lock:
                wait = self._wait()
                if wait <= 0:
                    self._sent.append(self._clock())
                    return
            self._sleep(wait)

    def _wait(self) -> float:
        if len(self._sent) < (self._sent.maxlen or 0):
            return 0.0
        return max(0.0, self._sent[0] + self._window - self._clock())


def check_size(requests: Sequence[dict[str, Any]]) -> None:
    """Check that requests fit into one submission.

    Raises
    ------
    PayloadTooLarge
        If they do not.
    TypeError, ValueError
        If they are not JSON values.
    """
    # The SDK writes each argument as JSON, and the submission holds that text as a JSON string.
    size = sum(len(json.dumps(json.dumps([request]))) for request in requests)
    if size > PAYLOAD_BYTES:
        msg = (
            f"the arguments have {size} bytes, Globus Compute carries {PAYLOAD_BYTES} in one "
            "submission: send fewer predictions at once"
        )
        raise PayloadTooLarge(msg, size=size, limit=PAYLOAD_BYTES)
