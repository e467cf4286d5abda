"""The simulation of many workers: what is counted is that of the engine, and waiting is that of the workers."""

from __future__ import annotations

from tests.simulation.throughput import SLICE_SECONDS, WRITE_SECONDS, ThroughputSimulation


def test_more_workers_wait_less_for_the_same_checkpoints() -> None:
    """One worker learns slice after slice; with a worker for each shard, the longest shard decides."""
    with ThroughputSimulation(shards=4, slices=2, people=32) as simulation:
        alone = simulation.erase(6, workers=1)
        many = simulation.erase(6, workers=4)
    assert alone.waited > SLICE_SECONDS * (alone.checkpoints - 1)
    assert many.waited <= 2 * SLICE_SECONDS
    assert many.checkpoints <= 8
    for each in (alone, many):
        # Besides waiting, its time has at least each checkpoint's entry in the journal.
        assert each.seconds - each.waited > each.checkpoints * WRITE_SECONDS
        assert set(each.phases) == {"removing points", "training", "purging", "receipts"}


def test_receipts_of_a_batch_take_writes_in_proportion() -> None:
    """Twice as many requests in a batch write about twice as many objects, as each of them has a receipt."""
    with ThroughputSimulation(shards=4, slices=2, people=64) as simulation:
        few, many = (simulation.erase(count, workers=4).writes["receipts"] for count in (5, 10))
    assert many == 2 * few
