"""Order (E3): a point's turn depends on its identity, and erasing other points does not change it."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.ordering import INITIAL_WEIGHTS, NOISE, SHUFFLE, epoch_order, stream
from shards.specification import ShardId, SliceIndex

_KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=40).map(lambda keys: np.array(keys, dtype=np.uint64))


@given(keys_N=_KEYS, number=st.integers(0, 2**64 - 1), data=st.data())
def test_erasing_points_keeps_the_order_of_all_others(
    keys_N: np.ndarray[tuple[int], np.dtype[np.uint64]], number: int, data: st.DataObject
) -> None:
    """The remaining points keep the relative order that they had with the erased points among them (E2)."""
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(keys_N), max_size=len(keys_N))), dtype=np.bool_)
    before = epoch_order(keys_N, number)
    assert sorted(before.tolist()) == list(range(len(keys_N)))
    survivors = np.flatnonzero(kept)
    after = survivors[epoch_order(keys_N[kept], number)]
    assert after.tolist() == [index for index in before.tolist() if kept[index]]


def test_every_purpose_has_a_stream_of_its_own() -> None:
    """Streams with different seed, shard, slice, epoch or purpose are different."""
    purposes = (INITIAL_WEIGHTS, SHUFFLE, NOISE)
    streams = {
        stream(seed, ShardId(shard), SliceIndex(slice_), epoch, purpose)
        for seed, shard, slice_, epoch, purpose in product((0, 1, 2**63 - 1), range(3), range(3), range(3), purposes)
    }
    assert len(streams) == 3**5


def test_streams_give_other_orders() -> None:
    """Every epoch has its own order; the same stream always gives the same order."""
    keys_N = np.arange(30, dtype=np.uint64)
    orders = [tuple(epoch_order(keys_N, number).tolist()) for number in range(20)]
    assert len(set(orders)) == 20
    assert orders[0] == tuple(epoch_order(keys_N, 0).tolist())
