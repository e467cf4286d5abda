"""The cost formulas: the figures of SISA section IV, and general properties."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.cost import (
    batch_fraction,
    erasure_cost_epochs,
    plan_point_epochs,
    replay_point_epochs,
    replay_steps,
    steps_per_epoch,
    training_point_epochs,
)
from shards.schedule import batch_bounds, slice_epochs
from shards.specification import ShardId, SliceIndex

shard_counts = st.integers(1, 64)
slice_counts = st.integers(1, 64)
request_counts = st.integers(0, 200)


@pytest.mark.parametrize(
    ("shards", "slices", "requests", "fraction", "speed_up"),
    [
        (5, 5, 1, 0.147, 6.8),
        (20, 1, 8, 0.337, 2.97),
        (20, 50, 8, 0.236, 4.23),
        (20, 50, 18, 0.447, 2.24),
        (20, 1, 39, 0.865, 1.16),
        (20, 50, 39, 0.704, 1.42),
    ],
)
def test_published_figures(shards: int, slices: int, requests: int, fraction: float, speed_up: float) -> None:
    """The batch formula gives the figures derived from the paper."""
    value = batch_fraction(shards, slices, requests)
    assert value == pytest.approx(fraction, abs=0.0005)
    assert 1 / value == pytest.approx(speed_up, abs=0.05)


@given(shard_counts, slice_counts, request_counts)
def test_fraction_is_a_fraction_and_grows_with_requests(shards: int, slices: int, requests: int) -> None:
    """A batch costs between nothing and a full training, and one more request never makes it cheaper."""
    value = batch_fraction(shards, slices, requests)
    assert 0 <= value <= 1
    assert batch_fraction(shards, slices, 0) == 0
    assert batch_fraction(shards, slices, requests + 1) >= value


@given(shard_counts, slice_counts, st.integers(1, 10**6), st.integers(1, 500))
def test_batch_of_one_is_the_single_erasure(shards: int, slices: int, points: int, epochs: int) -> None:
    """For K = 1 the batch formula is the single-erasure formula over the full training e'N."""
    single = erasure_cost_epochs(points=points, shards=shards, slices=slices, epochs=epochs)
    assert batch_fraction(shards, slices, 1) == pytest.approx(single / (epochs * points))


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 50))
def test_batching_never_costs_more_than_one_by_one(shards: int, slices: int, requests: int) -> None:
    """K requests in one batch cost at most K times one request."""
    assert batch_fraction(shards, slices, requests) <= requests * batch_fraction(shards, slices, 1) + 1e-9


@pytest.mark.parametrize(
    ("shards", "slices", "requests"), [(1, 1, 1), (1, 3, 2), (2, 1, 3), (2, 2, 3), (3, 2, 2), (2, 3, 3), (4, 4, 2)]
)
def test_batch_formula_is_the_expectation(shards: int, slices: int, requests: int) -> None:
    """The formula equals the mean cost over all assignments of K requests to shards and slices."""
    schedule = [1] * slices
    points = [1] * slices
    full = shards * training_point_epochs(points, schedule)
    places = list(product(range(shards), range(1, slices + 1)))
    costs = []
    for hits in product(places, repeat=requests):
        first = {ShardId(shard): SliceIndex(min(r for s, r in hits if s == shard)) for shard, _ in hits}
        costs.append(plan_point_epochs(first, dict.fromkeys(first, points), schedule))
    assert batch_fraction(shards, slices, requests) == pytest.approx(sum(costs) / len(costs) / full)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 12))
def test_single_formula_is_the_mean_over_slices(per_slice: int, shards: int, slices: int) -> None:
    """With equal slices and a schedule without rounding, the formula is the mean replay over all slices."""
    epochs = (slices + 1) * 2
    counts = [per_slice] * slices
    schedule = slice_epochs(epochs, slices)
    mean = sum(replay_point_epochs(counts, schedule, SliceIndex(r)) for r in range(1, slices + 1)) / slices
    points = per_slice * slices * shards
    assert erasure_cost_epochs(points=points, shards=shards, slices=slices, epochs=epochs) == pytest.approx(mean)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 40))
def test_replay_from_a_later_slice_never_costs_more(counts: list[int], epochs: int) -> None:
    """The later the first tainted slice, the less is retrained; from slice 1 it is everything."""
    schedule = slice_epochs(epochs, len(counts))
    costs = [replay_point_epochs(counts, schedule, SliceIndex(r)) for r in range(1, len(counts) + 1)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == training_point_epochs(counts, schedule)


@given(st.data())
def test_a_plan_costs_at_least_its_sub_plan(data: st.DataObject) -> None:
    """Leaving out a shard, or starting at a later slice, never makes a plan more expensive."""
    slices = data.draw(st.integers(1, 6))
    counts = data.draw(
        st.dictionaries(
            st.integers(0, 5).map(ShardId),
            st.lists(st.integers(0, 30), min_size=slices, max_size=slices),
            min_size=1,
        )
    )
    schedule = slice_epochs(data.draw(st.integers(1, 30)), slices)
    plan = {shard: SliceIndex(data.draw(st.integers(1, slices))) for shard in counts}
    kept = data.draw(st.sets(st.sampled_from(sorted(plan))))
    sub_plan = {shard: SliceIndex(data.draw(st.integers(plan[shard], slices))) for shard in kept}
    assert plan_point_epochs(sub_plan, counts, schedule) <= plan_point_epochs(plan, counts, schedule)


@given(st.integers(0, 500), st.integers(1, 70))
def test_steps_are_the_batches(points: int, batch_size: int) -> None:
    """The number of steps equals the number of batches in an epoch."""
    assert steps_per_epoch(points, batch_size) == len(batch_bounds(points, batch_size))


def test_steps_of_a_shard() -> None:
    """Fashion-MNIST's shard of 12,000 points in 5 slices, batch 16, takes the steps of its rounded schedule."""
    schedule = slice_epochs(20, 5)
    assert replay_steps([2400] * 5, schedule, 16, SliceIndex(1)) == sum(
        150 * r * epochs for r, epochs in enumerate(schedule, start=1)
    )
    assert replay_steps([2400] * 5, schedule, 16, SliceIndex(5)) == 750 * 6


def test_counts_and_schedule_must_agree() -> None:
    """A schedule for another number of slices is refused, never truncated."""
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        training_point_epochs([1, 2, 3], [1, 1])
