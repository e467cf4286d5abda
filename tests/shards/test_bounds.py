"""What is said of the arguments of learners that are out of bounds."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from shards.learner_kinds.bounds import not_positive, not_up_to, outside


@pytest.mark.parametrize(("value", "is_inside"), [(1, False), (2, True), (9, True), (10, False), (math.nan, False)])
def test_both_ends_of_a_range_are_in_it(value: float, is_inside: bool) -> None:
    """What is not a number is in none."""
    problem = f"trees must be 2 .. 9, got {value}"
    assert outside(SimpleNamespace(trees=value), {"trees": (2, 9)}) == ([] if is_inside else [problem])


@pytest.mark.parametrize(
    ("value", "is_positive", "is_up_to_1"),
    [(0.0, False, False), (1e-300, True, True), (1.0, True, True), (1.5, True, False), (math.inf, False, False)],
)
def test_zero_and_infinity_are_out_of_bounds(value: float, is_positive: bool, is_up_to_1: bool) -> None:
    """Each argument is named with its value."""
    given = SimpleNamespace(share=value, other=1.0)
    assert not_positive(given, "other", "share") == ([] if is_positive else [f"share must be above 0, got {value}"])
    problem = f"share must be above 0 and at most 1, got {value}"
    assert not_up_to(1, given, "share") == ([] if is_up_to_1 else [problem])
