"""Sums on a grid are exact, in any order and of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.learner_kinds.bayesian import BayesianLinearArguments
from shards.learner_kinds.summation import NaiveBayesArguments
from shards.learners.fixed_point import MOST, UNIT, added, fixed, product_sums, square_sums, whole
from shards.learners.summation.bayesian_linear import BayesianLinear
from shards.learners.summation.learner import SummationLearner
from shards.learners.summation.naive_bayes import NaiveBayes
from shards.learners.tensors import digest_arrays
from storage.errors import Invalid

EXTREME = MOST * UNIT
T = TypeVar("T")
GRIDS = st.tuples(st.integers(0, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-EXTREME, EXTREME))
)


def times(one: T, count: int, plus: Callable[[T, T], T]) -> T:
    """Return ``one`` added ``count`` times, by doubling."""
    found, rest = None, count
    while rest:
        if rest & 1:
            found = one if found is None else plus(found, one)
        one, rest = plus(one, one), rest >> 1
    assert found is not None
    return found


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


@pytest.mark.parametrize("sign", [1, -1])
def test_a_billion_of_the_largest_values_fit(sign: int) -> None:
    """Added as two int64: the sum is exact, leaves room for twice as many, and is subtracted again to the last unit."""
    one = product_sums(np.full((1, 1), sign * EXTREME), np.full((1, 1), EXTREME))
    billion = times(one, 10**9, added)
    assert whole(billion)[0, 0] == sign * EXTREME**2 * 10**9
    assert abs(int(billion[0, 0, 0])) < 2**62
    assert np.array_equal(added(billion, -times(one, 10**9 - 1, added)), one)


def test_learners_add_up_a_billion_of_the_largest_values() -> None:
    """A billion rows of the largest value give their mean, and no variance; without all but one they are that one."""
    features_NF = np.array([[MOST, -MOST]], dtype=np.float32)
    bayes = NaiveBayes(NaiveBayesArguments(), inputs=2, outputs=2, target="class", seed=0)
    linear = BayesianLinear(BayesianLinearArguments(), inputs=2, outputs=1, target="number", seed=0)
    learners: tuple[SummationLearner[Any], ...] = (bayes, linear)
    for learner, label in zip(learners, (np.array([0]), np.array([[float(-MOST)]], dtype=np.float32)), strict=True):
        one = dict(learner.sums(features_NF, label))
        billion = times(one, 10**9, learner.plus)
        less = learner.plus(billion, times(one, 10**9 - 1, learner.plus), sign=-1)
        assert digest_arrays(less) == digest_arrays(one)
        answer = learner.outputs(learner.fit(billion), features_NF)
        assert answer[0, 0] == pytest.approx(1.0 if learner is bayes else -MOST, rel=1e-9)
        if learner is linear:
            assert 0 < answer[0, 1] < 1e-4


@pytest.mark.parametrize("value", [MOST * 1.01, -np.inf, np.nan])
def test_values_outside_the_range_are_refused(value: float) -> None:
    """The error names the column, and not the value, which is somebody's."""
    with pytest.raises(Invalid, match=r"feature 2 of a data point is outside ±32,768"):
        fixed(np.array([[0.0, 1.0], [0.5, value]], dtype=np.float32), "feature")
