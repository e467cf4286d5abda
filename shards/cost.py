"""What training and unlearning cost (SISA section IV), as pure functions.

The unit is the point-epoch: one data point seen once in training. Expected values hold for requests that choose data
points uniformly, independently of the published models (E11).
Letters: N points, S shards, R slices, K requests in one batch, e' the epochs one would use without slicing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from shards.specification import ShardId, SliceIndex


def erasure_cost_epochs(*, points: int, shards: int, slices: int, epochs: int) -> float:
    """Return the expected cost of erasing one data point, in point-epochs: e'(N/S)(2/3 + 1/(3R)).

    SISA section IV, slicing: sharding gains S, slicing at most 1.5.

    >>> erasure_cost_epochs(points=60_000, shards=5, slices=1, epochs=20)
    240000.0
    """
    return epochs * points / shards * (2 / 3 + 1 / (3 * slices))


def batch_fraction(shards: int, slices: int, requests: int) -> float:
    """Return the expected cost of K requests served as one batch, as a fraction of the full training.

    2/(R(R+1)) · Σ_j j[1 − (1 − j/(RS))^K] (SISA section IV, sharding and slicing together): step j of a shard costs j
    slices and is repeated when any of the K points is in slices 1..j of that shard.

    >>> round(batch_fraction(shards=20, slices=50, requests=8), 3)
    0.236
    """
    repeated = sum(j * (1 - (1 - j / (slices * shards)) ** requests) for j in range(1, slices + 1))
    return 2 * repeated / (slices * (slices + 1))


def repeated_step(step: int, *, shards: int, slices: int, first: float = 1.0, more: float = 0.0) -> float:
    """Return the probability that a batch of requests repeats step ``step`` of a given shard.

    Each request is in one of the R·S slices, at random. ``first`` of them are certain, and ``more`` others are expected
    to arrive in time, at random moments (Poisson): 1 − q^first · exp(−more (1 − q)) with q = 1 − step/(RS). Without
    ``more`` that is the term of ``batch_fraction``.

    >>> round(repeated_step(5, shards=5, slices=5, first=2), 2), round(repeated_step(1, shards=1, slices=4, more=2), 3)
    (0.36, 0.545)
    """
    share = step / (slices * shards)
    kept: float = (1 - share) ** first
    return 1 - kept * math.exp(-more * share)


def training_point_epochs(points_per_slice: Sequence[int], epochs_per_slice: Sequence[int]) -> int:
    """Return the exact work of training a shard from its initial state, in point-epochs.

    >>> training_point_epochs([10, 10], [2, 1])
    40
    """
    return replay_point_epochs(points_per_slice, epochs_per_slice, SliceIndex(1))


def replay_point_epochs(
    points_per_slice: Sequence[int], epochs_per_slice: Sequence[int], from_slice: SliceIndex
) -> int:
    """Return the exact work of retraining a shard from ``from_slice`` on, in point-epochs.

    ``points_per_slice`` counts the remaining points. Step r trains on slices 1..r for the real, rounded number of
    epochs (``slice_epochs``).

    >>> replay_point_epochs([10, 9], [2, 1], SliceIndex(2))
    19
    """
    seen = accumulate(points_per_slice)
    steps = list(zip(seen, epochs_per_slice, strict=True))
    return sum(points * epochs for points, epochs in steps[from_slice - 1 :])


def plan_point_epochs(
    from_slices: Mapping[ShardId, SliceIndex],
    points_per_slice: Mapping[ShardId, Sequence[int]],
    epochs_per_slice: Sequence[int],
) -> int:
    """Return the exact work of a retrain plan, in point-epochs.

    ``from_slices`` maps each affected shard to the first slice to retrain.
    """
    return sum(
        replay_point_epochs(points_per_slice[shard], epochs_per_slice, from_slice)
        for shard, from_slice in from_slices.items()
    )


def steps_per_epoch(points: int, batch_size: int) -> int:
    """Return the number of batches in one epoch, which is ``len(batch_bounds(points, batch_size))``.

    >>> steps_per_epoch(33, 16)
    2
    """
    whole, rest = divmod(points, batch_size)
    joins = rest == 1 and whole > 0
    return whole + (rest > 0) - joins


def replay_steps(
    points_per_slice: Sequence[int], epochs_per_slice: Sequence[int], batch_size: int, from_slice: SliceIndex
) -> int:
    """Return the number of optimizer steps of retraining a shard from ``from_slice`` on; from slice 1: all steps.

    >>> replay_steps([32, 32], [2, 1], 16, SliceIndex(1))
    8
    """
    seen = accumulate(points_per_slice)
    epochs = list(zip(seen, epochs_per_slice, strict=True))
    return sum(steps_per_epoch(points, batch_size) * count for points, count in epochs[from_slice - 1 :])
