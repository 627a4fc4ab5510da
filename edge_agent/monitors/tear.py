"""The tear detector: which panel's tear explains a lasting error at the interior sensors, if any.

Each hypothesis j (a tear at a place, or dust on all screens) says by how much the wind speed at the
interior sensors changes, d_j(wind). With e = measured - predicted - usual error of that wind
direction, all over the wind speed, the log-likelihood ratio of "j with amplitude a" to "healthy"
over a block of hours is (a x_j - a^2 E_j / 2) / phi, where x_j = sum d_j' P e, E_j = sum d_j' P
d_j, P the inverse covariance of e in health, and phi the factor by which the variance of block sums
exceeds that of independent errors (about 10 here: errors persist for hours). Each (j, a) has a
cumulative sum of it that never falls below zero. The largest above the threshold raises the alarm
and names the panel. If that is dust, the screens' state has changed and no panel is torn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_agent.contracts.monitors import Signatures, TearCalibration
from edge_agent.monitors.cusum import latched
from edge_agent.monitors.runlength import cusum_paths, drawn_days, threshold_for

#: Share of the signature's change; a tear of another size is near one of them.
TEAR_AMPLITUDES = (0.3, 1.0, 3.0)
#: Of dust: negative is washing.
STATE_AMPLITUDES = (-1.0, -0.3, 0.3, 1.0)
SECTORS = 8
#: Records that the mean error of a sector needs to count half: one day.
SHRINK = 144
#: Winds below it say little and scatter much, m/s.
MINIMUM_SPEED = 1.0
#: An error counts at most so much, standard deviations.
CLIP = 4.0
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Pairs:
    """What was predicted and measured at the interior sensors."""

    instant: np.ndarray
    """(n,) int64, data time, us since the Unix epoch, ascending."""
    wind_speed: np.ndarray
    """(n,) m/s at the reference height."""
    wind_from_direction: np.ndarray
    """(n,) degrees."""
    predicted: np.ndarray
    """(n, sensors) m/s."""
    measured: np.ndarray
    """(n, sensors) m/s; NaN where a sensor said nothing."""


class Verdict(NamedTuple):
    """What the detector says at the end of a block."""

    alarm: bool
    """Whether something has changed."""
    hypothesis: str
    """The likeliest."""
    panel: str | None
    """The panel torn; none if it is the state of all screens."""
    statistic: float
    """Of the likeliest; an alarm is raised above ``threshold``."""
    threshold: float


def expand(signatures: Signatures) -> tuple[np.ndarray, np.ndarray]:
    """Return (hypothesis number, amplitude) of every cumulative sum."""
    pairs = [
        (j, a)
        for j, h in enumerate(signatures.meta.hypotheses)
        for a in (TEAR_AMPLITUDES if h.kind == "tear" else STATE_AMPLITUDES)
    ]
    return np.array([j for j, _ in pairs]), np.array([a for _, a in pairs])


def relative_error(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return (usable rows, (rows, sensors) error over the wind speed)."""
    usable = (pairs.wind_speed >= MINIMUM_SPEED) & np.isfinite(pairs.measured).all(axis=1)
    error = (pairs.measured - pairs.predicted)[usable] / pairs.wind_speed[usable, None]
    return np.flatnonzero(usable), error


def sector(direction: np.ndarray) -> np.ndarray:
    """Return the number of the wind direction's sector."""
    turn = np.asarray(direction) % 360.0 * SECTORS / 360.0
    return np.asarray(np.floor(turn + 0.5).astype(int) % SECTORS)


def usual_error(error: np.ndarray, sectors: np.ndarray) -> np.ndarray:
    """Return (SECTORS, sensors): the mean error of each sector, drawn to the mean of all."""
    overall = error.mean(axis=0)
    found = np.tile(overall, (SECTORS, 1))
    for k in range(SECTORS):
        mine = error[sectors == k]
        if len(mine):
            share = len(mine) / (len(mine) + SHRINK)
            found[k] = share * mine.mean(axis=0) + (1 - share) * overall
    return found


def block_sums(
    signatures: Signatures,
    calibration: TearCalibration,
    pairs: Pairs,
    bias: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return block numbers (since the epoch), and x_j and E_j of each block.

    Parameters
    ----------
    signatures, calibration
    pairs : Pairs
    bias : (rows, sensors) array, optional
        Usual error of each usable row; by the calibration's sectors if none.

    Returns
    -------
    blocks : (b,) int array
    x, energy : (b, hypotheses) arrays
    """
    rows, error = relative_error(pairs)
    direction, speed = pairs.wind_from_direction[rows], pairs.wind_speed[rows]
    if bias is None:
        bias = np.array(calibration.bias)[sector(direction)]
    precision = np.array(calibration.precision)
    limit = CLIP * np.sqrt(np.diag(np.linalg.inv(precision)))
    error = np.clip(error - bias, -limit, limit)
    change = signatures.at(speed, direction) / speed[:, None, None]
    weighted = change @ precision
    x = np.einsum("nhm,nm->nh", weighted, error)
    energy = np.einsum("nhm,nhm->nh", weighted, change)
    length = round(calibration.block_seconds * 1e6)
    blocks, where = np.unique(pairs.instant[rows] // length, return_inverse=True)
    sums = np.zeros((2, len(blocks), x.shape[1]))
    np.add.at(sums[0], where, x)
    np.add.at(sums[1], where, energy)
    return blocks, sums[0], sums[1]


def increments(
    signatures: Signatures, calibration: TearCalibration, x: np.ndarray, energy: np.ndarray
) -> np.ndarray:
    """Return what every cumulative sum grows by in each block, (b, sums)."""
    which, amplitude = expand(signatures)
    inflation = np.array(calibration.inflation)[which]
    return np.asarray((amplitude * x[:, which] - 0.5 * amplitude**2 * energy[:, which]) / inflation)


def by_day(blocks: np.ndarray, values: np.ndarray, block_seconds: float) -> np.ndarray:
    """Return (days, blocks of a day, k): zero where a block has nothing."""
    a_day = round(86_400 / block_seconds)
    first = blocks.min() // a_day
    days = int(blocks.max() // a_day - first + 1)
    found = np.zeros((days, a_day, values.shape[1]))
    found[blocks // a_day - first, blocks % a_day] = values
    return found


def calibrate(
    signatures: Signatures,
    healthy: Pairs,
    *,
    run_length_days: float = 365.0,
    block_seconds: float = 21_600.0,
    replicates: int = 300,
    seed: int = 0,
) -> TearCalibration:
    """Tune the detector on a record in health.

    The usual error is left out of the days that it is tested on (five folds of days in a row), or
    the detector would look better than it is.

    Parameters
    ----------
    signatures : Signatures
    healthy : Pairs
        Weeks, with every wind direction of the site.
    run_length_days : float, days
        Mean time to a false alarm.
    block_seconds : float, s
        Length of a block; divides a day.
    replicates, seed : int
        Of the resampling.
    """
    rows, error = relative_error(healthy)
    sectors = sector(healthy.wind_from_direction[rows])
    day = healthy.instant[rows] // DAY_US
    fold = np.searchsorted(np.quantile(day, [0.2, 0.4, 0.6, 0.8]), day, side="right")
    left_out = np.empty_like(error)
    for k in np.unique(fold):
        others = fold != k
        if not others.any():
            others = fold == k
        left_out[fold == k] = usual_error(error[others], sectors[others])[sectors[fold == k]]
    rest = error - left_out
    precision = np.linalg.inv(rest.T @ rest / len(rest) + 1e-8 * np.eye(rest.shape[1]))
    plain = TearCalibration(
        bias=_rows(usual_error(error, sectors)),
        precision=_rows(precision),
        inflation=tuple(1.0 for _ in signatures.meta.hypotheses),
        threshold=1.0,
        block_seconds=block_seconds,
        run_length_days=run_length_days,
        days=float(np.ptp(day) + 1),
    )
    blocks, x, energy = block_sums(signatures, plain, healthy, left_out)
    inflation = (x**2).sum(axis=0) / energy.sum(axis=0)
    tuned = plain.model_copy(update={"inflation": tuple(float(v) for v in inflation)})
    daily = by_day(blocks, increments(signatures, tuned, x, energy), block_seconds)
    rng = np.random.default_rng(seed)
    chosen = drawn_days(len(daily), round(run_length_days), replicates, rng)
    statistic = cusum_paths(daily, chosen).max(axis=2)
    threshold = threshold_for(statistic, run_length_days, block_seconds / 86_400)
    return tuned.model_copy(update={"threshold": threshold})


class TearDetector:
    """The detector in service: one pair at a time.

    Parameters
    ----------
    signatures : Signatures
    calibration : TearCalibration
    """

    def __init__(self, signatures: Signatures, calibration: TearCalibration) -> None:
        self._signatures = signatures
        self._calibration = calibration
        self._which, _ = expand(signatures)
        self._sums = np.zeros(len(self._which))
        self._length = round(calibration.block_seconds * 1e6)
        self._block: int | None = None
        self._pairs: list[tuple[int, float, float, np.ndarray, np.ndarray]] = []
        self._alarm = False
        self.verdict = self._verdict()
        """Of the last block that ended."""

    def add(
        self,
        instant: int,
        speed: float,
        direction: float,
        predicted: np.ndarray,
        measured: np.ndarray,
    ) -> Verdict | None:
        """Take a pair; return the verdict if it begins a new block.

        Parameters
        ----------
        instant : int, us since the Unix epoch
        speed : float, m/s at the reference height
        direction : float, degrees
        predicted, measured : (sensors,) arrays, m/s
        """
        block = instant // self._length
        if self._block is not None and block < self._block:
            return None
        ended = self._block is not None and block != self._block
        if ended:
            self._end()
        self._block = block
        self._pairs.append((instant, speed, direction, predicted, measured))
        return self.verdict if ended else None

    def _end(self) -> None:
        instant, speed, direction, predicted, measured = zip(*self._pairs, strict=True)
        self._pairs.clear()
        pairs = Pairs(
            np.array(instant),
            np.array(speed),
            np.array(direction),
            np.array(predicted),
            np.array(measured),
        )
        _, x, energy = block_sums(self._signatures, self._calibration, pairs)
        if len(x):
            grow = increments(self._signatures, self._calibration, x, energy)[0]
            top = 2 * self._calibration.threshold
            self._sums = np.clip(self._sums + grow, 0.0, top)
        self.verdict = self._verdict()

    def _verdict(self) -> Verdict:
        best = int(self._sums.argmax())
        value, threshold = float(self._sums[best]), self._calibration.threshold
        self._alarm = latched(self._alarm, value, threshold)
        hypothesis = self._signatures.meta.hypotheses[self._which[best]]
        return Verdict(self._alarm, hypothesis.name, hypothesis.panel, value, threshold)


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)
