"""Numbers on a grid, and sums of them that are exact: what was added in any order can be subtracted again.

Floating-point sums depend on their order and are not undone by subtraction. Here every value is a whole number of
2**-16, within ±2**15, and every sum a whole number: of values in one int64, of products of two values in two.
Shape legend: N points, F and G columns.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.admissible import MOST_ON_GRID
from storage.errors import Invalid

Integers = npt.NDArray[np.int64]

UNIT: Final = 1 << 16
"""Grid steps in 1."""
MOST: Final = MOST_ON_GRID
"""Largest absolute value."""

_HALF: Final = 16
"""Bits of the lower half of a value; the upper half is signed."""
_LOW: Final = 32
"""Bits of the lower part of a sum of products."""
_CHUNK: Final = 1 << 16
"""Points multiplied at once: products of halves have at most 32 bits, so that their sums are exact in float64."""


def fixed(values_NF: npt.NDArray[np.floating[Any]], what: str) -> Integers:
    """Return the values as whole grid steps, each rounded to the nearest one.

    Raises ``Invalid``, which names the column but no value, when one is outside the range.
    """
    outside = ~(np.abs(values_NF) <= MOST)
    if outside.any():
        column = int(np.argwhere(outside)[0][-1]) + 1 if values_NF.ndim > 1 else 1
        raise Invalid(
            f"{what} {column} of a data point is outside ±{MOST:,}, or not a number",
            "Bring it into that range: features with [data] scale or encode, labels with label_scale.",
        )
    return np.rint(values_NF.astype(np.float64) * UNIT).astype(np.int64)


def product_sums(left_NF: Integers, right_NG: Integers) -> Integers:
    """Return the sums over N of left_NF × right_NG, as two int64: shape (2, F, G), the upper part first.

    The sum is upper × 2**32 + lower, with 0 <= lower < 2**32. It is exact for up to 10**9 points.
    """
    total = np.zeros((2, left_NF.shape[1], right_NG.shape[1]), dtype=np.int64)
    for start in range(0, len(left_NF), _CHUNK):
        left, right = left_NF[start : start + _CHUNK], right_NG[start : start + _CHUNK]
        left_high, left_low = _halves(left)
        right_high, right_low = _halves(right)
        high = _exact(left_high, right_high)
        middle = _exact(left_high, right_low) + _exact(left_low, right_high)
        low = ((middle & (UNIT - 1)) << _HALF) + _exact(left_low, right_low)
        total = added(total, np.stack([high + (middle >> _HALF), low]))
    return total


def square_sums(values_NF: Integers) -> Integers:
    """Return the sums over N of the squares, as ``product_sums`` does; shape (2, F)."""
    total = np.zeros((2, values_NF.shape[1]), dtype=np.int64)
    for start in range(0, len(values_NF), _CHUNK):
        squares = values_NF[start : start + _CHUNK] ** 2  # at most 2**62
        total = added(total, np.stack([(squares >> _LOW).sum(axis=0), (squares & (2**_LOW - 1)).sum(axis=0)]))
    return total


def added(one: Integers, other: Integers) -> Integers:
    """Return the sum of two sums of products; the parts of each may have any sign."""
    upper, lower = one[0] + other[0], one[1] + other[1]
    return np.stack([upper + (lower >> _LOW), lower & (2**_LOW - 1)])


def whole(sums: Integers) -> npt.NDArray[np.object_]:
    """Return sums of products as Python's integers, whose quotients are rounded correctly."""
    joined: npt.NDArray[np.object_] = sums[0].astype(object) * 2**_LOW + sums[1].astype(object)
    return joined


def _halves(values: Integers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return (values >> _HALF).astype(np.float64), (values & (UNIT - 1)).astype(np.float64)


def _exact(left_NF: npt.NDArray[np.float64], right_NG: npt.NDArray[np.float64]) -> Integers:
    # Every partial sum is a whole number below 2**53, so the product is exact regardless of the order and the library.
    products: Integers = np.rint(left_NF.T @ right_NG).astype(np.int64)
    return products
