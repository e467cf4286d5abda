"""Sums on a grid are exact, in any order and of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.learners.fixed_point import MOST, UNIT, added, fixed, product_sums, square_sums, whole
from storage.errors import Invalid

EXTREME = MOST * UNIT
GRIDS = st.tuples(st.integers(0, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-EXTREME, EXTREME))
)


def _exact(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> list[list[int]]:
    return [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in right.T] for x in left.T]


@settings(max_examples=60)
@given(left=GRIDS)
def test_sums_of_products_are_those_of_integers(left: npt.NDArray[np.int64]) -> None:
    """For all values, also the largest ones; and each sum has one form only."""
    right = left[:, ::-1]
    sums = product_sums(left, right)
    assert whole(sums).tolist() == _exact(left, right)
    assert ((sums[1] >= 0) & (sums[1] < 2**32)).all()
    assert whole(square_sums(left)).tolist() == [sum(int(v) ** 2 for v in column) for column in left.T]


@settings(max_examples=60)
@given(data=st.data(), left=GRIDS)
def test_what_was_added_is_subtracted_again(data: st.DataObject, left: npt.NDArray[np.int64]) -> None:
    """The sum over all points without some is the sum over the others, bit for bit."""
    stays = data.draw(arrays(np.bool_, len(left)))
    every, gone = product_sums(left, left), product_sums(left[~stays], left[~stays])
    assert np.array_equal(added(every, -gone), product_sums(left[stays], left[stays]))


def test_a_billion_of_the_largest_values_fit() -> None:
    """By arithmetic: the upper part of the largest sum of a billion products is far from the end of an int64."""
    one = product_sums(np.full((1, 1), -EXTREME), np.full((1, 1), EXTREME))
    upper = int(whole(one)[0, 0]) * 10**9 // 2**32
    assert abs(upper) < 2**62


@pytest.mark.parametrize("value", [MOST * 1.01, -np.inf, np.nan])
def test_values_outside_the_range_are_refused(value: float) -> None:
    """The error names the column, and not the value, which is somebody's."""
    with pytest.raises(Invalid, match=r"feature 2 of a data point is outside ±32,768"):
        fixed(np.array([[0.0, 1.0], [0.5, value]], dtype=np.float32), "feature")
