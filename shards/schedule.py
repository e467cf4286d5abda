"""The slice schedule (SISA section IV): how many epochs each slice gets, and how an epoch is divided into batches."""

from __future__ import annotations

from itertools import pairwise


def slice_epochs(epochs: int, slices: int) -> tuple[int, ...]:
    """Return the epochs of slices 1..R; together they cost about ``epochs`` passes over the shard.

    Slice r trains on slices 1..r for 2e'/(R+1) epochs (SISA section IV). That number is rarely whole, so the running
    total is rounded, half up: no slice is off by more than one epoch, and rounding errors do not add up.

    >>> slice_epochs(20, 5)
    (7, 6, 7, 7, 6)
    >>> slice_epochs(20, 1)
    (20,)
    """
    totals = [(4 * epochs * r + slices + 1) // (2 * (slices + 1)) for r in range(slices + 1)]
    return tuple(after - before for before, after in pairwise(totals))


def minimum_epochs(slices: int) -> int:
    """Return the fewest epochs that give every slice at least one.

    >>> minimum_epochs(5)
    3
    """
    # With 2e'/(R+1) >= 1 the rounded running total grows by at least one at every slice. With fewer epochs it ends
    # below R, so that some slice gets no epoch.
    return slices // 2 + 1


def batch_bounds(points: int, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Return (start, end) of each batch of one epoch, as positions in that epoch's order of ``points`` data points.

    A last batch of a single point is merged into the one before: batch statistics of one point are undefined.

    >>> batch_bounds(40, 16)
    ((0, 16), (16, 32), (32, 40))
    >>> batch_bounds(33, 16)
    ((0, 16), (16, 33))
    >>> batch_bounds(17, 16)
    ((0, 17),)
    >>> batch_bounds(2, 1)
    ((0, 1), (1, 2))
    """
    starts = list(range(0, points, batch_size))
    if batch_size > 1 and len(starts) > 1 and points - starts[-1] == 1:
        starts.pop()
    return tuple(pairwise([*starts, points]))
