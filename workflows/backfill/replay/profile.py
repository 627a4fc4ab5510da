"""Free processors over time, as a step function in two arrays."""

from __future__ import annotations

import math

import numpy as np


class Profile:
    """Processors that are free from each time to the next; the last step goes on for ever.

    Attributes
    ----------
    times : (n,) float64, s
        Rising; ``times[0]`` is now.
    free : (n,) int64
        Free processors from ``times[i]`` to ``times[i + 1]``.
    """

    def __init__(self, now: float, procs: int) -> None:
        self.times = np.array([now], dtype=np.float64)
        self.free = np.array([procs], dtype=np.int64)

    @classmethod
    def of_running(cls, now: float, idle: int, ends: np.ndarray, procs: np.ndarray) -> Profile:
        """Make the profile of running jobs, which only rises.

        Parameters
        ----------
        now : float, s
        idle : int
            Processors that are free now.
        ends, procs : (n,) array
            Planned end (s, after now) and processors of each running job, by end.
        """
        profile = cls(now, idle)
        profile.times = np.concatenate(([now], ends))
        profile.free = idle + np.concatenate(([0], np.cumsum(procs)))
        return profile

    def advance(self, now: float) -> None:
        """Forget what is before now, and steps that are none."""
        first = int(np.searchsorted(self.times, now, side="right")) - 1
        self.times[first] = now
        real = np.diff(self.free, prepend=-1) != 0
        real[first], real[:first] = True, False
        if not real.all():
            self.times, self.free = self.times[real], self.free[real]

    def take(self, start: float, end: float, procs: int) -> None:
        """Take processors from start to end; a negative number gives them back."""
        first, last = self._edge(start), self._edge(end)
        self.free[first:last] -= procs

    def earliest(self, procs: int, length: float, after: float = -math.inf) -> float:
        """Return when so many processors are free for so long, first.

        Parameters
        ----------
        procs : int
        length : float, s
        after : float, s
            Not before.
        """
        short = np.flatnonzero(self.free < procs)
        begins = np.concatenate((self.times[:1], self._ends(short)))
        stops = np.append(self.times[short], math.inf)
        begins = np.maximum(begins, after)
        return float(begins[np.argmax(stops - begins >= length)])

    def least(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the processors that stay free from now on, as steps down.

        Returns
        -------
        ends : (n,) float64, s
            Rising; the last is inf.
        procs : (n,) int64
            Falling: ``procs[i]`` processors are free from now to ``ends[i]``.
        """
        least = np.minimum.accumulate(self.free)
        last = np.flatnonzero(np.append(np.diff(least) < 0, True))
        return np.append(self.times[1:], math.inf)[last], least[last]

    def _ends(self, steps: np.ndarray) -> np.ndarray:
        ends: np.ndarray = np.append(self.times, math.inf)[steps + 1]
        return ends

    def _edge(self, at: float) -> int:
        """Return the index of the step that begins at a time; make it if there is none."""
        if at == math.inf:
            return len(self.times)
        index = int(np.searchsorted(self.times, at))
        if index < len(self.times) and self.times[index] == at:
            return index
        self.times = np.insert(self.times, index, at)
        self.free = np.insert(self.free, index, self.free[index - 1])
        return index
