"""The arguments of Bayesian linear regression and the conjugate families."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shards.learner_kinds.bounds import not_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesianLinearArguments:
    """The arguments of ``bayesian_linear``."""

    penalty: float = 1.0
    """The prior precision of the coefficients, as a multiple of the noise's: what ``penalty`` is to ridge. The
    intercept has a flat prior."""
    alpha: float = 2.0
    """The prior's shape: of the noise's variance, which has an inverse gamma distribution."""
    beta: float = 0.01
    """The prior's scale. The prior mean of the noise's variance is beta / (alpha - 1), in squared units of the label,
    after ``label_scale``."""
    interval: float = 0.9
    """The probability that the label of a data point is in the interval of its answer."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = not_positive(self, "penalty")
        if not 1 < self.alpha < math.inf:
            problems.append(f"alpha must be above 1, got {self.alpha}: the spread of answers would be infinite")
        return problems + not_positive(self, "beta") + interval_problems(self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirichletArguments:
    """The arguments of ``dirichlet_categorical``."""

    alpha: float = 1.0
    """The prior: this many data points of each class, in every group."""
    group: bool = True
    """Whether data points with equal features are a group of their own. False: all data points are one group."""
    interval: float = 0.9
    """The posterior probability that a class's probability is in its interval."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        return not_positive(self, "alpha") + interval_problems(self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateArguments:
    """The arguments of ``beta_bernoulli`` and ``gamma_poisson``."""

    alpha: float = 1.0
    """The prior: labels of 1 in ``beta_bernoulli``, the sum of the labels in ``gamma_poisson``, in every group."""
    beta: float = 1.0
    """The prior: labels of 0 in ``beta_bernoulli``, the number of data points in ``gamma_poisson``."""
    group: bool = True
    """As in ``DirichletArguments``."""
    interval: float = 0.9
    """The posterior probability that the rate is in its interval."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        return not_positive(self, "alpha", "beta") + interval_problems(self.interval)


def interval_problems(interval: float) -> list[str]:
    """Return what is wrong with the probability of intervals."""
    return [] if 0 < interval < 1 else [f"interval must be above 0 and below 1, got {interval}"]
