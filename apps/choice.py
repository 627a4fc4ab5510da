"""Which of several trained families: the smallest error on the selection set that serves in time.

The evaluation set has no part in it. Latency is measured as the device will run it: ONNX Runtime,
one thread, one answer; the shortest of many, which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from apps.candidates import Contender
from apps.errors import TrainingError

#: Errors this close, as a share, are alike; then the faster one is taken.
ALIKE = 0.02
#: Answers timed, in rounds.
_ROUNDS, _EACH = 10, 10


def choose(contenders: Sequence[Contender], latency_limit_ms: float) -> tuple[Contender, ...]:
    """Return the contenders with their reasons; the one without a reason is chosen.

    1. Whatever was not trained, or gives a prediction that is not finite, is out.
    2. Slower than the limit is out, unless nothing is left: then the fastest is taken.
    3. Of those within `ALIKE` of the smallest error the fastest is taken.

    Parameters
    ----------
    contenders : sequence of Contender
        With error and latency; a reason given already stays.
    latency_limit_ms : float

    Raises
    ------
    TrainingError
        If none can be used; says why each cannot.
    """
    usable = [c for c in contenders if c.rmse is not None and c.latency_ms is not None]
    if not usable:
        why = "; ".join(f"{c.family}: {c.reason or 'not finite'}" for c in contenders)
        msg = f"no family can be used: {why}"
        raise TrainingError(msg, families=tuple(c.family for c in contenders))
    quick = [c for c in usable if _latency(c) <= latency_limit_ms]
    if quick:
        smallest = min(_error(c) for c in quick)
        best = min((c for c in quick if _error(c) <= (1 + ALIKE) * smallest), key=_latency)
    else:
        best = min(usable, key=_latency)

    def judged(one: Contender) -> Contender:
        if one is best or one.reason:
            return one
        if one not in usable:
            reason = "a prediction on the selection set is not finite"
        elif quick and one not in quick:
            reason = f"{_latency(one):.2f} ms is above the limit of {latency_limit_ms:g} ms"
        elif _error(one) > _error(best):
            reason = f"RMSE {_error(one):.4g} m/s, {best.family} has {_error(best):.4g} m/s"
        else:
            reason = f"{_latency(one):.2f} ms, {best.family} takes {_latency(best):.2f} ms"
        return one.model_copy(update={"reason": reason})

    return tuple(judged(c) for c in contenders)


def latency_ms(model: bytes, inputs: np.ndarray) -> float:
    """Return the time of one answer, ms.

    Parameters
    ----------
    model : bytes
        ONNX.
    inputs : (1, n) float32
    """
    from apps.surrogates.base import INPUT
    from apps.surrogates.export import session

    running, feed = session(model), {INPUT: np.asarray(inputs, np.float32)}
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(_EACH):
            running.run(None, feed)
        best = min(best, (time.perf_counter() - started) / _EACH)
    return best * 1e3


def _error(one: Contender) -> float:
    return float("inf") if one.rmse is None else one.rmse


def _latency(one: Contender) -> float:
    return float("inf") if one.latency_ms is None else one.latency_ms
