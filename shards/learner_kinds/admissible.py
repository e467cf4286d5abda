"""Inputs that learners accept: the ranges of scaled features and of scaled numeric labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MOST_ON_GRID: Final = 1 << 15
"""Largest absolute value that ``shards.learners.fixed_point`` can represent."""
MOST_CODE: Final = 1 << 24
"""Up to here, float32, in which features are stored, represents every whole number exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from ``least`` to ``most``."""

    least: float
    most: float
    is_whole: bool = False
    """Whether they have to be whole numbers."""
    remedy: str
    """What to do about values outside."""

    def outside(self, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which values are outside the range; NaN is outside."""
        found: npt.NDArray[np.bool_] = ~((values >= self.least) & (values <= self.most))
        return found | (values != np.rint(values)) if self.is_whole else found

    def __str__(self) -> str:
        """Return the range in the form used in errors."""
        whole = "the whole numbers " if self.is_whole else ""
        return f"{whole}{self.least:,.10g} .. {self.most:,.10g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admissible:
    """The features and labels that a learner accepts."""

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
"""Admissible values for learners that keep exact sums of features and labels."""
AMOUNTS: Final = Admissible(
    features=Range(least=0, most=math.inf, remedy="Use columns of 0 and 1, or of amounts, as features.")
)
"""Admissible values for learners of baskets."""
LABELS_ON_GRID: Final = Admissible(labels=GRID_LABELS)
"""Admissible values for learners that keep exact sums of labels."""

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
