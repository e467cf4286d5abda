"""The slice schedule: sums of epochs (E5), and batches that cover an epoch."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.schedule import batch_bounds, minimum_epochs, slice_epochs

epoch_counts = st.integers(1, 500)
slice_counts = st.integers(1, 300)


@given(epoch_counts, slice_counts)
def test_running_total_is_never_half_an_epoch_off(epochs: int, slices: int) -> None:
    """After each slice the epochs spent are 2e'r/(R+1), rounded to the nearest whole number."""
    totals = accumulate(slice_epochs(epochs, slices))
    for r, total in enumerate(totals, start=1):
        assert abs(total - 2 * epochs * r / (slices + 1)) <= 0.5


@given(epoch_counts, slice_counts)
def test_slices_get_nearly_equal_epochs(epochs: int, slices: int) -> None:
    """There are R entries, none negative, and no two differ by more than one epoch."""
    schedule = slice_epochs(epochs, slices)
    assert len(schedule) == slices
    assert min(schedule) >= 0
    assert max(schedule) - min(schedule) <= 1


@given(st.integers(1, 400), st.integers(1, 100))
def test_total_work_is_that_of_unsliced_training(epochs: int, slices: int) -> None:
    """With equal slices the schedule costs e' passes over the shard, give or take half an epoch."""
    schedule = slice_epochs(epochs, slices)
    passes = sum(count * r for r, count in enumerate(schedule, start=1)) / slices
    assert abs(passes - epochs) <= 0.5 + 1e-9


@given(slice_counts, st.integers(0, 300))
def test_no_slice_goes_without_epochs_from_the_minimum_on(slices: int, more: int) -> None:
    """From ``minimum_epochs`` on, every slice gets at least one epoch."""
    assert 0 not in slice_epochs(minimum_epochs(slices) + more, slices)


@pytest.mark.parametrize("slices", [*range(1, 200), 1000, 4095, 4096])
def test_minimum_is_the_least(slices: int) -> None:
    """One epoch fewer than ``minimum_epochs`` leaves a slice without epochs."""
    least = minimum_epochs(slices)
    assert 0 not in slice_epochs(least, slices)
    assert least == 1 or 0 in slice_epochs(least - 1, slices)


@given(epoch_counts, slice_counts)
def test_totals_grow_with_epochs(epochs: int, slices: int) -> None:
    """One more epoch never reduces the running total after any slice."""
    fewer = accumulate(slice_epochs(epochs, slices))
    more = accumulate(slice_epochs(epochs + 1, slices))
    assert all(before <= after for before, after in zip(fewer, more, strict=True))


@given(st.integers(0, 500), st.integers(1, 70))
def test_batches_cover_every_point_once_in_order(points: int, batch_size: int) -> None:
    """Batches are consecutive, cover all points, and only the last may differ from the batch size."""
    bounds = batch_bounds(points, batch_size)
    assert [point for start, end in bounds for point in range(start, end)] == list(range(points))
    assert all(end - start == batch_size for start, end in bounds[:-1])


@given(st.integers(2, 500), st.integers(2, 70))
def test_no_batch_holds_a_single_point(points: int, batch_size: int) -> None:
    """With two or more points and a batch size of two or more, every batch holds two or more."""
    assert min(end - start for start, end in batch_bounds(points, batch_size)) >= 2


@pytest.mark.parametrize(
    ("points", "batch_size", "sizes"),
    [
        (0, 16, []),
        (1, 16, [1]),
        (16, 16, [16]),
        (17, 16, [17]),
        (18, 16, [16, 2]),
        (33, 16, [16, 17]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batch_sizes_at_the_edges(points: int, batch_size: int, sizes: list[int]) -> None:
    """A last batch of one point is merged into the one before it, unless there is none or the batch size is one."""
    assert [end - start for start, end in batch_bounds(points, batch_size)] == sizes
