"""What work costs, fitted to pieces of work whose seconds are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.pace import (
    BATCH_WORK,
    BATCHES,
    EPOCHS,
    IN_ALL,
    LEARNED,
    MANY,
    POINTS_READ,
    RECORDED,
    REQUESTS,
    TASKS,
    GrowingCost,
    MeasuredWork,
    Pace,
    exact_amounts,
    fitted,
    in_federation,
    non_negative,
)
from shards.cost import replay_point_epochs, replay_steps
from shards.schedule import slice_epochs
from shards.specification import SliceIndex


@given(
    points=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    epochs=st.integers(4, 12),
    first=st.integers(1, 6),
)
def test_amounts_are_those_of_the_schedule(points: list[int], epochs: int, first: int) -> None:
    """With batches of one data point, amounts are point-epochs; with larger ones, only full batches are counted."""
    first = min(first, len(points))
    schedule = slice_epochs(epochs, len(points))
    singly = exact_amounts(1, math.inf, points, epochs, first=first)
    assert singly[BATCHES] == replay_point_epochs(points, schedule, SliceIndex(first))
    assert singly[EPOCHS] == sum(schedule[first - 1 :])
    assert singly[RECORDED] == singly[LEARNED] == len(points) - first + 1
    assert (singly[TASKS], singly[POINTS_READ]) == (1, sum(points))
    full = exact_amounts(8, math.inf, points, epochs, first=first)[BATCHES]
    assert full <= replay_steps(points, schedule, 8, SliceIndex(first)) + singly[EPOCHS]


def test_many_steps_to_do_are_counted_apart() -> None:
    """From so many full batches on, steps have a pace of their own: those of the slices to come count."""
    assert slice_epochs(4, 2) == (3, 2)
    amounts = exact_amounts(10, 71, [20, 300], 4, first=1)
    assert (amounts[BATCHES], amounts.get(f"{BATCHES}{MANY}", 0)) == (6 + 64, 0)
    amounts = exact_amounts(10, 70, [20, 300], 4, first=1)
    assert (amounts.get(BATCHES, 0), amounts[f"{BATCHES}{MANY}"]) == (0, 6 + 64)
    assert exact_amounts(10, 70, [20, 300], 4, first=2)[BATCHES] == 64


def test_many_expected_steps_are_counted_apart() -> None:
    """Where any slice may be the first one learned again, the slices before it do not count."""
    pace = Pace(workers={}, coordinator={}, checkpoint_bytes=0.0, batch_size=10, many_steps=150)
    many = {f"{LEARNED}{MANY}", f"{EPOCHS}{MANY}", f"{BATCHES}{MANY}", RECORDED}
    first, second = pace.slice_amounts(304.5, (2, 2), at_once=True)
    assert set(first) == set(second) == many
    assert first[f"{BATCHES}{MANY}"] == pytest.approx(60)
    assert second[f"{BATCHES}{MANY}"] == pytest.approx(2 * 60.45)
    first, second = pace.slice_amounts(304.5, (2, 2), at_once=False)
    assert (set(first), set(second)) == (many, {LEARNED, EPOCHS, BATCHES, RECORDED})


def test_seconds_are_found_again() -> None:
    """Works that follow exactly from seconds of each amount give these seconds, for workers and the coordinator."""
    draw = np.random.default_rng(5)
    per_worker = {TASKS: 0.002, LEARNED: 0.01, EPOCHS: 0.0005, BATCHES: 0.0007}
    per_coordinator = {RECORDED: 0.001, BATCH_WORK: 0.03, REQUESTS: 0.005}
    works = []
    for _ in range(30):
        points = draw.integers(1, 300, size=int(draw.integers(1, 6))).tolist()
        amounts = exact_amounts(16, math.inf, points, int(draw.integers(4, 30)), first=1)
        amounts = in_federation({**amounts, BATCH_WORK: 1.0, REQUESTS: float(draw.integers(1, 9))}, 25.0, 0.0)
        works.append(
            MeasuredWork(
                amounts=amounts,
                worker_seconds=sum(amounts[name] * value for name, value in per_worker.items()),
                coordinator_seconds=sum(amounts[name] * value for name, value in per_coordinator.items()),
            )
        )
    workers, coordinator, misfit = fitted(works)
    pace = Pace(workers=workers, coordinator=coordinator, checkpoint_bytes=0.0)
    assert misfit < 1e-3
    for work in works:
        assert pace.seconds(work.amounts) == pytest.approx(work.worker_seconds + work.coordinator_seconds, rel=5e-3)
    assert workers[BATCHES] == pytest.approx(0.0007, rel=0.02)
    assert min(*workers.values(), *coordinator.values()) >= 0
    assert fitted([]) == ({}, {}, 0.0)


def test_products_follow_from_the_federation() -> None:
    """Each slice learned and each batch costs more in a federation of many slices, and with many ended requests."""
    found = in_federation({RECORDED: 3.0, BATCH_WORK: 2.0}, 10.0, 7.0)
    assert list(found.values()) == [3, 2, 30, 21, 20, 14]
    assert found[IN_ALL] == 30


@given(st.integers(0, 2**32 - 1))
def test_no_second_is_below_nothing_and_none_could_be_better(seed: int) -> None:
    """The conditions of the optimum: the slope is 0 where a number is above 0, and not below 0 elsewhere."""
    draw = np.random.default_rng(seed)
    rows, wanted = draw.random((8, 3)), draw.normal(size=8)
    found = non_negative(rows, wanted)
    slope = rows.T @ (rows @ found - wanted)
    assert (found >= 0).all()
    assert (slope > -1e-6).all()
    assert np.abs(slope[found > 1e-9]).max(initial=0.0) < 1e-6


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1e-6, 1e3)), min_size=1, max_size=6), st.floats(0.1, 1e6))
def test_a_growth_never_falls(pairs: list[tuple[float, float]], points: float) -> None:
    """More data points never cost less, between sizes and beyond them."""
    growth = GrowingCost.through([size for size, _ in pairs], [value for _, value in pairs])
    assert 0 <= growth.at(points) <= growth.at(2 * points) * (1 + 1e-9)


def test_a_growth_goes_on_as_at_its_end() -> None:
    """A square goes on as a square; nothing costs nothing; a single size is a line."""
    square = GrowingCost.through([10, 20, 40, 80], [1.0, 4.0, 16.0, 64.0])
    assert square.at(160) == pytest.approx(256)
    assert square.at(5) == pytest.approx(0.25)
    assert square.at(0) == 0
    assert GrowingCost((10.0,), (5.0,)).at(4) == 2


def test_checkpoints_that_grow_with_each_epoch() -> None:
    """Such as those of boosting; where slices are learned at once there is one."""
    pace = Pace(workers={}, coordinator={}, checkpoint_bytes=100.0, epoch_bytes=10.0)
    assert pace.checkpoint_sizes(50, (3, 2)) == (100 + 30) + (100 + 50)
    whole = Pace(workers={}, coordinator={}, checkpoint_bytes=0.0, learned_bytes=GrowingCost((10.0,), (1000.0,)))
    assert whole.checkpoint_sizes(20, (1,)) == 2000
