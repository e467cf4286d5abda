"""The arguments of forests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from shards.learner_kinds.bounds import not_up_to, outside
from shards.learner_kinds.leaving import FEWEST

THRESHOLDS: Final = ("pivot", "box")
"""Where a forest's thresholds come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestArguments:
    """The arguments of ``forest``."""

    trees: int = 100
    """How many trees a shard's forest has."""
    depth: int = 12
    """Most splits on the way from the root to a leaf."""
    min_leaf: int = 5
    """Fewest data points on each side of a split."""
    attributes: int = 0
    """How many features a node chooses among; 0: the square root of their number."""
    candidates: int = 10
    """How many thresholds a node tries for each of them."""
    thresholds: str = "pivot"
    """``pivot``: thresholds are values of some of the node's data points; ``box``: they are drawn between ``low`` and
    ``high``, so that no value of anybody is in the model, and less is grown again."""
    low: float = 0.0
    """Of the form box: the lowest value of all features, after scaling and encoding. Values outside are allowed."""
    high: float = 1.0
    """Of the form box: the highest value."""
    share: float = 1.0
    """Share of the trees that learn from each subject: fewer trees change when somebody is erased."""

    @property
    def trees_each(self) -> int:
        """How many trees learn from each subject: the share as it is written, rounded up."""
        return math.ceil(Fraction(repr(self.share)) * self.trees)

    @property
    def withheld(self) -> str | None:
        """What must not leave a site, even in the part that serves; None: nothing."""
        if self.thresholds != "box":
            return 'thresholds that are values of single data points (not with thresholds = "box")'
        return None if self.min_leaf >= FEWEST else f"leaves of fewer than {FEWEST} data points (see min_leaf)"

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        ranges = {"trees": (1, 10_000), "depth": (1, 48), "min_leaf": (1, 10**6), "attributes": (0, 10**6)}
        problems = outside(self, {**ranges, "candidates": (1, 1000)})
        if self.thresholds not in THRESHOLDS:
            problems.append(f"thresholds must be one of {', '.join(THRESHOLDS)}, got {self.thresholds!r}")
        if not -math.inf < self.low < self.high < math.inf:
            problems.append(f"low must be below high, got {self.low} and {self.high}")
        return problems + not_up_to(1, self, "share")
