"""The arguments of the certified linear model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from shards.learner_kinds.admissible import ANYTHING, Admissible, Range
from shards.learner_kinds.bounds import not_positive, not_up_to
from shards.learner_kinds.guarantees import Certified

WITHIN_NORM: Final = "Bring features into it with [data] scale or encode, raise norm, or set clip = true."
"""What to do about features that are longer than the declared norm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedLinearArguments:
    """The arguments of ``certified_linear``."""

    norm: float = 0.0
    """Largest Euclidean norm of a data point's features after scaling and encoding. It has to be declared: the largest
    one in the data would depend on everybody in them."""
    clip: bool = False
    """Whether longer features are shortened to ``norm``; else they are refused."""
    penalty: float = 1e-4
    """Weight of the squared coefficients per data point, half of which is added to the loss."""
    noise: float = 1.0
    """Standard deviation of the noise in the objective: more of it costs accuracy and allows more erasures."""
    epsilon: float = 1.0
    """See ``Certified``; at most 1, up to which the theorem's constant is proved."""
    delta: float = 1e-4
    """See ``Certified``."""

    @property
    def promise(self) -> Certified:
        """The learner's guarantee with these arguments."""
        return Certified(epsilon=self.epsilon, delta=self.delta)

    @property
    def budget(self) -> float:
        """Largest residual for which the promise holds (Guo et al., theorem 3)."""
        return self.noise * self.epsilon / self.promise.constant

    @property
    def admitted(self) -> Admissible:
        """The range of single features; whether a data point's features exceed the norm together is checked later."""
        if self.clip:
            return ANYTHING
        return Admissible(features=Range(least=-self.norm, most=self.norm, remedy=WITHIN_NORM))

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = []
        if not 0 < self.norm < math.inf:
            problems.append(
                f"norm must be above 0, got {self.norm}: declare the largest Euclidean norm of a data point's features"
                " after scaling and encoding"
            )
        problems += not_positive(self, "penalty", "noise") + not_up_to(1, self, "epsilon")
        if not 0 < self.delta < 1:
            problems.append(f"delta must be above 0 and below 1, got {self.delta}")
        return problems
