"""Variational Bayes unlearning (Nguyen, Low and Jaillet, NeurIPS 2020) for Bayesian logistic regression.

The posterior is a Gaussian, of dependent coefficients where there are at most 64 features, else of independent ones.
Two classes have one vector of coefficients; more have one each, against the rest. All coefficients, with the constant,
have the prior N(0, variance).

An erasure changes the posterior q of all data points, and reads no other: the posterior of the others is proportional
to q divided by the likelihood of the erased. That would be exact if q were. It is a Gaussian that is close to the
posterior, so its tails are wrong, and errors of several erasures add up. With ``trust`` the likelihood counts only
where q is above this share of its largest value: 0 counts everywhere, 1 changes nothing. In D dimensions about half of
q is above the share exp(-D / 2): for more features a share that excludes little is smaller.

* ``eubo`` minimises the evidence upper bound with Gauss-Hermite quadrature. The log-likelihood's slope is 0 where q is
  not trusted; the jump of its value at the edge, which depends on how many are erased, is not followed, as by automatic
  differentiation of samples. Of coefficients with one predictor as much counts as q trusts of them.
* ``rkl`` minimises the divergence of the quotient from the new Gaussian: it takes the moments of samples of q, which
  have the inverse of that likelihood as weights. The samples depend on the seed and the number of the erasure alone.

Shape legend: N points, F features, C classes, D coefficients (F and a constant), K outputs, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.guarantees import Guarantee
from shards.learners.approximate.gaussian import LOGISTIC, Bound, Gaussian, closest, mean_sigmoids, tilted
from shards.learners.approximate.models import Doubles, normal_numbers
from shards.learners.approximate.protocol import Diverged, check_numbers
from shards.points import ShardPoints
from storage.errors import Invalid

FULL_AT_MOST: Final = 64
"""Features up to which coefficients are dependent: covariances take their number squared, times the data points."""
_SAMPLES: Final = {True: 1 << 12, False: 1 << 14}
"""Number of samples, by whether coefficients are independent."""

Criterion = Literal["eubo", "rkl"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VariationalState:
    """A posterior, and how it came about."""

    posterior: Gaussian
    points: int
    """How many data points it has."""
    evidence_K: Doubles
    """Lower bounds of the log-evidence of all data points that were learned, and so of those that are left: that of a
    part of them is never lower, and the negative of it is the furthest that any posterior of them is from the prior."""
    erasures: int = 0
    """How many erasures have changed it."""
    is_projected: bool = False
    """Whether the last erasure would have left a direction surer than before, or less sure than the prior, and was
    moved to there. The posterior before was not good enough for this erasure, or ``rkl`` has too few samples."""
    effective_samples: float | None = None
    """Effective sample size of the last erasure by ``rkl``: with few samples the estimate is poor."""


class Variational:
    """Bayesian logistic regression. Implements ``ApproximateLearner``."""

    guarantee: Guarantee = LABORATORY["variational"]

    def __init__(
        self, inputs: int, *, objective: Criterion, trust: float, seed: int, classes: int = 2, variance: float = 1.0
    ) -> None:
        """``variance`` is that of the prior. Raises ``Invalid`` for an argument out of its range."""
        if objective not in get_args(Criterion):
            raise Invalid(f"the objective {objective!r} is unknown", "Take eubo or rkl.")
        if not 0 <= trust <= 1:
            raise Invalid(f"trust is {trust}, which is not between 0 and 1", "Take 0 to trust everywhere.")
        if inputs < 1 or classes < 2 or not 0 < variance < np.inf:
            raise Invalid(
                f"{inputs} features, {classes} classes and a prior variance of {variance} are not a problem of logistic"
                " regression",
                "Take at least one feature, at least two classes and a positive variance.",
            )
        self._inputs = inputs
        self._objective = objective
        self._trust = trust
        self._seed = seed
        self._classes = classes
        self._precision = 1 / variance

    @property
    def is_diagonal(self) -> bool:
        """Whether coefficients are independent."""
        return self._inputs > FULL_AT_MOST

    def learn(self, points: ShardPoints) -> VariationalState:
        """See ``ApproximateLearner``."""
        bound = self._bound(self._prior(), points, -1)
        posterior, _ = closest(bound)
        return VariationalState(posterior=posterior, points=len(points.labels_N), evidence_K=-bound.values(posterior))

    def unlearn(self, state: VariationalState, gone: ShardPoints, left: Callable[[], ShardPoints]) -> VariationalState:
        """See ``ApproximateLearner``. When no data point is left, the posterior is the prior.

        Raises ``Diverged``, too, when the result is further from the prior than any posterior of the others.
        """
        del left
        points = state.points - len(gone.labels_N)
        if points < 0:
            raise Invalid(
                f"{len(gone.labels_N)} data points cannot leave: the posterior has {state.points}",
                "Erase data points that were learned, each once.",
            )
        bound = self._bound(state.posterior, gone, 1)
        after = replace(state, points=points, erasures=state.erasures + 1, is_projected=False, effective_samples=None)
        if points == 0:
            return replace(after, posterior=self._prior())
        effective = None
        if self._objective == "eubo":
            posterior, is_projected = closest(bound)
        else:
            posterior, is_projected, effective = tilted(bound, self._samples(after.erasures))
        if (posterior.divergences_from(self._prior()) > -state.evidence_K).any():
            raise Diverged(
                "the result is further from the prior than any posterior of the data points that are left",
                "Erase fewer data points, or raise the trust.",
            )
        return replace(after, posterior=posterior, is_projected=is_projected, effective_samples=effective)

    def parameters(self, state: VariationalState) -> Doubles:
        """Return the means of the coefficients, one vector after another."""
        return state.posterior.means_KD.ravel()

    def probabilities(self, state: VariationalState, features_NF: npt.NDArray[np.float32]) -> Doubles:
        """Return the probabilities over the posterior; those of several classes are shares of their sum."""
        found_NK = mean_sigmoids(state.posterior, self._rows(features_NF))
        if self._classes == 2:
            return np.concatenate([1 - found_NK, found_NK], axis=1)
        shares_NC: Doubles = found_NK / np.maximum(found_NK.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return shares_NC

    def arrays(self, state: VariationalState) -> Mapping[str, npt.NDArray[Any]]:
        """See ``ApproximateLearner``."""
        return {
            "means": state.posterior.means_KD,
            "precisions": state.posterior.precisions,
            "counts": np.array([state.points, state.erasures]),
            "evidence": state.evidence_K,
        }

    def _prior(self) -> Gaussian:
        outputs, wide = 1 if self._classes == 2 else self._classes, self._inputs + 1
        precision = np.full(wide, self._precision)
        one = precision if self.is_diagonal else np.diag(precision)
        return Gaussian(np.zeros((outputs, wide)), np.stack([one] * outputs))

    def _bound(self, anchor: Gaussian, points: ShardPoints, sign: Literal[-1, 1]) -> Bound:
        check_numbers(points)
        labels_N = np.asarray(points.labels_N)
        if len(labels_N) and (labels_N.min() < 0 or labels_N.max() >= self._classes):
            raise Invalid(
                f"a label is not one of the {self._classes} classes: {labels_N.min()} to {labels_N.max()}",
                "Name the number of classes.",
            )
        numbers = [1] if self._classes == 2 else range(self._classes)
        return Bound(
            anchor=anchor,
            rows_ND=self._rows(points.features_NF),
            labels_NK=np.stack([labels_N == number for number in numbers], axis=1).astype(np.float64),
            likelihood=LOGISTIC,
            sign=sign,
            least=self._precision,
            trust=self._trust if sign > 0 else 0.0,
        )

    def _rows(self, features_NF: npt.NDArray[Any]) -> Doubles:
        if features_NF.shape[1] != self._inputs:
            raise Invalid(
                f"data points have {features_NF.shape[1]} features, not {self._inputs}", "Name their number as inputs."
            )
        return np.concatenate([features_NF, np.ones((len(features_NF), 1))], axis=1, dtype=np.float64)

    def _samples(self, number: int) -> Doubles:
        """Return standard normal numbers whose means are 0 and whose covariance is the identity, exactly.

        Equal weights then give the posterior back.
        """
        wide = self._inputs + 1
        half = _SAMPLES[self.is_diagonal] // 2
        half_SD = normal_numbers(f"variational/{self._seed}/{number}", half * wide).reshape(-1, wide)
        nodes_SD = np.concatenate([half_SD, -half_SD])
        if self.is_diagonal:
            nodes_SD /= np.sqrt(np.mean(nodes_SD**2, axis=0))
            return nodes_SD
        root_DD = np.linalg.cholesky(nodes_SD.T @ nodes_SD / len(nodes_SD))
        return nodes_SD @ np.linalg.inv(root_DD).T


def kl_to(state: VariationalState, retrained: VariationalState) -> float:
    """Return KL(state || retrained) in nats, summed over the outputs: how far an erasure is from learning again."""
    return float(state.posterior.divergences_from(retrained.posterior).sum())
