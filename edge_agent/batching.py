"""When requests that wait together are run together: pure.

A batch answers all its requests when the last is done; one after the other they are answered at
1, 2, ... n times the cost of one, on average at (n + 1) / 2. A batch pays if it is done by then.
Linear models have a large fixed cost and pay at once; convolutions on a processor do not.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """What a run costs, measured when a release is loaded."""

    first: float
    """A run of one row, s."""
    each: float
    """A further row in the same run, s."""

    def of(self, rows: int) -> float:
        """Return the time of a run of so many rows, s."""
        return self.first + (rows - 1) * self.each


def fitted(one: float, many: float, rows: int) -> Cost:
    """Return the cost from two measurements, of one row and of `rows` rows, s."""
    return Cost(one, max(0.0, (many - one) / (rows - 1)))


def batch_size(waiting: int, cost: Cost, objective: float) -> int:
    """Return how many of the waiting single-row requests to run together, 1 for none.

    Parameters
    ----------
    waiting : int
        At least one.
    cost : Cost
    objective : float, s
        Longest time that a request may wait for a run.
    """
    size = waiting
    if cost.first > objective:
        return 1
    if cost.of(size) > objective:
        size = int((objective - cost.first) / cost.each) + 1
    if size < 2 or cost.of(size) > (size + 1) / 2 * cost.first:
        return 1
    return size
