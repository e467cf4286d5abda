"""Order and randomness depend on identity, not on position (E3)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.ordering import NOISE, SHUFFLE, epoch_order, stream
from shards.specification import ShardId, SliceIndex

keys = st.lists(st.integers(0, 2**64 - 1), max_size=60).map(lambda numbers: np.array(numbers, dtype=np.uint64))
numbers = st.integers(0, 2**64 - 1)


@given(keys, numbers)
def test_an_order_is_a_permutation(keys_N: np.ndarray, number: int) -> None:
    """Every point occurs exactly once in an epoch."""
    assert list(range(len(keys_N))) == sorted(epoch_order(keys_N, number).tolist())


@given(keys, numbers, st.data())
def test_removing_points_keeps_the_order_of_the_others(keys_N: np.ndarray, number: int, data: st.DataObject) -> None:
    """The remaining points keep their relative order, including points with equal keys."""
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(keys_N), max_size=len(keys_N))), dtype=np.bool_)
    before = [position for position in epoch_order(keys_N, number).tolist() if kept[position]]
    survivors = np.flatnonzero(kept)
    after = survivors[epoch_order(keys_N[kept], number)].tolist() if len(survivors) else []
    assert before == after


def test_streams_differ_in_every_input() -> None:
    """Changing seed, shard, slice, epoch or purpose changes the stream; equal inputs give equal streams."""
    drawn = [
        stream(seed, ShardId(shard), SliceIndex(slice_), epoch, purpose)
        for seed in (0, 1)
        for shard in (0, 1)
        for slice_ in (1, 2)
        for epoch in (0, 1)
        for purpose in (SHUFFLE, NOISE)
    ]
    assert len(set(drawn)) == 32
    assert stream(7, ShardId(1), SliceIndex(2), 3, SHUFFLE) == 3127502007429380967


def test_epochs_are_shuffled_evenly() -> None:
    """Over many epochs, each point is first, and follows any other point, about equally often."""
    keys_N = np.arange(10, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    orders = [epoch_order(keys_N, stream(1, ShardId(0), SliceIndex(1), epoch, SHUFFLE)) for epoch in range(5000)]
    first = np.bincount([order[0] for order in orders], minlength=10)
    follows = np.zeros((10, 10))
    for order in orders:
        follows[order[:-1], order[1:]] += 1
    # Both counts have mean 500 and standard deviation 21; the bounds are five standard deviations.
    assert 395 < first.min() <= first.max() < 605
    off_diagonal = follows[~np.eye(10, dtype=bool)]
    assert 395 < off_diagonal.min() <= off_diagonal.max() < 605
