"""What learners take: the range of scaled features, and of labels that are numbers, as they are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MOST_ON_GRID: Final = 1 << 15
"""Largest absolute value of ``shards.learners.fixed_point``."""
MOST_CODE: Final = 1 << 24
"""Up to here float32, in which features are stored, has all whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from ``least`` to ``most``."""

    least: float
    most: float
    is_whole: bool = False
    """Whether they have to be whole numbers."""
    remedy: str
    """What to do about others."""

    def outside(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which values are not in the range; what is not a number is not in it."""
        found: npt.NDArray[np.bool_] = ~((values >= self.least) & (values <= self.most))
        return found | (values != np.rint(values)) if self.is_whole else found

    def __str__(self) -> str:
        """Return the range as errors have it."""
        whole = "the whole numbers " if self.is_whole else ""
        return f"{whole}{self.least:,.10g} .. {self.most:,.10g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admissible:
    """What a learner takes."""

    features: Range | None = None
    """None: every finite number."""
    labels: Range | None = None
    """None: every finite number."""


ANYTHING: Final = Admissible()

GRID_FEATURES: Final = Range(
    least=-MOST_ON_GRID, most=MOST_ON_GRID, remedy="Bring the column into that range with [data] scale or encode."
)
GRID_LABELS: Final = Range(
    least=-MOST_ON_GRID, most=MOST_ON_GRID, remedy="Bring labels into that range with [data] label_scale."
)
ON_GRID: Final = Admissible(features=GRID_FEATURES, labels=GRID_LABELS)
"""What a learner of exact sums of features and labels takes."""
AMOUNTS: Final = Admissible(
    features=Range(least=0, most=math.inf, remedy="Name columns of 0 and 1, or of amounts, as features.")
)
"""What a learner of baskets takes."""
LABELS_ON_GRID: Final = Admissible(labels=GRID_LABELS)
"""What a learner of exact sums of labels takes."""

CODES: Final = Range(
    least=-MOST_CODE,
    most=MOST_CODE,
    is_whole=True,
    remedy='Encode categories with as = "index", do not scale columns that are counted, or leave the column out.',
)
"""The features of a learner that counts by group."""
_LABELS: Final = "Name a column of such labels in [data] label, without label_shift and label_scale."
ZERO_OR_ONE: Final = Range(least=0, most=1, is_whole=True, remedy=_LABELS)
COUNTS: Final = Range(least=0, most=MOST_CODE, is_whole=True, remedy=_LABELS)
