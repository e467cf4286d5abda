"""The arguments of boosted trees."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shards.learner_kinds.bounds import not_up_to, outside


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostingArguments:
    """The arguments of ``boosting``. How many trees there are is said by ``[training] epochs``."""

    learning_rate: float = 0.1
    """Factor by which each tree's values are multiplied."""
    leaves: int = 31
    """Most leaves of a tree."""
    depth: int = 0
    """Most splits on the way from the root to a leaf; 0: as many as there are leaves."""
    min_leaf: int = 20
    """Fewest data points on each side of a split."""
    min_gain: float = 0.0
    """Least gain of a split."""
    l1: float = 0.0
    """Weight of the absolute values of leaves."""
    l2: float = 0.0
    """Weight of their squares."""
    bins: int = 255
    """Most bins into which the values of a feature are divided."""
    feature_share: float = 1.0
    """Share of the features that each tree may use."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        ranges = {"leaves": (2, 131_072), "depth": (0, 1000), "min_leaf": (1, 10**9), "bins": (2, 65_535)}
        negative = [
            f"{name} must be 0 or more, got {getattr(self, name)}"
            for name in ("min_gain", "l1", "l2")
            if not 0 <= getattr(self, name) < math.inf
        ]
        problems = outside(self, ranges) + not_up_to(10, self, "learning_rate")
        return problems + negative + not_up_to(1, self, "feature_share")
