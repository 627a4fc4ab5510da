"""Sets of nodes as the bits of an integer, and which of them Slurm gives a job."""

from __future__ import annotations

from collections.abc import Iterator


def runs(nodes: int) -> Iterator[int]:
    """Yield the runs of consecutive nodes, the lowest first."""
    while nodes:
        # Adding the lowest bit carries through the lowest run and clears it.
        run = nodes & ~(nodes + (nodes & -nodes))
        yield run
        nodes ^= run


def choose(free: int, count: int) -> int:
    """Return the nodes that Slurm gives a job.

    Best fit over runs of consecutive nodes (``_eval_nodes`` of ``select/cons_tres``, Slurm 22.05,
    for nodes that are all alike): the shortest run that suffices, from its low end; while none
    does, the longest run whole. The lowest of equals.

    Parameters
    ----------
    free : int
        Nodes to choose from, as bits.
    count : int
        Nodes wanted.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    spare = free.bit_count() - count
    if spare < 0:
        msg = f"{count} nodes of {free.bit_count()}"
        raise ValueError(msg)
    if spare == 0:
        return free
    by_length = sorted(runs(free), key=int.bit_count)
    taken = 0
    while count > 0:
        enough = next((run for run in by_length if run.bit_count() >= count), None)
        if enough is not None:
            low = (enough & -enough).bit_length() - 1
            return taken | ((1 << count) - 1) << low
        # Sorting kept the order of equals: the lowest of the longest comes first.
        length = by_length[-1].bit_count()
        run = next(run for run in by_length if run.bit_count() == length)
        by_length.remove(run)
        taken |= run
        count -= length
    return taken
