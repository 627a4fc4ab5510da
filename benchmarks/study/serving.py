"""What the edge serves over two months, and how far from the truth it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.study.arrivals import in_service
from benchmarks.study.following import Version, square_error


@dataclass(frozen=True)
class Served:
    """One way of serving."""

    error: np.ndarray
    """(n,) mean square error at each instant, (m/s)^2; NaN before the first release."""
    age: np.ndarray
    """(n,) hours since the newest reading behind the release; NaN without one."""
    releases: int
    """That ever served."""


#: Rows of `Version.error`.
FINE, OWN = 0, 1
#: Errors of a version: asked for the wind, and with the interior readings as inputs.
BLIND, SEEING = "error", "seen"


def serve(
    versions: Sequence[Version],
    hours: np.ndarray,
    arrives: np.ndarray,
    against: int = FINE,
    signature: str = BLIND,
) -> Served:
    """Return what is served when releases arrive at these hours."""
    made = np.array([v.hours for v in versions])
    active = in_service(hours, made, arrives)
    errors = np.stack([getattr(v, signature)[against] for v in versions])
    rows = np.arange(len(hours))
    there = active >= 0
    return Served(
        error=np.where(there, errors[active, rows], np.nan),
        age=np.where(there, hours - made[active], np.nan),
        releases=len(np.unique(active[there])),
    )


def baselines(
    versions: Sequence[Version], hours: np.ndarray, winds: np.ndarray, against: int = FINE
) -> dict[str, np.ndarray]:
    """Return the errors of what needs no surrogate, (n,) each.

    ``constant ratio`` and ``nearest simulation`` have the runs of the release that would serve
    without any delay. ``persistence`` is given the true field of the instant before, everywhere in
    the house, which nobody could measure: it is better here than it can be.
    """
    made = np.array([v.hours for v in versions])
    active = in_service(hours, made.tolist(), made.tolist())
    rows = np.arange(len(hours))
    there = active >= 0
    found = {}
    for name, attribute in (("constant ratio", "ratio"), ("nearest simulation", "nearest")):
        table = np.stack([getattr(v, attribute)[against] for v in versions])
        found[name] = np.where(there, table[active, rows], np.nan)
    wind = winds[against]
    before = np.concatenate([[np.nan], square_error(wind[1:], wind[:-1])])
    return {"persistence": before} | found


def scored_from(served: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the instants at which every way has an answer, (n,) bool: like for like."""
    return np.asarray(np.all([np.isfinite(e) for e in served.values()], axis=0))


def beaten_from(
    versions: Sequence[Version], rivals: Mapping[str, np.ndarray]
) -> dict[str, int | None]:
    """Return, for each rival, the version from which on every one has the smaller error.

    Parameters
    ----------
    versions : sequence of Version
        Each scored on the whole record, its past and its future.
    rivals : mapping from name to (n,) array
        Mean square errors; instants without one (NaN) are left out for both.

    Returns
    -------
    dict
        Version numbers; none if the last version does not beat it.
    """
    found: dict[str, int | None] = {}
    for name, rival in rivals.items():
        there = np.isfinite(rival)
        better = [v.error[FINE, there].mean() < rival[there].mean() for v in versions]
        lost = [k for k, beats in enumerate(better) if not beats]
        first = lost[-1] + 1 if lost else 0
        found[name] = versions[first].number if first < len(versions) else None
    return found


def by_week(versions: Sequence[Version], hours: np.ndarray) -> np.ndarray:
    """Return the RMSE of each version in each week of the record, (versions, weeks), m/s.

    Every version is scored on every week, its past and its future.
    """
    week = (hours // (7 * 24)).astype(int)
    errors = np.stack([v.error[FINE] for v in versions])
    return np.stack(
        [np.sqrt(errors[:, week == w].mean(axis=1)) for w in range(week.max() + 1)], axis=1
    )
